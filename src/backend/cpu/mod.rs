//! What several operators share on the CPU: instruction sets, threads, matrix products,
//! Winograd's convolution, short rows.

mod activation;
pub mod gemm;
pub mod limits;
pub mod low_rank;
pub mod math;
pub mod prepack;
pub mod simd;
pub mod skinny_gemm;
pub mod threads;
pub mod transpose;
pub mod winograd;

/// The number of elements that axes have, or more than any slice has.
pub(crate) fn elements(axes: &[usize]) -> usize {
    axes.iter().fold(1, |all, &length| all.saturating_mul(length))
}
