//! C = Aᵀ·B: the weight gradient, a sum over all pixels of all pictures.

use super::tile::{ONE_RUN, Tile, for_each_tile};
use super::{KC, Rows, Start};
use crate::cpu::simd::{Isa, Kernel, Vector, dispatch, streams};
use crate::cpu::threads::{self, Shared};
use crate::ops::Then;
use crate::pool::Buffer;

/// Rows of C a task: 16 tiles of AVX-512. With KC gathered rows of A that is 240 KiB of L2.
const BLOCK: usize = 224;
/// Floats from one gathered row to the next: 15 cache lines, so that a column of the block does
/// not fall into a few sets of the cache.
const STEP: usize = BLOCK + 16;

/// C [depth of A, columns] = Aᵀ·B with B [rows of A, columns].
///
/// The rows are cut into slabs whose number depends on the shape alone; each has its own partial
/// sum, and the partial sums are added in order.
pub fn gram(isa: Isa, rows: &impl Rows, b: &[f32], columns: usize, out: &mut [f32]) {
    let (count, depth) = (rows.rows(), rows.depth());
    debug_assert_eq!((b.len(), out.len()), (count * columns, depth * columns));
    if out.is_empty() {
        return;
    }
    let blocks = depth.div_ceil(BLOCK);
    // 16 tasks keep a few cores busy to the end; a slab has at least one block of k.
    let slabs = (16 / blocks).clamp(1, count.div_ceil(KC).max(1));
    let slab = count.div_ceil(slabs).next_multiple_of(KC);
    let slabs = count.div_ceil(slab).max(1);
    let mut partial = Buffer::<f32>::new(if slabs > 1 { slabs * out.len() } else { 0 });
    let size = out.len();
    // What is written once, by one block of k.
    let stream = count <= KC && streams(out, columns);
    let shared = Shared::new(if slabs > 1 { &mut partial[..] } else { &mut *out });
    threads::for_each(slabs * blocks, |task| {
        let (s, block) = (task / blocks, task % blocks);
        let first = block * BLOCK;
        dispatch(
            isa,
            Task {
                rows,
                b,
                columns,
                range: s * slab..count.min((s + 1) * slab),
                first,
                depth: BLOCK.min(depth - first),
                out: shared,
                stream,
                // Slab s, block by block: disjoint rows of the slab's own partial sum.
                offset: s * size + first * columns,
            },
        );
    });
    if slabs > 1 {
        threads::for_each_chunk(out, threads::PASS, |i, out| {
            let at = i * threads::PASS;
            out.copy_from_slice(&partial[at..at + out.len()]);
            for s in 1..slabs {
                let share = &partial[s * size + at..][..out.len()];
                out.iter_mut().zip(share).for_each(|(sum, &share)| *sum += share);
            }
        });
    }
}

struct Task<'a, R> {
    rows: &'a R,
    b: &'a [f32],
    columns: usize,
    /// Rows of A and B to sum over.
    range: std::ops::Range<usize>,
    /// The columns of A, which are the rows of C.
    first: usize,
    depth: usize,
    /// All partial sums, and where in them this task's first row of C begins.
    out: Shared<f32>,
    stream: bool,
    offset: usize,
}

impl<R: Rows> Kernel for Task<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let width = 2 * V::LANES;
        let mut gathered = Buffer::<f32>::new(KC * STEP);
        let mut panel = Buffer::<f32>::new(KC * width);
        let mut start = Start::Zero;
        let mut from = self.range.start;
        while from < self.range.end || matches!(start, Start::Zero) {
            let steps = KC.min(self.range.end - from);
            for (row, out) in (from..from + steps).zip(gathered.chunks_mut(STEP)) {
                self.rows.gather::<V>(row, self.first, &mut out[..self.depth]);
            }
            for column in (0..self.columns).step_by(width) {
                let columns = width.min(self.columns - column);
                for (row, to) in (from..from + steps).zip(panel.chunks_mut(width)) {
                    let b = &self.b[row * self.columns + column..][..columns];
                    // SAFETY: `b` has `columns` floats and `to` a full width.
                    unsafe {
                        if columns == width {
                            V::load(b.as_ptr()).store(to.as_mut_ptr());
                            V::load(b.as_ptr().add(V::LANES)).store(to.as_mut_ptr().add(V::LANES));
                        } else {
                            to[..columns].copy_from_slice(b);
                            to[columns..].fill(0.0);
                        }
                    }
                }
                for_each_tile::<V>(
                    self.depth,
                    #[inline(always)]
                    |first, count| {
                        let tile = Tile {
                            steps,
                            runs: ONE_RUN,
                            a: gathered[first..].as_ptr(),
                            row_step: 0,
                            k_step: STEP,
                            b: panel.as_ptr(),
                            b_step: width,
                            columns,
                            start,
                            then: Then::Nothing,
                            stream: self.stream,
                            ahead: gathered.as_ptr(),
                            ahead_step: 0,
                        };
                        let to = self.offset + first * self.columns + column;
                        // SAFETY: the gathered block has `steps` rows of STEP floats, the panel `steps`
                        // rows of full width; the rows of C from `first` on are this task's alone.
                        unsafe {
                            tile.run::<V, 1>(
                                count,
                                #[inline(always)]
                                |row| self.out.at(to + row * self.columns),
                            )
                        };
                    },
                );
            }
            start = Start::Accumulate;
            from += steps;
        }
    }
}
