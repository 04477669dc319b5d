//! How the operators that a thread calls compute: recorded for gradients ("on the tape",
//! [`crate::autograd`]) or not, by which instructions, how exactly.
//!
//! Every setting holds for a scope of one thread ([`no_grad`], [`with_isa`], …). Another thread begins with
//! the defaults: `Context::current` captures all settings, and `on_threads` takes them along. Inside a
//! kernel's parallel loop nothing is asked for: an operator reads [`isa`] at its entry and passes it on.

use crate::backend::cpu::simd::{self, Isa};
use crate::backend::cpu::threads;
use crate::device::Device;
use crate::error::names;
use crate::spans;
use std::cell::Cell;

/// The precision of the operands of a CUDA device's matrix products (`conv2d`, `dense`, `matmul`), as
/// PyTorch's `set_float32_matmul_precision`. Computed in F32 whatever it is: depthwise convolutions, and the
/// forward pass of a convolution of fewer than 16 channels (a network's first) whose kernel is not 1×1.
/// Values are stored, and sums are made, in f32 whatever the precision; so are batch norms' statistics,
/// losses and weights. On the CPU it changes nothing: there, tensors are multiplied in their own type.
/// (PyTorch's `highest`, `high` and `medium` are F32, Tf32 and Bf16.)
///
/// ```
/// use atrous::context::{Precision, precision, with_precision};
///
/// assert_eq!(precision(), Precision::F32);
/// assert_eq!(with_precision(Precision::Tf32, precision), Precision::Tf32);
/// ```
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

// `Display`, `FromStr` and `NAMES` (`error::names`).
names! { "precision" Precision { F32: "f32", Tf32: "tf32", Bf16: "bf16" } }

/// All settings of a thread.
#[derive(Clone, Copy)]
pub(crate) struct Context {
    /// Whether operators put their results on the tape.
    pub recording: bool,
    /// None: what `ATROUS_ISA` asks for, else the best this machine has.
    isa: Option<Isa>,
    /// [`with_fast_math`]
    pub fast_math: bool,
    pub precision: Precision,
    /// The side of the square tiles of the result, one a thread block, that a device's convolutions compute,
    /// 64 or 128
    /// ([`with_conv_tile`]); None: what suits the convolution's shape.
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

    /// Runs `f` with this context's precision and fast math, and all else as the calling thread has it. So a
    /// backward pass, whose recording [`crate::autograd`] has turned off, rounds as its forward pass did,
    /// with the instruction set of its own thread.
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

/// Runs `f` without recording (PyTorch's `no_grad`): no operator in it makes a node of the tape, or saves
/// anything for a gradient.
///
/// ```
/// use atrous::prelude::*;
///
/// let x = Tensor::ones([2]).leaf();
/// assert!(x.square()?.requires_grad());
/// assert!(!no_grad(|| x.square())?.requires_grad());
/// # Ok::<(), Error>(())
/// ```
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    Context { recording: false, ..Context::current() }.scope(f)
}

/// The instruction set that operators called from this thread use: that of [`with_isa`], else that of the
/// environment variable `ATROUS_ISA` (`reference`, `portable`, `avx2`, `avx512`; [`simd::preferred`]), else
/// the best this machine has. (A name that is unknown, or not this machine's, brings a warning and the
/// best.)
///
/// [`with_isa`] has an example.
pub fn isa() -> Isa {
    Context::current().isa.unwrap_or_else(simd::default)
}

/// Runs `f` with the operators it calls on this thread held to one instruction set. It is safe:
/// [`Isa::Avx2`] and [`Isa::Avx512`] hold a proof that only asking the CPU makes ([`simd::supported`]); the
/// others run on every machine.
///
/// ```
/// use atrous::backend::cpu::simd::{Isa, supported};
/// use atrous::context::{isa, with_isa};
/// use atrous::prelude::*;
///
/// let (a, b) = (Tensor::rand([20, 30], 1), Tensor::rand([30, 40], 2));
/// let expected = with_isa(Isa::Reference, || a.matmul(&b))?; // the definition, loop by loop
/// for set in supported() {
///     let got = with_isa(set, || {
///         assert_eq!(isa(), set);
///         a.matmul(&b)
///     })?;
///     assert!((&got - &expected)?.abs()?.max()?.item()? < 1e-4);
/// }
/// # Ok::<(), Error>(())
/// ```
pub fn with_isa<R>(isa: Isa, f: impl FnOnce() -> R) -> R {
    Context { isa: Some(isa), ..Context::current() }.scope(f)
}

