//! Instruction sets, chosen at run time.
//!
//! A kernel is written once, over a `Vector` of some number of lanes, and compiled for each
//! instruction set: `dispatch` runs the body inside a function that has the set's features
//! enabled, into which everything marked `#[inline(always)]` is inlined.

mod detected;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use detected::{Avx2, Avx512};
use portable::Portable;

use crate::error::{Error, Result};
use std::fmt;
use std::sync::LazyLock;

/// An instruction set that this machine has: those that not every machine has hold the proof.
///
/// ```
/// use atrous::backend::cpu::simd::{Isa, supported};
/// assert_eq!(supported()[..2], [Isa::Reference, Isa::Portable]);
/// ```
///
/// There is no other way to one of them than to ask what is there:
///
/// ```compile_fail
/// use atrous::backend::cpu::simd::Isa;
/// use atrous::context::with_isa;
/// with_isa(Isa::Avx512, || ());
/// ```
///
/// ```compile_fail
/// use atrous::backend::cpu::simd::{Avx512, Isa};
/// use atrous::context::with_isa;
/// with_isa(Isa::Avx512(Avx512(())), || ());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// The naive references, in f32: the truth the others are measured against.
    Reference,
    /// The fast algorithms, in whatever the compiler makes of plain loops.
    Portable,
    /// 8 lanes with fused multiply-add (x86-64, 2013 on).
    Avx2(Avx2),
    /// 16 lanes, 32 registers (x86-64 servers 2017 on, AMD Zen 4 on).
    Avx512(Avx512),
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Reference => "Reference",
            Isa::Portable => "Portable",
            Isa::Avx2(_) => "Avx2",
            Isa::Avx512(_) => "Avx512",
        })
    }
}

impl Isa {
    /// f32 lanes of its vectors.
    ///
    /// ```
    /// # use atrous::backend::cpu::simd::{Isa, supported};
    /// assert_eq!(Isa::Portable.lanes(), 8);
    /// for isa in supported() {
    ///     assert!(isa.lanes() == 8 || matches!(isa, Isa::Avx512(_)));
    /// }
    /// ```
    pub fn lanes(self) -> usize {
        struct Lanes;
        impl Kernel for Lanes {
            type Output = usize;
            #[inline(always)]
            fn run<V: Vector>(self) -> usize {
                V::LANES
            }
        }
        dispatch(self, Lanes)
    }

    /// Rows of a matrix product's register tile.
    pub(crate) fn mr(self) -> usize {
        struct TileRows;
        impl Kernel for TileRows {
            type Output = usize;
            #[inline(always)]
            fn run<V: Vector>(self) -> usize {
                V::MR
            }
        }
        dispatch(self, TileRows)
    }
}

/// What this machine can run, slowest first.
///
/// ```
/// use atrous::backend::cpu::simd::{Isa, supported};
///
/// let all = supported();
/// assert_eq!(all[..2], [Isa::Reference, Isa::Portable]); // these run on every machine
/// assert!(all.is_sorted()); // the last one is the fastest
/// ```
pub fn supported() -> Vec<Isa> {
    let proved = [Avx2::detect().map(Isa::Avx2), Avx512::detect().map(Isa::Avx512)];
    [Isa::Reference, Isa::Portable].into_iter().chain(proved.into_iter().flatten()).collect()
}

/// What `ATROUS_ISA` asks for (`reference`, `portable`, `avx2` or `avx512`), or the best there is where it
/// is not set. An error where it asks for what is unknown, or is not here.
///
/// ```
/// use atrous::backend::cpu::simd::{preferred, supported};
///
/// if std::env::var_os("ATROUS_ISA").is_none() {
///     assert_eq!(Some(preferred()?), supported().last().copied());
/// }
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn preferred() -> Result<Isa> {
    match std::env::var_os("ATROUS_ISA") {
        Some(wanted) => named(&wanted.to_string_lossy(), &supported()),
        None => Ok(best()),
    }
}

fn best() -> Isa {
    supported().last().copied().unwrap_or(Isa::Portable)
}

fn named(wanted: &str, there: &[Isa]) -> Result<Isa> {
    let name = |isa: &Isa| format!("{isa:?}").to_lowercase();
    there.iter().find(|isa| name(isa) == wanted).copied().ok_or_else(|| {
        let names: Vec<String> = there.iter().map(name).collect();
        let message =
            format!("expected one of `{}` on this machine, got `{wanted}`", names.join("`, `"));
        Error::argument("ATROUS_ISA", message)
    })
}

