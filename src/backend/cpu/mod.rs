//! What several operators share on the CPU: instruction sets, threads, matrix products,
//! Winograd's convolution, short rows.

mod activation;
pub(crate) mod gemm;
#[cfg(feature = "checkpoint")]
pub(crate) mod limits;
pub(crate) mod low_rank;
pub(crate) mod math;
pub(crate) mod prepack;
pub mod simd;
pub(crate) mod skinny_gradients;
pub mod threads;
pub(crate) mod transpose;
pub(crate) mod winograd;

/// The number of elements that axes have, or more than any slice has.
pub(crate) fn elements(axes: &[usize]) -> usize {
    axes.iter().fold(1, |all, &length| all.saturating_mul(length))
}
