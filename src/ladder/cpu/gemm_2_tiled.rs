//! Matrix product, rung 2 of 4: tiles that stay in the caches.
//!
//! Adds: the loops in another order, so that the innermost runs along a row of B and of C, which the
//! compiler makes vectors of; a tile of B of 32 KiB stays in L1 while the rows of A pass by, so that B
//! comes from memory once a block of rows and not once a row; blocks of rows on all threads. What is
//! left: for each vector of multiply-adds two loads and a store (of the sums, which wander between L1
//! and the registers), where a core has two loads and one store for two multiply-adds: a quarter of the
//! peak at best.
//!
//! Reached: 76 GFLOP/s at 1024 (18 %).

use crate::backend::cpu::simd::vectorize;
use crate::backend::cpu::threads;
use crate::context::isa;
use crate::error::Result;
use crate::ladder::Work;
use crate::pool::Buffer;
use crate::tensor::Tensor;

/// Rows of C a task.
const ROWS: usize = 64;
/// Rows and columns of a tile of B.
const TILE: [usize; 2] = [32, 256];

pub fn run(work: &Work, t: &[Tensor]) -> Result<Tensor> {
    let (n, k) = (work.output[1], t[0].shape()[1]);
    let [a, b] = [0, 1].map(|i| t[i].values::<f32>());
    let isa = isa();
    let mut c = Buffer::<f32>::filled(work.output.elements(), 0.0);
    threads::for_each_chunk(&mut c, ROWS * n, |block, c| {
        let a = &a[block * ROWS * k..];
        vectorize(
            isa,
            #[inline(always)]
            || rows(a, b, k, n, c),
        );
    });
    Ok(Tensor::from_buffer(c, work.output))
}

/// Adds A·B to the rows of C that there are.
#[inline(always)]
fn rows(a: &[f32], b: &[f32], k: usize, n: usize, c: &mut [f32]) {
    for p0 in (0..k).step_by(TILE[0]) {
        for j0 in (0..n).step_by(TILE[1]) {
            let width = TILE[1].min(n - j0);
            for (i, c) in c.chunks_exact_mut(n).enumerate() {
                let c = &mut c[j0..j0 + width];
                for p in p0..k.min(p0 + TILE[0]) {
                    let (a, b) = (a[i * k + p], &b[p * n + j0..][..width]);
                    c.iter_mut().zip(b).for_each(|(c, &b)| *c += a * b);
                }
            }
        }
    }
}