/// [`preferred`], or the best there is, with a warning, where that is an error.
pub(crate) fn default() -> Isa {
    static PREFERRED: LazyLock<Isa> = LazyLock::new(|| {
        preferred().unwrap_or_else(|error| {
            eprintln!("warning: {error}; using {:?}", best());
            best()
        })
    });
    *PREFERRED
}

/// Some f32 lanes. All pointers may be unaligned.
///
/// # Safety
/// Loads and stores touch `LANES` elements (`_partial`: the first `n` of them, all if there are no more) at
/// the pointer. Every method must run inside [`dispatch`] of its own instruction set.
#[allow(clippy::missing_safety_doc, reason = "one contract, above, for all methods")]
pub(crate) trait Vector: Copy + Send + Sync + 'static {
    /// f32 values in one vector: 8 (AVX2 and portable) or 16 (AVX-512).
    const LANES: usize;
    /// Rows and vectors of the matrix product's register tile: ROWS × 2 accumulators, two
    /// vectors of the right factor and one broadcast fill the register file.
    const MR: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// A store past the caches, to an address that is a multiple of the vector's size: see
    /// [`wants_non_temporal`].
    unsafe fn non_temporal(self, to: *mut f32);
    /// The lanes past `n` are zero.
    unsafe fn load_partial(from: *const f32, n: usize) -> Self;
    /// Writes the first `n` lanes, and nothing past them.
    unsafe fn store_partial(self, to: *mut f32, n: usize);
    /// self · a + b
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `other` where the two do not compare (a NaN), as the instruction has it; so for `min`.
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
    /// self where a < b, else 0.
    unsafe fn where_less(self, a: Self, b: Self) -> Self;
    /// Lane i is the float at offset `offsets[i]` of `from`: `LANES` offsets, each below 2³¹.
    unsafe fn gather(from: *const f32, offsets: *const u32) -> Self;
    /// The lanes of both in turn: those of the first halves, and those of the second.
    unsafe fn interleave(self, other: Self) -> (Self, Self);
    /// self · 2ⁿ for whole n in −150..=128, also where 2ⁿ itself is too large or too small for an f32.
    unsafe fn times_two_to(self, n: Self) -> Self;
    /// The sum of all lanes, added by halves.
    unsafe fn sum_lanes(self) -> f32;
    /// As many bytes, each as a number.
    unsafe fn load_bytes(from: *const u8) -> Self;
    /// Runs a kernel as a function of its own, compiled once however many places call it.
    unsafe fn apart<K: Kernel>(kernel: K) -> K::Output;
}

/// A body to compile for every instruction set. Mark `run` and all it calls `#[inline(always)]`.
pub(crate) trait Kernel {
    /// What it returns; `()` where it writes to slices that it holds.
    type Output;
    /// The body, over the vectors `V` of the instruction set that it is compiled for.
    fn run<V: Vector>(self) -> Self::Output;
}

/// Runs a kernel in the given instruction set (an operator reads `context::isa` once, at its entry, and
/// hands it to the threads). [`Isa::Reference`] runs the portable body: operators with a reference
/// of their own have branched off before.
#[inline]
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa {
        Isa::Reference | Isa::Portable => kernel.run::<Portable>(),
        // SAFETY: the set's proof is made by its detection alone.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(_) => unsafe { x86::run_avx2(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(_) => unsafe { x86::run_avx512(kernel) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => kernel.run::<Portable>(),
    }
}

/// `lanes` lanes, which are all of them if `FULL`: in a loop's body that is compiled once for whole vectors
/// and once for the rest.
///
/// # Safety
/// As [`Vector::load`] if `FULL`, else as [`Vector::load_partial`].
#[inline(always)]
pub(crate) unsafe fn load<V: Vector, const FULL: bool>(from: *const f32, lanes: usize) -> V {
    unsafe { if FULL { V::load(from) } else { V::load_partial(from, lanes) } }
}

/// The way back of [`load`]; whole vectors past the caches if `non_temporal`.
///
/// # Safety
/// As [`load`]; to `non_temporal`, `to` is a multiple of the vector's size.
#[inline(always)]
pub(crate) unsafe fn store<V: Vector, const FULL: bool>(
    value: V,
    to: *mut f32,
    lanes: usize,
    non_temporal: bool,
) {
    unsafe {
        match (FULL, non_temporal) {
            (true, true) => value.non_temporal(to),
            (true, false) => value.store(to),
            (false, _) => value.store_partial(to, lanes),
        }
    }
}

