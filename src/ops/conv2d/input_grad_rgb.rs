//! The gradient by images of three channels: what an attack asks of a network's first layer.
//!
//! As a matrix product it has three columns, and vectors have sixteen lanes. So the lanes go along the
//! image's rows:
//!
//! ∂x\[c, x\] = Σ over ky, f, kx of w\[ky, kx, c, f\] · ∂y\[f, x − kx\]
//!
//! for a row of pixels, with ∂y's rows turned so that pixels lie next to each other, and zeros before and
//! after them. A tile is up to eight vectors of pixels by three channels, in registers: 24 multiply-adds for
//! 8 loads, at any offset of x − kx. With a stride s there are s kinds of columns, each reached through taps
//! of its own ([`Phase`]).
//!
//! A turned row serves all taps that see it: as many rows as the kernel is high wait in a ring.

use super::Conv2dGeometry;
use super::cpu::Phase;
use super::rgb_conv::CHANNELS;
use crate::backend::cpu::simd::{Isa, Kernel, Vector, dispatch};
use crate::backend::cpu::threads;
use crate::backend::cpu::transpose::transpose_tile;
use crate::pool::Buffer;

/// Vectors of pixels a tile, with 32 registers.
const WIDEST: usize = 8;

/// Whether it can. Filters come in whole vectors, which are turned as squares.
pub fn fits(isa: Isa, g: &Conv2dGeometry) -> bool {
    g.in_channels == CHANNELS
        && g.dilation == [1, 1]
        && g.stride.iter().all(|&stride| stride <= 2)
        && g.kernel.iter().all(|&side| side >= 2)
        && g.out_channels.is_multiple_of(isa.lanes())
        && !g.output.contains(&0)
}

pub fn run(isa: Isa, g: &Conv2dGeometry, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let plan = Plan::new(isa, g, w);
    // An image is a task; of few images some rows are.
    let rows = g.input[0].div_ceil(16usize.div_ceil(g.batch.max(1)));
    threads::for_each_chunk(dx, rows * g.input[1] * CHANNELS, |i, dx| {
        dispatch(isa, Rows { g, plan: &plan, dy, first: i * rows, dx });
    });
}

/// What all rows share.
struct Plan {
    rows: Vec<Phase>,
    columns: Vec<Columns>,
    /// Floats a turned row of one filter, of which so many come before the first pixel.
    width: usize,
    before: usize,
    /// Turned rows that one row of pixels may need at once.
    ring: usize,
    /// Where the elements of a row of the image are among a row's sums.
    places: Vec<u32>,
    /// Floats of a row's sums.
    sums: usize,
}

/// Pixels of a row that the same taps reach.
struct Columns {
    /// Where each tap's first pixel is in a turned row.
    taps: Vec<usize>,
    /// Vectors of pixels, the last filled up.
    vectors: usize,
    /// \[kh, F, taps, 3\]
    weights: Buffer<f32>,
    /// Where its sums begin: three channels, each in whole vectors.
    at: usize,
}

impl Plan {
    fn new(isa: Isa, g: &Conv2dGeometry, w: &[f32]) -> Self {
        let (lanes, f) = (isa.lanes(), g.out_channels);
        let phases = |axis: usize| -> Vec<Phase> {
            (0..g.stride[axis].min(g.input[axis])).map(|phase| Phase::new(g, axis, phase)).collect()
        };
        let (rows, along) = (phases(0), phases(1));
        let before = along.iter().map(|phase| (-phase.origin).max(0) as usize).max().unwrap_or(0);
        let mut width = before + g.output[1].next_multiple_of(lanes);
        let (mut columns, mut sums) = (Vec::new(), 0);
        for phase in &along {
            let first = (before as isize + phase.origin) as usize;
            let taps: Vec<usize> =
                (0..phase.taps.len()).map(|tap| first + tap * phase.tap_step).collect();
            let vectors = phase.count.div_ceil(lanes);
            width = width.max(taps.last().map_or(0, |last| last + vectors * lanes));
            let mut weights = Buffer::<f32>::new(g.kernel[0] * f * taps.len() * CHANNELS);
            let mut to = weights.iter_mut();
            for ky in 0..g.kernel[0] {
                for filter in 0..f {
                    for kx in &phase.taps {
                        let from = (ky * g.kernel[1] + kx) * CHANNELS * f + filter;
                        to.by_ref().zip(0..CHANNELS).for_each(|(to, c)| *to = w[from + c * f]);
                    }
                }
            }
            columns.push(Columns { taps, vectors, weights, at: sums });
            sums += CHANNELS * vectors * lanes;
        }
        let place = |i: usize| {
            let (x, c) = (i / CHANNELS, i % CHANNELS);
            let column = &columns[x % g.stride[1]];
            (column.at + c * column.vectors * lanes + x / g.stride[1]) as u32
        };
        let places = (0..g.input[1] * CHANNELS).map(place).collect();
        let ring = rows.iter().map(|phase| phase.taps.len() * phase.tap_step + 1).max().unwrap_or(1);
        Plan { rows, columns, width, before, ring, places, sums }
    }
}

