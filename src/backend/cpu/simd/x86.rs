//! AVX2 with FMA, and AVX-512.

use super::{Kernel, Vector};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub struct F32x8(__m256);

/// Eight ones, then eight zeros: the mask of n lanes starts at 8 - n.
static MASK: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// The first n lanes, or all.
#[inline(always)]
unsafe fn mask(n: usize) -> __m256i {
    // SAFETY: eight numbers from a start of at most 8.
    unsafe { _mm256_loadu_si256(MASK.as_ptr().add(8 - n.min(8)).cast()) }
}

// SAFETY of the intrinsics below: `dispatch` runs them only where the features are there.
impl Vector for F32x8 {
    const LANES: usize = 8;
    const MR: usize = 6;
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
    unsafe fn non_temporal(self, to: *mut f32) {
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
    unsafe fn interleave(self, other: Self) -> (Self, Self) {
        unsafe {
            // By halves of the registers: lanes 0 1 4 5, and 2 3 6 7.
            let low = _mm256_unpacklo_ps(self.0, other.0);
            let high = _mm256_unpackhi_ps(self.0, other.0);
            let halves =
                (_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high));
            (F32x8(halves.0), F32x8(halves.1))
        }
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
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
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
    #[inline(always)]
    unsafe fn apart<K: Kernel>(kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma")]
        #[inline(never)]
        unsafe fn apart<K: Kernel>(kernel: K) -> K::Output {
            kernel.run::<F32x8>()
        }
        unsafe { apart(kernel) }
    }
}

#[derive(Clone, Copy)]
pub struct F32x16(__m512);

/// The first n lanes, or all.
#[inline(always)]
fn bits(n: usize) -> __mmask16 {
    ((1u32 << n.min(16)) - 1) as __mmask16
}

impl Vector for F32x16 {
    const LANES: usize = 16;
    const MR: usize = 14;
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
    unsafe fn non_temporal(self, to: *mut f32) {
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
    unsafe fn interleave(self, other: Self) -> (Self, Self) {
        // From 16 on: a lane of the other.
        static FIRST: [i32; 16] = [0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23];
        static SECOND: [i32; 16] = [8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31];
        unsafe {
            let lanes = |of: &[i32; 16]| {
                let of = _mm512_loadu_si512(of.as_ptr().cast());
                F32x16(_mm512_permutex2var_ps(self.0, of, other.0))
            };
            (lanes(&FIRST), lanes(&SECOND))
        }
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
    #[inline(always)]
    unsafe fn apart<K: Kernel>(kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
        #[inline(never)]
        unsafe fn apart<K: Kernel>(kernel: K) -> K::Output {
            kernel.run::<F32x16>()
        }
        unsafe { apart(kernel) }
    }
}

#[target_feature(enable = "avx2,fma")]
pub unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    let output = kernel.run::<F32x8>();
    // Stores past the caches are seen by other threads no later than what tells them of it.
    _mm_sfence();
    output
}

#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
pub unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    let output = kernel.run::<F32x16>();
    _mm_sfence();
    output
}