/// Asks for the cache line at an address, which may be anywhere: for what a loop will read next where the
/// processor does not see it coming.
#[inline(always)]
pub(crate) fn prefetch(address: *const f32) {
    // SAFETY: the instruction is in all of x86-64 and touches nothing, wherever the address points.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Whether a result is to be written past the caches: where it is larger than they are, a line is gone
/// before anybody reads it, and an ordinary store would fetch it first, for nothing. Only where it is
/// written in whole vectors, which begin at multiples of 64 bytes when its rows are `columns` floats.
pub(crate) fn wants_non_temporal(out: &[f32], columns: usize) -> bool {
    /// About the last cache of a server's few cores.
    const LARGE: usize = 32 << 20;
    size_of_val(out) >= LARGE && columns.is_multiple_of(16) && (out.as_ptr() as usize).is_multiple_of(64)
}

/// The same of a pass that does nothing but read tensors of this size and write one. A server's last cache
/// may have room for all of them, and what is read next is then found there: 50 MiB through an activation
/// take 2.0 ms instead of 2.5 beside 480 MiB of it. An eighth of the cache, since others use it, too.
pub(crate) fn wants_non_temporal_alone(out: &[f32], columns: usize) -> bool {
    size_of_val(out) >= last_cache() / 8 && wants_non_temporal(out, columns)
}

/// Bytes of the last level of cache, where the system tells them (Linux), or 0.
fn last_cache() -> usize {
    static BYTES: LazyLock<usize> = LazyLock::new(|| {
        let text = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index3/size");
        text.ok()
            .and_then(|text| Some(text.trim().strip_suffix('K')?.parse::<usize>().ok()? << 10))
            .unwrap_or(0)
    });
    *BYTES
}

/// Compiles a plain loop for every instruction set, for the compiler to vectorise. Mark the
/// closure `#[inline(always)]`.
#[inline]
pub(crate) fn vectorize<R>(isa: Isa, f: impl FnOnce() -> R) -> R {
    struct Plain<F>(F);
    impl<R, F: FnOnce() -> R> Kernel for Plain<F> {
        type Output = R;
        #[inline(always)]
        fn run<V: Vector>(self) -> R {
            (self.0)()
        }
    }
    dispatch(isa, Plain(f))
}

/// Writes what a plain loop makes: `f(at, piece)` fills the piece of `out` that begins `at` elements into
/// it. Mark it `#[inline(always)]`. To `non_temporal` (see [`wants_non_temporal`]; `out` begins at a
/// multiple of 64 bytes), a piece is made in L1 and copied past the caches from there.
#[inline]
pub(crate) fn write(isa: Isa, out: &mut [f32], non_temporal: bool, f: impl Fn(usize, &mut [f32])) {
    struct Stream<'a, F>(&'a mut [f32], F);
    impl<F: Fn(usize, &mut [f32])> Kernel for Stream<'_, F> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            const PIECE: usize = 1024;
            let mut made = [0.0f32; PIECE];
            for (i, out) in self.0.chunks_mut(PIECE).enumerate() {
                let made = &mut made[..out.len()];
                (self.1)(i * PIECE, made);
                let (made, vectors) = (made.as_ptr(), out.len() / V::LANES);
                // SAFETY: both are `out.len()` long, and a piece begins at a multiple of 64 bytes.
                unsafe {
                    for at in (0..vectors).map(|vector| vector * V::LANES) {
                        V::load(made.add(at)).non_temporal(out.as_mut_ptr().add(at));
                    }
                    let at = vectors * V::LANES;
                    V::load_partial(made.add(at), out.len() - at)
                        .store_partial(out.as_mut_ptr().add(at), out.len() - at);
                }
            }
        }
    }
    assert!(!non_temporal || (out.as_ptr() as usize).is_multiple_of(64));
    match non_temporal {
        true => dispatch(isa, Stream(out, f)),
        false => vectorize(
            isa,
            #[inline(always)]
            || f(0, out),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{self, isa, with_isa};

    struct Check;
    impl Kernel for Check {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            let a: Vec<f32> = (0..32).map(|i| i as f32 - 7.5).collect();
            for n in 0..=V::LANES {
                let mut out = vec![99.0f32; 32];
                // SAFETY: the arrays hold 32 elements, at least LANES past every offset used.
                unsafe {
                    prefetch(a.as_ptr());
                    prefetch(std::ptr::null());
                    let x = V::load_partial(a.as_ptr(), n);
                    let y = x.mul_add(V::splat(2.0), V::splat(1.0)).add(x).sub(V::splat(0.5));
                    y.max(V::splat(-9.0))
                        .min(V::splat(4.0))
                        .mul(V::splat(3.0))
                        .store_partial(out.as_mut_ptr(), n);
                }
                let offsets: Vec<u32> = (0..V::LANES as u32).map(|i| (7 * i + 3) % 32).collect();
                let mut gathered = vec![0.0f32; V::LANES];
                // SAFETY: as many offsets as lanes, all within the 32 elements.
                unsafe { V::gather(a.as_ptr(), offsets.as_ptr()).store(gathered.as_mut_ptr()) };
                let bytes: Vec<u8> = (0..V::LANES as u8).map(|i| i.wrapping_mul(37)).collect();
                let mut numbers = vec![0.0f32; V::LANES];
                // SAFETY: as many of both as lanes.
                unsafe { V::load_bytes(bytes.as_ptr()).store(numbers.as_mut_ptr()) };
                assert!(numbers.iter().zip(&bytes).all(|(&number, &byte)| number == byte as f32));
                let (mut first, mut second) = (vec![0.0f32; V::LANES], vec![0.0f32; V::LANES]);
                // SAFETY: as many of all as lanes, in arrays of two vectors.
                unsafe {
                    let (a, b) = V::load(a.as_ptr()).interleave(V::load(a.as_ptr().add(V::LANES)));
                    a.store(first.as_mut_ptr());
                    b.store(second.as_mut_ptr());
                }
                for (i, &got) in first.iter().chain(&second).enumerate() {
                    assert_eq!(got, a[i % 2 * V::LANES + i / 2], "lane {i}");
                }
                // SAFETY: values only.
                let (sum, quarter) = unsafe {
                    let x = V::load(a.as_ptr());
                    let mut quarter = vec![0.0f32; V::LANES];
                    x.times_two_to(V::splat(-2.0)).store(quarter.as_mut_ptr());
                    (x.sum_lanes(), quarter)
                };
                assert_eq!(sum, a[..V::LANES].iter().sum::<f32>());
                assert!(quarter.iter().zip(&a).all(|(&quarter, &a)| quarter == a / 4.0));
                assert!(gathered.iter().zip(&offsets).all(|(&got, &at)| got == a[at as usize]));
                for i in 0..32 {
                    let expect = (3.0 * a[i] + 0.5).clamp(-9.0, 4.0) * 3.0;
                    assert_eq!(out[i], if i < n { expect } else { 99.0 }, "lane {i} of {n}");
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_computes_the_same_lanes() {
        for isa in supported() {
            dispatch(isa, Check);
        }
    }

    #[test]
    fn an_instruction_set_that_is_not_there_cannot_be_asked_for_by_name_either() {
        let old = [Isa::Reference, Isa::Portable];
        assert_eq!(named("portable", &old).unwrap(), Isa::Portable);
        for wanted in ["avx512", "avx2", "fast", "", "AVX2"] {
            let error = named(wanted, &old).unwrap_err().to_string();
            let expected = "expected one of `reference`, `portable` on this machine, got";
            assert!(error.starts_with(&format!("ATROUS_ISA: {expected} `{wanted}`")), "{error}");
        }
        for isa in supported() {
            assert_eq!(named(&format!("{isa:?}").to_lowercase(), &supported()).unwrap(), isa);
            assert_eq!(with_isa(isa, context::isa), isa);
        }
        assert_eq!(size_of::<Isa>(), 1);
    }

    #[test]
    fn what_is_streamed_is_what_was_made() {
        for isa in supported() {
            for (length, non_temporal) in
                [(0, true), (7, true), (1024, true), (2085, true), (2085, false)]
            {
                let mut out = crate::pool::Buffer::<f32>::filled(length, -1.0);
                write(isa, &mut out, non_temporal, |at, piece| {
                    piece.iter_mut().enumerate().for_each(|(i, y)| *y = (at + i) as f32);
                });
                assert!(out.iter().enumerate().all(|(i, &y)| y == i as f32), "{isa:?} {length}");
            }
        }
    }

    #[test]
    fn the_choice_is_scoped() {
        let before = isa();
        with_isa(Isa::Portable, || assert_eq!(isa(), Isa::Portable));
        assert_eq!(isa(), before);
    }
}