/// Some rows of pixels.
struct Rows<'a> {
    g: &'a Conv2dGeometry,
    plan: &'a Plan,
    dy: &'a [f32],
    /// The first row, counted through all images.
    first: usize,
    dx: &'a mut [f32],
}

impl Kernel for Rows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Rows { g, plan, dy, first, dx } = self;
        let (f, row) = (g.out_channels, g.output[1] * g.out_channels);
        let mut ring = Buffer::<f32>::filled(plan.ring * f * plan.width, 0.0);
        let mut held = vec![usize::MAX; plan.ring];
        let mut sums = Buffer::<f32>::new(plan.sums);
        for (i, dx) in dx.chunks_exact_mut(g.input[1] * CHANNELS).enumerate() {
            let (n, y) = ((first + i) / g.input[0], (first + i) % g.input[0]);
            let (phase, at) = (&plan.rows[y % g.stride[0]], y / g.stride[0]);
            sums.fill(0.0);
            for (tap, &ky) in phase.taps.iter().enumerate() {
                let from = phase.origin + (at + tap * phase.tap_step) as isize;
                let Some(oy) = usize::try_from(from).ok().filter(|&oy| oy < g.output[0]) else {
                    continue;
                };
                let (slot, from) = (oy % plan.ring, n * g.output[0] + oy);
                let turned = &mut ring[slot * f * plan.width..][..f * plan.width];
                if held[slot] != from {
                    held[slot] = from;
                    let dy = &dy[from * row..][..row];
                    // SAFETY: inside `dispatch`; a turned row has room for whole vectors of the pixels.
                    unsafe { turn::<V>(dy, f, turned, plan.width, plan.before) };
                }
                for columns in plan.columns.iter().filter(|columns| !columns.taps.is_empty()) {
                    let step = f * columns.taps.len() * CHANNELS;
                    let weights = &columns.weights[ky * step..][..step];
                    let tiles =
                        columns.vectors.div_ceil(if V::LANES == 16 { WIDEST } else { WIDEST / 2 });
                    for tile in 0..tiles {
                        let vectors =
                            columns.vectors * tile / tiles..columns.vectors * (tile + 1) / tiles;
                        let (begin, count) = (vectors.start * V::LANES, vectors.len());
                        let tile = MicroKernel {
                            turned: turned[begin..].as_ptr(),
                            width: plan.width,
                            filters: f,
                            taps: &columns.taps,
                            weights: weights.as_ptr(),
                            sums: sums[columns.at + begin..].as_mut_ptr(),
                            apart: columns.vectors * V::LANES,
                        };
                        // SAFETY: inside `dispatch`; every tap's vectors end within a turned row's width.
                        unsafe {
                            match count {
                                1 => tile.run::<V, 1>(),
                                2 => tile.run::<V, 2>(),
                                3 => tile.run::<V, 3>(),
                                4 => tile.run::<V, 4>(),
                                5 => tile.run::<V, 5>(),
                                6 => tile.run::<V, 6>(),
                                7 => tile.run::<V, 7>(),
                                _ => tile.run::<V, WIDEST>(),
                            }
                        }
                    }
                }
            }
            for (dx, places) in dx.chunks_mut(V::LANES).zip(plan.places.chunks(V::LANES)) {
                match dx.len() == V::LANES {
                    // SAFETY: inside `dispatch`; all places are among the sums.
                    true => unsafe {
                        V::gather(sums.as_ptr(), places.as_ptr()).store(dx.as_mut_ptr());
                    },
                    false => dx.iter_mut().zip(places).for_each(|(dx, &at)| *dx = sums[at as usize]),
                }
            }
        }
    }
}

/// Pixels of F values into F rows of pixels, each `before` floats after its row's beginning; up to a whole
/// vector after them is zero.
///
/// # Safety
/// Inside `dispatch`. F is a multiple of the lanes; a row has room for whole vectors of the pixels.
#[inline(always)]
unsafe fn turn<V: Vector>(pixels: &[f32], f: usize, to: &mut [f32], width: usize, before: usize) {
    let count = pixels.len() / f;
    assert!(f.is_multiple_of(V::LANES) && before + count.next_multiple_of(V::LANES) <= width);
    for first in (0..count).step_by(V::LANES) {
        for filter in (0..f).step_by(V::LANES) {
            // SAFETY: pixels below `count`; whole vectors of filters and of a row's pixels.
            unsafe {
                let from = pixels.as_ptr().add(first * f + filter);
                let to = to.as_mut_ptr().add(filter * width + before + first);
                transpose_tile::<V>(from, f, count - first, to, width);
            }
        }
    }
}

