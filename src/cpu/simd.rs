//! Instruction sets, chosen at run time.
//!
//! A kernel is written once, over a [`Vector`] of some number of lanes, and compiled for each
//! instruction set: [`dispatch`] runs the body inside a function that has the set's features
//! enabled, into which everything marked `#[inline(always)]` is inlined.

use std::cell::Cell;
use std::sync::LazyLock;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// The naive references, in f32: the truth the others are measured against.
    Reference,
    /// The fast algorithms, in whatever the compiler makes of plain loops.
    Portable,
    /// 8 lanes with fused multiply-add (x86-64, 2013 on).
    Avx2,
    /// 16 lanes, 32 registers (x86-64 servers 2017 on, AMD Zen 4 on).
    Avx512,
}

impl Isa {
    /// f32 lanes of its vectors.
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
    pub fn tile_rows(self) -> usize {
        struct TileRows;
        impl Kernel for TileRows {
            type Output = usize;
            #[inline(always)]
            fn run<V: Vector>(self) -> usize {
                V::TILE_ROWS
            }
        }
        dispatch(self, TileRows)
    }
}

static BEST: LazyLock<Isa> = LazyLock::new(|| {
    let best = supported().last().copied().unwrap_or(Isa::Portable);
    match std::env::var("ATROUS_ISA").as_deref() {
        Ok("reference") => Isa::Reference,
        Ok("portable") => Isa::Portable,
        Ok("avx2") => Isa::Avx2.min(best),
        _ => best,
    }
});

thread_local! {
    static CHOSEN: Cell<Option<Isa>> = const { Cell::new(None) };
}

/// What this machine can run, slowest first.
pub fn supported() -> Vec<Isa> {
    let mut all = vec![Isa::Reference, Isa::Portable];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            all.push(Isa::Avx2);
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
            {
                all.push(Isa::Avx512);
            }
        }
    }
    all
}

/// What operators called from this thread use: the best there is, unless `ATROUS_ISA` (one of
/// `reference`, `portable`, `avx2`) or [`with_isa`] says otherwise.
pub fn isa() -> Isa {
    CHOSEN.get().unwrap_or(*BEST)
}

/// Runs `f` with the operators it calls on this thread held to one instruction set, or to the best
/// this machine has below it.
pub fn with_isa<R>(isa: Isa, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<Isa>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CHOSEN.set(self.0);
        }
    }
    let best = supported().into_iter().rfind(|&s| s <= isa);
    let _restore = Restore(CHOSEN.replace(best));
    f()
}

/// Some f32 lanes. All pointers may be unaligned.
///
/// # Safety
/// Loads and stores touch `LANES` elements (`_partial`: `n`, with n ≤ LANES) at the pointer.
/// Every method must run inside [`dispatch`] of its own instruction set.
#[allow(clippy::missing_safety_doc, reason = "one contract, above, for all methods")]
pub trait Vector: Copy + Send + Sync + 'static {
    const LANES: usize;
    /// Rows and vectors of the matrix product's register tile: ROWS × 2 accumulators, two
    /// vectors of the right factor and one broadcast fill the register file.
    const TILE_ROWS: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// A store past the caches, to an address that is a multiple of the vector's size: see [`streams`].
    unsafe fn stream(self, to: *mut f32);
    /// The lanes past `n` are zero.
    unsafe fn load_partial(from: *const f32, n: usize) -> Self;
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
    /// self · 2ⁿ for whole n in −150..=128, also where 2ⁿ itself is too large or too small for an f32.
    unsafe fn times_two_to(self, n: Self) -> Self;
    /// The sum of all lanes, added by halves.
    unsafe fn sum_lanes(self) -> f32;
    /// As many bytes, each as a number.
    unsafe fn load_bytes(from: *const u8) -> Self;
}

