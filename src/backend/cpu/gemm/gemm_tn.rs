//! C = Aᵀ·B: the weight gradient, a sum over all pixels of all images.

use super::micro_kernel::{B_PACKED, MicroKernel, ONE_RUN, for_each_tile};
use super::{Init, KC, Rows};
use crate::activation::Activation;
use crate::backend::cpu::simd::{Isa, Kernel, Vector, dispatch, wants_non_temporal};
use crate::backend::cpu::threads::{self, Shared};
use crate::pool::Buffer;

/// Rows of C a task: 16 tiles of AVX-512.
const BLOCK: usize = 224;
/// Columns of C a task, at most: with BLOCK rows 448 KiB of C, which stay in L2.
const COLUMNS: usize = 512;
/// Steps of k at a time where the columns are many: 256 KiB of B.
const FEW_STEPS: usize = 128;
/// Floats from one gathered row to the next: 15 cache lines, so that a column of the block does
/// not fall into a few sets of the cache.
const STEP: usize = BLOCK + 16;

/// C [depth of A, columns] = Aᵀ·B with B [rows of A, columns].
///
/// The rows are cut into slabs whose number depends on the shape alone; each has its own partial
/// sum, and the partial sums are added in order.
pub fn gemm_tn(isa: Isa, rows: &impl Rows, b: &[f32], columns: usize, out: &mut [f32]) {
    let (count, depth) = (rows.rows(), rows.depth());
    assert_eq!((b.len(), out.len()), (count * columns, depth * columns));
    if out.is_empty() {
        return;
    }
    let blocks = depth.div_ceil(BLOCK);
    let groups = columns.div_ceil(COLUMNS);
    // 8 tasks keep a few cores busy to the end, and more would be more partial sums; a slab has at least one
    // block of k.
    let slabs = (8 / (blocks * groups)).clamp(1, count.div_ceil(KC).max(1));
    let slab = count.div_ceil(slabs).next_multiple_of(KC).max(KC);
    let slabs = count.div_ceil(slab).max(1);
    let mut partial = Buffer::<f32>::new(if slabs > 1 { slabs * out.len() } else { 0 });
    let size = out.len();
    // What is written once, by one block of k.
    let non_temporal = count <= FEW_STEPS && wants_non_temporal(out, columns);
    let shared = Shared::new(if slabs > 1 { &mut partial[..] } else { &mut *out });
    threads::for_each(slabs * blocks * groups, |task| {
        let (s, block, group) = (task / (blocks * groups), task / groups % blocks, task % groups);
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
                group: group * COLUMNS..columns.min((group + 1) * COLUMNS),
                out: shared,
                non_temporal,
                // Slab s, block by block: disjoint rows and columns of the slab's own partial sum.
                offset: s * size + first * columns,
            },
        );
    });
    if slabs > 1 {
        threads::for_each_chunk(out, threads::GRAIN_SIZE, |i, out| {
            let at = i * threads::GRAIN_SIZE;
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
    /// The columns of B and C.
    group: std::ops::Range<usize>,
    /// All partial sums, and where in them this task's first row of C begins.
    out: Shared<f32>,
    non_temporal: bool,
    offset: usize,
}

impl<R: Rows> Kernel for Task<'_, R> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let width = 2 * V::LANES;
        let panels = self.group.len().div_ceil(width);
        let block = if self.group.len() > COLUMNS / 2 { FEW_STEPS } else { KC };
        let in_place = self.rows.in_place().filter(|_| self.columns <= COLUMNS / 2);
        let mut gathered = Buffer::<f32>::new(if in_place.is_some() { 0 } else { block * STEP });
        let mut packed = Buffer::<f32>::new(panels * block * width);
        let mut start = Init::Zero;
        let mut from = self.range.start;
        while from < self.range.end || matches!(start, Init::Zero) {
            let steps = block.min(self.range.end - from);
            let (a, k_step) = match in_place {
                Some(a) => {
                    let depth = self.rows.depth();
                    (a.as_ptr().wrapping_add(from * depth + self.first), depth)
                }
                None => {
                    for (row, out) in (from..from + steps).zip(gathered.chunks_mut(STEP)) {
                        self.rows.gather::<V>(row, self.first, &mut out[..self.depth]);
                    }
                    (gathered.as_ptr(), STEP)
                }
            };
            self.pack::<V>(from, steps, block, &mut packed);
            // Meanwhile the next block's rows of A and then of B come near, shared out among the steps of
            // all tiles.
            let tiles = self.depth.div_ceil(V::MR);
            let a_next = if in_place.is_some() { steps * k_step } else { 0 };
            let b_next = self.b.as_ptr().wrapping_add((from + steps) * self.columns);
            let ahead_step = ((a_next / steps.max(1)) + self.columns).div_ceil(panels * tiles);
            for panel in 0..panels {
                let column = self.group.start + panel * width;
                let columns = width.min(self.group.end - column);
                for_each_tile::<V>(
                    self.depth,
                    #[inline(always)]
                    |first, count| {
                        let share = (panel * tiles + first / V::MR) * ahead_step * steps;
                        let tile = MicroKernel {
                            steps,
                            runs: ONE_RUN,
                            a: a.wrapping_add(first),
                            row_step: 0,
                            k_step,
                            b: packed[panel * block * width..].as_ptr(),
                            b_step: 0,
                            columns,
                            start,
                            activation: Activation::Linear,
                            non_temporal: self.non_temporal,
                            ahead: match share < a_next {
                                true => a.wrapping_add(a_next + share),
                                false => b_next.wrapping_add(share - a_next),
                            },
                            ahead_step,
                        };
                        let to = self.offset + first * self.columns + column;
                        // SAFETY: A has `steps` rows of `k_step` floats, the panel `steps` rows of full
                        // width; these rows and columns of C are this task's alone.
                        unsafe {
                            tile.run::<V, 1, B_PACKED>(
                                count,
                                #[inline(always)]
                                |row| self.out.at(to + row * self.columns),
                            )
                        };
                    },
                );
            }
            start = Init::Accumulate;
            from += steps;
        }
    }
}

impl<R> Task<'_, R> {
    /// The group's columns of some rows of B in panels, `[panel][row][2 · LANES]`.
    #[inline(always)]
    fn pack<V: Vector>(&self, from: usize, steps: usize, block: usize, packed: &mut [f32]) {
        let width = 2 * V::LANES;
        for k in 0..steps {
            let row = &self.b[(from + k) * self.columns..][..self.columns][self.group.clone()];
            for (panel, row) in row.chunks(width).enumerate() {
                let to = packed[(panel * block + k) * width..][..width].as_mut_ptr();
                // SAFETY: `row` has as many floats as are read, `to` a full width.
                unsafe {
                    for half in [0, V::LANES] {
                        let n = row.len().saturating_sub(half).min(V::LANES);
                        let from = row.as_ptr().add(half.min(row.len()));
                        match n == V::LANES {
                            true => V::load(from).store(to.add(half)),
                            false => V::load_partial(from, n).store(to.add(half)),
                        }
                    }
                }
            }
        }
    }
}
