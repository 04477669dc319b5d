//! Matrix product, rung 3 of 4: packed panels, and a row of sums in registers.
//!
//! Adds: B is copied once into panels two vectors wide and 256 deep ([`PackedB`]), so that what the inner
//! loop reads is one run of memory (16 or 32 KiB that stay in L1 while the rows of A pass by) and never
//! falls into the same few sets of a cache; the two vectors of sums of a row stay in registers over all
//! of a panel. What is left: two loads of B for two multiply-adds, each of which serves one row, and two
//! chains of additions, each of which waits four cycles for itself: two units could make eight vectors
//! in that time, so a quarter of the peak binds.
//!
//! Reached: 100 GFLOP/s at 1024 (24 %).

use crate::backend::cpu::gemm::{BOperand, KC, PackedB};
use crate::backend::cpu::simd::{Kernel, Vector, dispatch};
use crate::backend::cpu::threads;
use crate::context::isa;
use crate::error::Result;
use crate::ladder::Work;
use crate::pool::Buffer;
use crate::tensor::Tensor;

/// Rows of C a task.
const ROWS: usize = 64;

pub fn run(work: &Work, t: &[Tensor]) -> Result<Tensor> {
    let (n, k) = (work.output[1], t[0].shape()[1]);
    let [a, b] = [0, 1].map(|i| t[i].values::<f32>());
    let isa = isa();
    let right = PackedB::new(isa, &BOperand::matrix(b, k, n));
    let mut c = Buffer::<f32>::filled(work.output.elements(), 0.0);
    threads::for_each_chunk(&mut c, ROWS * n, |block, c| {
        dispatch(isa, Block { a: &a[block * ROWS * k..], right: &right, k, n, c });
    });
    Ok(Tensor::from_buffer(c, work.output))
}

/// Some rows of C, zero at first.
struct Block<'a> {
    a: &'a [f32],
    right: &'a PackedB,
    k: usize,
    n: usize,
    c: &'a mut [f32],
}

impl Kernel for Block<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Block { a, right, k, n, c } = self;
        let width = 2 * V::LANES;
        for block in 0..k.div_ceil(KC) {
            for (panel, column) in (0..n).step_by(width).enumerate() {
                let panel = right.panel(block, panel);
                let lanes = [0, V::LANES].map(|half| (n - column).saturating_sub(half).min(V::LANES));
                for (i, c) in c.chunks_exact_mut(n).enumerate() {
                    let a = &a[i * k + block * KC..][..panel.len() / width];
                    // SAFETY: a panel has two full vectors for each element of A's row; of C as many lanes
                    // are touched as there are columns.
                    unsafe {
                        let mut sums = [V::splat(0.0); 2];
                        for (&a, b) in a.iter().zip(panel.chunks_exact(width)) {
                            let a = V::splat(a);
                            sums[0] = a.mul_add(V::load(b.as_ptr()), sums[0]);
                            sums[1] = a.mul_add(V::load(b.as_ptr().add(V::LANES)), sums[1]);
                        }
                        for half in 0..2 {
                            let at = c.as_mut_ptr().wrapping_add(column + half * V::LANES);
                            let sum = V::load_partial(at, lanes[half]).add(sums[half]);
                            sum.store_partial(at, lanes[half]);
                        }
                    }
                }
            }
        }
    }
}