/// Whether fast math is on ([`with_fast_math`]).
///
/// [`with_fast_math`] has an example.
pub fn fast_math() -> bool {
    Context::current().fast_math
}

/// Runs `f` with fast math on, or off as it is by default. On, kernels may multiply less and round more;
/// NaNs and infinities are kept, and sums have a fixed order, unlike with a compiler's `-ffast-math`. So far
/// these are 3×3 convolutions of stride 1, on the CPU and in f32: Winograd's algorithm on tiles of 4×4
/// outputs (F(4×4, 3×3)) instead of 2×2, in the forward pass and for the image's gradient; their error is
/// about three times as large (`crate::backend::cpu::winograd`). Gradients of what is recorded in it are
/// computed likewise, wherever the backward pass runs. Results stay independent of the number of threads.
///
/// ```
/// use atrous::context::{fast_math, with_fast_math};
/// use atrous::prelude::*;
///
/// let x = Tensor::randn([1, 12, 12, 16], 1);
/// let w = Tensor::randn([3, 3, 16, 16], 2);
/// let convolve = || x.conv2d(&w, None, Conv2dOptions::default().same());
/// let (plain, fast) = (convolve()?, with_fast_math(true, convolve)?);
/// let deviation = (&plain - &fast)?.abs()?.max()?.item()?; // of values of about 12
/// assert!(deviation < 1e-2, "{deviation}");
/// assert!(!fast_math() && with_fast_math(true, fast_math));
/// # Ok::<(), Error>(())
/// ```
pub fn with_fast_math<R>(fast_math: bool, f: impl FnOnce() -> R) -> R {
    Context { fast_math, ..Context::current() }.scope(f)
}

/// The precision of the operators this thread runs now.
///
/// [`Precision`] has an example.
pub fn precision() -> Precision {
    Context::current().precision
}

/// Runs `f` with operators in this precision; the gradients of what is recorded in it are computed in it
/// too, wherever the backward pass runs.
///
/// [`Precision`] has an example.
pub fn with_precision<R>(precision: Precision, f: impl FnOnce() -> R) -> R {
    Context { precision, ..Context::current() }.scope(f)
}

/// Runs `f` with a device's convolutions computed in tiles of `size` × `size` of the result, whatever suits
/// their shapes: for tests and benchmarks. (A forward pass of fewer than 16 channels whose kernel is not 1×1
/// has tiles of 64 whatever is asked.)
///
/// # Panics
/// Where `size` is neither 64 nor 128: kernels have no other tiles.
///
/// ```
/// use atrous::context::with_conv_tile;
/// use atrous::prelude::*;
///
/// let (x, w) = (Tensor::randn([1, 8, 8, 16], 1), Tensor::randn([3, 3, 16, 16], 2));
/// let convolve = || x.conv2d(&w, None, Conv2dOptions::default());
/// let tiled = with_conv_tile(64, convolve)?;
/// assert_eq!(tiled.to_vec_f64(), convolve()?.to_vec_f64()); // on the CPU it changes nothing
/// # Ok::<(), Error>(())
/// ```
pub fn with_conv_tile<R>(size: usize, f: impl FnOnce() -> R) -> R {
    assert!([64, 128].contains(&size), "expected tiles of 64 or 128, got {size}");
    Context { conv_tile: Some(size), ..Context::current() }.scope(f)
}

/// Runs `f` on one of rayon's threads, with this thread's settings, where `device` is the CPU: parallel loops
/// that begin there start at once, others wait some tens of microseconds ([`threads::enter`]). For another
/// device `f` runs right here.
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