/// Some vectors of pixels, in three channels.
struct MicroKernel<'a> {
    /// \[F, width\]
    turned: *const f32,
    width: usize,
    filters: usize,
    taps: &'a [usize],
    /// \[F, taps, 3\]
    weights: *const f32,
    /// Of the first channel; the next is `apart` floats on.
    sums: *mut f32,
    apart: usize,
}

impl MicroKernel<'_> {
    /// Adds all filters and taps of one row of the kernel to the sums. (A sum of one row at a time: shorter
    /// sums round less.)
    ///
    /// # Safety
    /// Inside `dispatch`, N vectors from every tap on within the turned row, and from the sums on.
    #[inline(always)]
    unsafe fn run<V: Vector, const N: usize>(self) {
        // SAFETY: by the caller's contract.
        unsafe {
            let mut acc = [[V::splat(0.0); N]; CHANNELS];
            let (mut row, mut w) = (self.turned, self.weights);
            for _ in 0..self.filters {
                for &tap in self.taps {
                    let by: [V; CHANNELS] = [V::splat(*w), V::splat(*w.add(1)), V::splat(*w.add(2))];
                    let from = row.add(tap);
                    let pixels: [V; N] = std::array::from_fn(
                        #[inline(always)]
                        |j| V::load(from.add(j * V::LANES)),
                    );
                    for (acc, by) in acc.iter_mut().zip(by) {
                        acc.iter_mut().zip(pixels).for_each(
                            #[inline(always)]
                            |(acc, pixels)| *acc = pixels.mul_add(by, *acc),
                        );
                    }
                    w = w.add(CHANNELS);
                }
                row = row.add(self.width);
            }
            for (c, acc) in acc.iter().enumerate() {
                for (j, acc) in acc.iter().enumerate() {
                    let sum = self.sums.add(c * self.apart + j * V::LANES);
                    V::load(sum).add(*acc).store(sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Conv2dOptions, reference};
    use super::*;
    use crate::backend::cpu::simd::supported;
    use crate::ops::Padding::{self, Cells, Same, Valid};

    #[test]
    fn it_is_the_gradient_of_the_definition_at_any_size() {
        let cases: [(_, _, usize, Padding); 9] = [
            ([5, 7, 9, 3], [3, 3, 16], 1, Same),
            ([2, 12, 11, 3], [7, 7, 16], 1, Valid),
            ([1, 9, 150, 3], [7, 7, 64], 1, Valid),
            ([3, 8, 140, 3], [3, 3, 32], 1, Same),
            ([20, 6, 37, 3], [3, 3, 32], 2, Same),
            ([1, 33, 130, 3], [7, 7, 16], 2, Cells([3, 3])),
            ([2, 7, 300, 3], [5, 4, 16], 2, Valid),
            ([1, 1, 5, 3], [3, 3, 16], 1, Same),
            ([1, 16, 9, 3], [3, 3, 16], 2, Valid),
        ];
        for (x, [kh, kw, f], stride, padding) in cases {
            let options = Conv2dOptions { stride: [stride; 2], padding, ..Default::default() };
            let g = Conv2dGeometry::new(x.into(), [kh, kw, 3, f].into(), options).unwrap();
            let value = |i: usize| ((i * 7919 + 13) % 1009) as f64 / 504.5 - 1.0;
            let dy: Vec<f64> = (0..x[0] * g.output[0] * g.output[1] * f).map(value).collect();
            let w: Vec<f64> = (0..kh * kw * 3 * f).map(value).collect();
            let mut expected = vec![0.0f64; x.iter().product()];
            reference::input_gradient(&g, &dy, &w, &mut expected);
            let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let single = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
            for isa in supported().into_iter().filter(|&isa| fits(isa, &g)) {
                let mut dx = vec![f32::NAN; expected.len()];
                run(isa, &g, &single(&dy), &single(&w), &mut dx);
                for (i, (&got, &expected)) in dx.iter().zip(&expected).enumerate() {
                    let off = (got as f64 - expected).abs();
                    assert!(off <= 1e-5 * largest, "{isa:?} {x:?} {kh}×{kw}: {i}: {got} {expected}");
                }
            }
        }
    }
}
