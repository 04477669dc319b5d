//! C = A·B for a few rows of A: a dense layer at the batch sizes of training.
//!
//! Here B's bytes bind (100352 × 512 weights are 205 MB, of which each is used 16 times), so it is read
//! once, where it lies, and in the order in which it lies: a task takes some blocks of k, and adds up all
//! rows in a partial C of its own, a few steps of k at a time. Packing B first would read it twice and write
//! it once.
//!
//! Its gradients are [`crate::backend::cpu::skinny_gradients`].

use super::{B_STRIDED, Init, KC, MicroKernel, ONE_RUN, ROW, for_each_tile};
use crate::activation::Activation;
use crate::backend::cpu::simd::{Isa, Kernel, Vector, dispatch, prefetch};
use crate::backend::cpu::threads::{self, Shared};
use crate::pool::Buffer;
use std::ops::Range;

/// Steps of k at a time: so many rows of B, two vectors wide, stay in L1 beside a tile of C even where they
/// fall into a few sets of it.
const STEPS: usize = 16;

/// Whether a product of so many rows is one of these: with more, a packed B serves enough of them.
pub fn is_skinny(isa: Isa, rows: usize) -> bool {
    rows <= 2 * isa.mr()
}

/// C [rows, columns] = A [rows, depth]·B [depth, columns] + bias.
///
/// The partial sums, whose number depends on the depth alone, are added in order.
pub fn skinny_gemm(
    isa: Isa,
    a: &[f32],
    depth: usize,
    b: &[f32],
    columns: usize,
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    struct Slab<'a> {
        a: &'a [f32],
        depth: usize,
        b: &'a [f32],
        columns: usize,
        rows: usize,
        blocks: Range<usize>,
        /// This slab's C, zero at first.
        sums: &'a mut [f32],
    }
    impl Kernel for Slab<'_> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            let width = 2 * V::LANES;
            let mut gathered = Buffer::<f32>::new(self.rows * ROW);
            let mut panel = Buffer::<f32>::new(STEPS * width);
            let sums = Shared::new(self.sums);
            for from in (self.blocks.start * KC..self.depth.min(self.blocks.end * KC)).step_by(STEPS) {
                if from % KC == 0 {
                    let steps = KC.min(self.depth - from);
                    for (row, out) in gathered.chunks_mut(ROW).enumerate() {
                        out[..steps].copy_from_slice(&self.a[row * self.depth + from..][..steps]);
                    }
                }
                let steps = STEPS.min(self.depth - from);
                for column in (0..self.columns).step_by(width) {
                    let columns = width.min(self.columns - column);
                    let mut b = (&self.b[from * self.columns + column..], self.columns);
                    if columns < width {
                        // The tile reads whole vectors.
                        for (k, to) in panel.chunks_exact_mut(width).take(steps).enumerate() {
                            to[..columns].copy_from_slice(&b.0[k * self.columns..][..columns]);
                            to[columns..].fill(0.0);
                        }
                        b = (&panel[..], width);
                    }
                    for k in STEPS..2 * STEPS {
                        let next = self.b.as_ptr().wrapping_add((from + k) * self.columns + column);
                        prefetch(next);
                        prefetch(next.wrapping_add(16));
                    }
                    for_each_tile::<V>(
                        self.rows,
                        #[inline(always)]
                        |first, count| {
                            let tile = MicroKernel {
                                steps,
                                runs: ONE_RUN,
                                a: gathered[first * ROW + from % KC..].as_ptr(),
                                row_step: 0,
                                k_step: 1,
                                b: b.0.as_ptr(),
                                b_step: b.1,
                                columns,
                                start: Init::Accumulate,
                                activation: Activation::Linear,
                                non_temporal: false,
                                ahead: gathered.as_ptr(),
                                ahead_step: 0,
                            };
                            // SAFETY: gathered rows from `first`, `steps` rows of two full vectors of B or
                            // of the panel, and rows of this slab's own sums.
                            unsafe {
                                tile.run_inlined::<V, ROW, B_STRIDED>(
                                    count,
                                    #[inline(always)]
                                    |row| sums.at((first + row) * self.columns + column),
                                )
                            };
                        },
                    );
                }
            }
        }
    }
    let size = out.len();
    if size == 0 {
        return;
    }
    let rows = size / columns;
    assert_eq!((a.len(), b.len()), (rows * depth, depth * columns));
    let blocks = depth.div_ceil(KC);
    // 16 slabs keep a few cores busy to the end.
    let slabs = blocks.clamp(1, 16);
    let mut partial = Buffer::<f32>::filled(slabs * size, 0.0);
    threads::for_each_chunk(&mut partial, size, |slab, sums| {
        let blocks = blocks * slab / slabs..blocks * (slab + 1) / slabs;
        dispatch(isa, Slab { a, depth, b, columns, rows, blocks, sums });
    });
    for (row, out) in out.chunks_exact_mut(columns).enumerate() {
        match bias {
            Some(bias) => out.copy_from_slice(bias),
            None => out.fill(0.0),
        }
        for sums in partial.chunks_exact(size) {
            let share = &sums[row * columns..][..columns];
            out.iter_mut().zip(share).for_each(|(sum, &share)| *sum += share);
        }
    }
}
