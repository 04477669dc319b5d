//! Matrix product, rung 1 of 4: three loops.
//!
//!   C [m, n] = A [m, k] · B [k, n],  C(i, j) = Σ_p A(i, p) · B(p, j)
//!
//! Arithmetic should bind: 2·m·n·k operations for 4·(m·k + k·n + m·n) bytes, 170 a byte at 1024. But the
//! inner loop goes down a column of B: every element lies on a line of its own, of which 4 of 64 bytes
//! are used, and a column of 1024 lines a power of two apart falls into a few sets of the cache, which
//! do not hold it until the next column comes. And each addition waits for the one before: four cycles a
//! multiply-add, where a core could make 128 floats.
//!
//! Reached: 0.3 GFLOP/s at 1024 (0.1 %), 2.4 where B has 64 columns.

use crate::error::Result;
use crate::ladder::Work;
use crate::pool::Buffer;
use crate::tensor::Tensor;

pub fn run(work: &Work, t: &[Tensor]) -> Result<Tensor> {
    let (n, k) = (work.output[1], t[0].shape()[1]);
    let [a, b] = [0, 1].map(|i| t[i].values::<f32>());
    let mut c = Buffer::<f32>::new(work.output.elements());
    for (i, row) in c.chunks_exact_mut(n).enumerate() {
        for (j, c) in row.iter_mut().enumerate() {
            let mut sum = 0.0;
            for p in 0..k {
                sum += a[i * k + p] * b[p * n + j];
            }
            *c = sum;
        }
    }
    Ok(Tensor::from_buffer(c, work.output))
}
