//! Proofs that this machine has an instruction set: values that nothing but its detection makes, and that
//! take no room.

/// AVX2 with FMA is here.
///
/// ```
/// use atrous::backend::cpu::simd::{Avx2, Isa, supported};
///
/// if let Some(proof) = Avx2::detect() {
///     assert!(supported().contains(&Isa::Avx2(proof)));
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Avx2(());

/// AVX-512 is here, with what of it the kernels use.
///
/// ```
/// use atrous::backend::cpu::simd::{Avx2, Avx512};
///
/// assert!(Avx512::detect().is_none() || Avx2::detect().is_some()); // where there is this, there is that
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Avx512(());

impl Avx2 {
    /// The proof, where it is true.
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        #[cfg(not(target_arch = "x86_64"))]
        let found = false;
        found.then_some(Avx2(()))
    }
}

impl Avx512 {
    /// The proof, where it is true. (Its kernels use AVX2 with FMA, too.)
    pub fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq");
        #[cfg(not(target_arch = "x86_64"))]
        let found = false;
        Avx2::detect().filter(|_| found).map(|_| Avx512(()))
    }
}
