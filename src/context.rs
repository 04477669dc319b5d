//! How the operators that a thread calls compute: on the tape or off it, by which instructions, how exactly.
//!
//! Every setting holds for a scope of one thread ([`no_grad`], [`with_isa`], …); `Context::current`
//! captures all of them, so that work handed to another thread (`on_threads`) goes by the same.

use crate::backend::cpu::simd::{self, Isa};
use crate::backend::cpu::threads;
use crate::device::Device;
use crate::error::names;
use crate::spans;
use std::cell::Cell;

/// The precision of the operands of a CUDA device's matrix products (convolutions and dense layers), as
/// PyTorch's `set_float32_matmul_precision`. Values are stored, and sums are made, in f32 whatever the
/// precision; so are batch norms' statistics, losses and weights. The CPU multiplies in f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Operands of 24 bits of significand (23 stored), on the CUDA cores.
    #[default]
    F32,
    /// Operands rounded to 11 bits of significand (10 stored), on the tensor cores.
    Tf32,
    /// Operands rounded to 8 bits of significand (7 stored), on the tensor cores.
    Bf16,
}

names! { "precision" Precision { F32: "f32", Tf32: "tf32", Bf16: "bf16" } }

/// All settings of a thread.
#[derive(Clone, Copy)]
pub(crate) struct Context {
    /// Whether operators put their results on the tape.
    pub recording: bool,
    /// None: the best this machine has, or what `ATROUS_ISA` asks for.
    isa: Option<Isa>,
    pub fast_math: bool,
    pub precision: Precision,
    /// The side of the tiles of a device's convolutions, 64 or 128; None: whichever suits their shapes.
    pub conv_tile: Option<usize>,
}

thread_local! {
    static CURRENT: Cell<Context> = const {
        Cell::new(Context {
            recording: true,
            isa: None,
            fast_math: false,
            precision: Precision::F32,
            conv_tile: None,
        })
    };
}

impl Context {
    /// The context of this thread, now.
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// Runs `f` with the precision and the fast math of this context; all else is as it is: a backward pass
    /// computes as exactly as its forward pass did, but off the tape and with its own thread's instructions.
    pub fn with_numerics<R>(self, f: impl FnOnce() -> R) -> R {
        Context { fast_math: self.fast_math, precision: self.precision, ..Context::current() }.scope(f)
    }

    /// Runs `f` in this context.
    pub fn scope<R>(self, f: impl FnOnce() -> R) -> R {
        struct Restore(Context);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _restore = Restore(CURRENT.replace(self));
        f()
    }
}

/// Runs `f` without recording: no operator in it makes a node or saves anything.
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    Context { recording: false, ..Context::current() }.scope(f)
}

/// The instruction set of operators called from this thread: what [`with_isa`] says, else what `ATROUS_ISA`
/// asks for ([`simd::preferred`]), else, or where that is not here, the best this machine has. (An operator
/// asks once, at its entry, and hands it to its threads.)
pub fn isa() -> Isa {
    Context::current().isa.unwrap_or_else(simd::default)
}

/// Runs `f` with the operators it calls on this thread held to one instruction set. It is safe: an [`Isa`]
/// that not every machine has carries the proof that this one was asked for it.
pub fn with_isa<R>(isa: Isa, f: impl FnOnce() -> R) -> R {
    Context { isa: Some(isa), ..Context::current() }.scope(f)
}

/// Whether the operators this thread runs now may multiply less for more rounding.
pub fn fast_math() -> bool {
    Context::current().fast_math
}

/// Runs `f` with operators that may take kernels which multiply less and round more, or may not; the
/// gradients of what is recorded in it are computed likewise, wherever the backward pass runs. So far these
/// are 3×3 convolutions of stride 1, by Winograd's F(4×4, 3×3) (`crate::backend::cpu::winograd`), on the
/// CPU and in f32. What comes out is as independent of the number of threads as ever.
pub fn with_fast_math<R>(fast_math: bool, f: impl FnOnce() -> R) -> R {
    Context { fast_math, ..Context::current() }.scope(f)
}

/// The precision of the operators this thread runs now.
pub fn precision() -> Precision {
    Context::current().precision
}

/// Runs `f` with operators in this precision; the gradients of what is recorded in it are computed in it
/// too, wherever the backward pass runs.
pub fn with_precision<R>(precision: Precision, f: impl FnOnce() -> R) -> R {
    Context { precision, ..Context::current() }.scope(f)
}

/// Runs `f` with a device's convolutions in tiles of `size` × `size`, whatever suits their shapes: for
/// tests and benchmarks.
///
/// # Panics
/// Where `size` is neither 64 nor 128: there are no other kernels.
pub fn with_conv_tile<R>(size: usize, f: impl FnOnce() -> R) -> R {
    assert!([64, 128].contains(&size), "expected tiles of 64 or 128, got {size}");
    Context { conv_tile: Some(size), ..Context::current() }.scope(f)
}

/// Runs the operators of `f` where those of a device should run: the CPU's on one of rayon's threads
/// ([`threads::enter`]), in this thread's context; a device's right here.
pub(crate) fn on_threads<R: Send>(device: Device, f: impl FnOnce() -> R + Send) -> R {
    if device != Device::Cpu {
        return f();
    }
    let (context, recorder) = (Context::current(), spans::current());
    threads::enter(|| spans::record(recorder, || context.scope(f)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_is_the_scope_s_and_its_names_round_trip() {
        for name in Precision::NAMES {
            assert_eq!(name.parse::<Precision>().unwrap().to_string(), name);
        }
        assert!("f16".parse::<Precision>().unwrap_err().to_string().contains("bf16"));
        with_precision(Precision::Bf16, || {
            assert_eq!(with_precision(Precision::Tf32, precision), Precision::Tf32);
            assert_eq!(precision(), Precision::Bf16);
        });
        assert_eq!(precision(), Precision::F32);
    }

    #[test]
    fn every_setting_is_the_scope_s_and_goes_along_to_the_threads() {
        let seen = || {
            let Context { recording, fast_math, precision, conv_tile, .. } = Context::current();
            (recording, isa(), fast_math, precision, conv_tile)
        };
        let before = seen();
        assert!(before.0);
        let within = || (seen(), on_threads(Device::Cpu, seen));
        let all = || with_conv_tile(64, || with_precision(Precision::Tf32, within));
        let (here, there) = no_grad(|| with_isa(Isa::Portable, || with_fast_math(true, all)));
        assert_eq!(here, (false, Isa::Portable, true, Precision::Tf32, Some(64)));
        assert_eq!(there, here);
        assert_eq!((seen(), on_threads(Device::Cpu, seen)), (before, before));
    }

    #[test]
    #[should_panic(expected = "expected tiles of 64 or 128, got 32")]
    fn a_tile_of_another_size_is_refused() {
        with_conv_tile(32, || ());
    }

    #[test]
    fn a_scope_that_panics_leaves_the_settings_as_they_were() {
        let panicked = std::panic::catch_unwind(|| with_fast_math(true, || panic!("in the scope")));
        assert!(panicked.is_err() && !fast_math());
    }
}
