//! Matrix product, rung 4 of 4: a tile of sums in registers, what the engine runs
//! ([`crate::backend::cpu::gemm`]).
//!
//! Adds: 14 rows by two vectors of C (AVX-512; AVX2 has 6 by two) stay in registers, so that the two
//! loads of B in a step serve 14 rows, and 28 chains of additions hide each other's four cycles: 16
//! loads for 28 multiply-adds. Rows of A are copied into blocks of 8 tiles that stay in L2, 17 cache
//! lines apart. The multiply-adds bind.
//!
//! Reached: 241 GFLOP/s at 1024 (58 %).

use crate::activation::Activation;
use crate::backend::cpu::gemm::{BOperand, Dense, Init, Matrix, PackedB, product};
use crate::context::isa;
use crate::error::Result;
use crate::ladder::Work;
use crate::pool::Buffer;
use crate::tensor::Tensor;

pub fn run(work: &Work, t: &[Tensor]) -> Result<Tensor> {
    let ([m, n], k) = ([work.output[0], work.output[1]], t[0].shape()[1]);
    let [a, b] = [0, 1].map(|i| t[i].values::<f32>());
    let right = PackedB::new(isa(), &BOperand::matrix(b, k, n));
    let mut c = Buffer::<f32>::new(m * n);
    let rows = Matrix::new(a, m, k);
    // SAFETY: dense rows of n elements in a buffer of m · n.
    unsafe { product(&rows, &right, Init::Zero, Activation::Linear, &Dense(n), &mut c) };
    Ok(Tensor::from_buffer(c, work.output))
}
