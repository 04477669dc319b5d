//! Proofs that this machine has an instruction set: values that nothing but its detection makes, and that
//! take no room.

/// AVX2 with FMA is here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Avx2(());

/// AVX-512 is here, with what of it the kernels use.
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
