//! What several operators share on the CPU: instruction sets, threads, matrix products,
//! Winograd's convolution, short rows.

pub mod few_rows;
pub mod gemm;
pub mod kept;
pub mod limits;
pub mod math;
pub mod product;
pub mod simd;
pub mod threads;
pub mod turn;
pub mod winograd;