#[derive(Clone, Copy)]
pub struct Portable([f32; 8]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Portable(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Vector for Portable {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 2;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Portable([value; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Portable(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        unsafe { self.store(to) }
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, n: usize) -> Self {
        let mut lanes = [0.0; 8];
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            *lane = unsafe { *from.add(i) };
        }
        Portable(lanes)
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, n: usize) {
        for (i, &lane) in self.0.iter().enumerate().take(n) {
            unsafe { *to.add(i) = lane };
        }
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // Not `f32::mul_add`: without the instruction that is a call into the C library.
        Portable(std::array::from_fn(|i| self.0[i] * a.0[i] + b.0[i]))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn where_less(self, a: Self, b: Self) -> Self {
        Portable(std::array::from_fn(|i| if a.0[i] < b.0[i] { self.0[i] } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn gather(from: *const f32, offsets: *const u32) -> Self {
        Portable(std::array::from_fn(|i| unsafe { *from.add(*offsets.add(i) as usize) }))
    }
    #[inline(always)]
    unsafe fn times_two_to(self, n: Self) -> Self {
        let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
        self.zip(n, |x, n| {
            // In two factors, each of which is a number.
            let n = n as i32;
            let half = n >> 1;
            x * power(half) * power(n.wrapping_sub(half))
        })
    }
    #[inline(always)]
    unsafe fn sum_lanes(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self {
        Portable(unsafe { from.cast::<[u8; 8]>().read_unaligned() }.map(f32::from))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub struct F32x8(__m256);

    /// Eight ones, then eight zeros: the mask of n lanes starts at 8 - n.
    static MASK: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

    #[inline(always)]
    unsafe fn mask(n: usize) -> __m256i {
        debug_assert!(n <= 8);
        unsafe { _mm256_loadu_si256(MASK.as_ptr().add(8 - n).cast()) }
    }

    // SAFETY of the intrinsics below: `dispatch` runs them only where the features are there.
    impl Vector for F32x8 {
        const LANES: usize = 8;
        const TILE_ROWS: usize = 6;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { F32x8(_mm256_set1_ps(value)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { F32x8(_mm256_loadu_ps(from)) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn stream(self, to: *mut f32) {
            unsafe { _mm256_stream_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn load_partial(from: *const f32, n: usize) -> Self {
            unsafe { F32x8(_mm256_maskload_ps(from, mask(n))) }
        }
        #[inline(always)]
        unsafe fn store_partial(self, to: *mut f32, n: usize) {
            unsafe { _mm256_maskstore_ps(to, mask(n), self.0) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, a: Self, b: Self) -> Self {
            unsafe { F32x8(_mm256_fmadd_ps(self.0, a.0, b.0)) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { F32x8(_mm256_add_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            unsafe { F32x8(_mm256_sub_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            unsafe { F32x8(_mm256_mul_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            unsafe { F32x8(_mm256_max_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            unsafe { F32x8(_mm256_min_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn where_less(self, a: Self, b: Self) -> Self {
            unsafe { F32x8(_mm256_and_ps(self.0, _mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0))) }
        }
        #[inline(always)]
        unsafe fn gather(from: *const f32, offsets: *const u32) -> Self {
            unsafe { F32x8(_mm256_i32gather_ps::<4>(from, _mm256_loadu_si256(offsets.cast()))) }
        }
        #[inline(always)]
        unsafe fn times_two_to(self, n: Self) -> Self {
            unsafe {
                let power = |n: __m256i| {
                    let biased = _mm256_add_epi32(n, _mm256_set1_epi32(127));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
                };
                // In two factors, each of which is a number.
                let n = _mm256_cvtps_epi32(n.0);
                let half = _mm256_srai_epi32::<1>(n);
                let once = _mm256_mul_ps(self.0, power(half));
                F32x8(_mm256_mul_ps(once, power(_mm256_sub_epi32(n, half))))
            }
        }
        #[inline(always)]
        unsafe fn sum_lanes(self) -> f32 {
            unsafe {
                let four =
                    _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
            }
        }
        #[inline(always)]
        unsafe fn load_bytes(from: *const u8) -> Self {
            unsafe {
                let bytes = _mm_loadl_epi64(from.cast());
                F32x8(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)))
            }
        }
    }

    #[derive(Clone, Copy)]
    pub struct F32x16(__m512);

    #[inline(always)]
    fn bits(n: usize) -> __mmask16 {
        debug_assert!(n <= 16);
        ((1u32 << n) - 1) as __mmask16
    }

    impl Vector for F32x16 {
        const LANES: usize = 16;
        const TILE_ROWS: usize = 14;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { F32x16(_mm512_set1_ps(value)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { F32x16(_mm512_loadu_ps(from)) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn stream(self, to: *mut f32) {
            unsafe { _mm512_stream_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn load_partial(from: *const f32, n: usize) -> Self {
            unsafe { F32x16(_mm512_maskz_loadu_ps(bits(n), from)) }
        }
        #[inline(always)]
        unsafe fn store_partial(self, to: *mut f32, n: usize) {
            unsafe { _mm512_mask_storeu_ps(to, bits(n), self.0) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, a: Self, b: Self) -> Self {
            unsafe { F32x16(_mm512_fmadd_ps(self.0, a.0, b.0)) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { F32x16(_mm512_add_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            unsafe { F32x16(_mm512_sub_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            unsafe { F32x16(_mm512_mul_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            unsafe { F32x16(_mm512_max_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            unsafe { F32x16(_mm512_min_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn where_less(self, a: Self, b: Self) -> Self {
            unsafe {
                let less = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a.0, b.0);
                F32x16(_mm512_maskz_mov_ps(less, self.0))
            }
        }
        #[inline(always)]
        unsafe fn gather(from: *const f32, offsets: *const u32) -> Self {
            unsafe { F32x16(_mm512_i32gather_ps::<4>(_mm512_loadu_si512(offsets.cast()), from)) }
        }
        #[inline(always)]
        unsafe fn times_two_to(self, n: Self) -> Self {
            unsafe { F32x16(_mm512_scalef_ps(self.0, n.0)) }
        }
        #[inline(always)]
        unsafe fn sum_lanes(self) -> f32 {
            unsafe {
                let upper = _mm512_extractf32x8_ps::<1>(self.0);
                F32x8(_mm256_add_ps(_mm512_castps512_ps256(self.0), upper)).sum_lanes()
            }
        }
        #[inline(always)]
        unsafe fn load_bytes(from: *const u8) -> Self {
            unsafe {
                let bytes = _mm_loadu_si128(from.cast());
                F32x16(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)))
            }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn run_avx2<K: super::Kernel>(kernel: K) -> K::Output {
        let output = kernel.run::<F32x8>();
        // Stores past the caches are seen by other threads no later than what tells them of it.
        _mm_sfence();
        output
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
    pub unsafe fn run_avx512<K: super::Kernel>(kernel: K) -> K::Output {
        let output = kernel.run::<F32x16>();
        _mm_sfence();
        output
    }
}

/// A body to compile for every instruction set. Mark `run` and all it calls `#[inline(always)]`.
pub trait Kernel {
    type Output;
    fn run<V: Vector>(self) -> Self::Output;
}

/// Runs a kernel in the given instruction set (an operator reads [`isa`] once, at its entry, and
/// hands it to the threads). [`Isa::Reference`] runs the portable body: operators with a reference
/// of their own have branched off before.
#[inline]
pub fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa {
        Isa::Reference | Isa::Portable => kernel.run::<Portable>(),
        // SAFETY: `isa()` and `with_isa` give only what `supported` found on this machine.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::run_avx2(kernel) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::run_avx512(kernel) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => kernel.run::<Portable>(),
    }
}

/// `lanes` lanes, which are all of them if `FULL`: in a loop's body that is compiled once for whole vectors and once
/// for the rest.
///
/// # Safety
/// As [`Vector::load`] if `FULL`, else as [`Vector::load_partial`].
#[inline(always)]
pub unsafe fn load<V: Vector, const FULL: bool>(from: *const f32, lanes: usize) -> V {
    unsafe { if FULL { V::load(from) } else { V::load_partial(from, lanes) } }
}

/// The way back of [`load`]; whole vectors past the caches if `stream`.
///
/// # Safety
/// As [`load`]; to `stream`, `to` is a multiple of the vector's size.
#[inline(always)]
pub unsafe fn store<V: Vector, const FULL: bool>(value: V, to: *mut f32, lanes: usize, stream: bool) {
    unsafe {
        match (FULL, stream) {
            (true, true) => value.stream(to),
            (true, false) => value.store(to),
            (false, _) => value.store_partial(to, lanes),
        }
    }
}

/// Asks for the cache line at an address, which may be anywhere: for what a loop will read next where the processor
/// does not see it coming.
#[inline(always)]
pub fn prefetch(address: *const f32) {
    // SAFETY: the instruction is in all of x86-64 and touches nothing, wherever the address points.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Whether a result is to be written past the caches: where it is larger than they are, a line is gone before
/// anybody reads it, and an ordinary store would fetch it first, for nothing. Only where it is written in whole
/// vectors, which begin at multiples of 64 bytes when its rows are `columns` floats.
pub fn streams(out: &[f32], columns: usize) -> bool {
    /// About the last cache of a server's few cores.
    const LARGE: usize = 32 << 20;
    size_of_val(out) > LARGE && columns.is_multiple_of(16) && (out.as_ptr() as usize).is_multiple_of(64)
}

/// Compiles a plain loop for every instruction set, for the compiler to vectorise. Mark the
/// closure `#[inline(always)]`.
#[inline]
pub fn vectorize<R>(isa: Isa, f: impl FnOnce() -> R) -> R {
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

/// Writes what a plain loop makes: `f(at, piece)` fills the piece of `out` that begins `at` elements into it. Mark it
/// `#[inline(always)]`. To `stream` (see [`streams`]; `out` begins at a multiple of 64 bytes), a piece is made in L1 and
/// copied past the caches from there.
#[inline]
pub fn write(isa: Isa, out: &mut [f32], stream: bool, f: impl Fn(usize, &mut [f32])) {
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
                        V::load(made.add(at)).stream(out.as_mut_ptr().add(at));
                    }
                    let at = vectors * V::LANES;
                    V::load_partial(made.add(at), out.len() - at)
                        .store_partial(out.as_mut_ptr().add(at), out.len() - at);
                }
            }
        }
    }
    assert!(!stream || (out.as_ptr() as usize).is_multiple_of(64));
    match stream {
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
    fn what_is_streamed_is_what_was_made() {
        for isa in supported() {
            for (length, stream) in [(0, true), (7, true), (1024, true), (2085, true), (2085, false)] {
                let mut out = crate::pool::Buffer::<f32>::filled(length, -1.0);
                write(isa, &mut out, stream, |at, piece| {
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
