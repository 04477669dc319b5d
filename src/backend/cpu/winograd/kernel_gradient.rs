//! The kernel's gradient.

use super::transforms::{F2, on_both_axes};
use super::{Geometry, Products, Windows, panel_width, row_step};
use crate::activation::Activation;
use crate::backend::cpu::elements;
use crate::backend::cpu::gemm::{B_PACKED, Init, MicroKernel, ONE_RUN, for_each_tile};
use crate::backend::cpu::simd::{Isa, Kernel, Vector, dispatch};
use crate::backend::cpu::threads::{self, Shared};
use crate::pool::Buffer;
use std::ops::Range;

/// Bytes of sums a task, which stay in L2 beside what is added to them.
const SUM_BYTES: usize = 512 << 10;
/// Bytes of V and Z at a time, likewise.
const SLAB_BYTES: usize = 512 << 10;

/// ∂w [k, k, C, F], a sum over all tiles, which are of 2×2 outputs.
///
/// A task has one row of places ξ (for which two rows of a window and of the output's gradient are enough),
/// some channels and a part of the tiles. It transforms a slab of tiles at a time, V and Z, and adds each
/// product's Vᵀ·Z to its own [C, F]. The parts, whose number depends on the shape alone, are added in order.
pub fn kernel_gradient(isa: Isa, g: &Geometry, dy: &[f32], x: &[f32], dw: &mut [f32]) {
    assert_eq!(g.tile, 2);
    assert_eq!(dw.len(), elements(&[g.kernel, g.kernel, g.channels, g.filters]));
    assert_eq!(dy.len(), elements(&[g.batch, g.output[0], g.output[1], g.filters]));
    if dw.is_empty() {
        return;
    }
    let products = Products::new(g);
    let columns = g.filters.div_ceil(panel_width(isa)) * panel_width(isa);
    // (A quarter of the products, of 4 bytes.)
    let fitting = SUM_BYTES / (products.count() * g.filters);
    let cuts = g.channels.div_ceil((fitting / 16 * 16).max(32));
    let cut = g.channels.div_ceil(cuts).next_multiple_of(16);
    let cuts = g.channels.div_ceil(cut);
    let step = row_step(cut);
    let slab = (SLAB_BYTES / (4 * 4 * (step + columns))).clamp(32, 256);
    // 16 tasks keep a few cores busy to the end.
    let parts = 4usize.div_ceil(cuts).min(g.windows().div_ceil(slab));
    let size = products.count() * g.channels * g.filters;
    let mut sums = Buffer::<f32>::new(parts * size);
    let (to, x) = (Shared::new(&mut sums), Windows::new(g, x));
    threads::for_each(4 * cuts * parts, |task| {
        let (part, i, c) = (task / (4 * cuts), task / cuts % 4, task % cuts);
        let windows = g.windows() * part / parts..g.windows() * (part + 1) / parts;
        let channels = c * cut..g.channels.min((c + 1) * cut);
        let products = &products;
        dispatch(
            isa,
            Part { g, products, x, dy, i, windows, channels, slab, step, at: part * size, sums: to },
        );
    });
    let (to, products) = (Shared::new(dw), &products);
    threads::for_each(g.channels, |c| {
        dispatch(isa, Collect { g, products, sums: &sums, size, c, dw: to });
    });
}

struct Part<'a> {
    g: &'a Geometry,
    products: &'a Products,
    x: Windows<'a>,
    dy: &'a [f32],
    /// Row of places.
    i: usize,
    windows: Range<usize>,
    channels: Range<usize>,
    /// Windows at a time.
    slab: usize,
    /// Floats from one window's row of V to the next.
    step: usize,
    /// Where in the sums, [product][C][F], this part's begin; its row of places and its channels are this
    /// task's alone.
    at: usize,
    sums: Shared<f32>,
}

impl Kernel for Part<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let g = self.g;
        let panels = g.filters.div_ceil(2 * V::LANES);
        let rows = self.slab + g.halo();
        // V: [place][window][step]; Z: [place][panel][tile][2 · LANES].
        let mut v = Buffer::<f32>::new(4 * rows * self.step);
        let mut z = Buffer::<f32>::new(4 * panels * self.slab * 2 * V::LANES);
        let mut start = Init::Zero;
        for first in self.windows.clone().step_by(self.slab) {
            let count = self.slab.min(self.windows.end - first);
            self.spread_windows::<V>(first..first + count + g.halo(), rows, &mut v);
            self.spread_tiles::<V>(first..first + count, &mut z);
            self.add_products::<V>(count, rows, &v, &z, start);
            start = Init::Accumulate;
        }
    }
}

impl Part<'_> {
    #[inline(always)]
    fn spread_windows<V: Vector>(&self, windows: Range<usize>, rows: usize, v: &mut [f32]) {
        let channels = self.channels.len();
        for (row, window) in windows.enumerate() {
            for c in (0..channels).step_by(V::LANES) {
                let lanes = V::LANES.min(channels - c);
                // SAFETY: a value only; then channel c of the window's row in each place.
                unsafe {
                    let mut values = [V::splat(0.0); 4];
                    if window < self.g.windows() {
                        values = self.x.transform_row(window, self.i, self.channels.start + c, lanes);
                    }
                    for (place, value) in values.into_iter().enumerate() {
                        let at = (place * rows + row) * self.step + c;
                        value.store_partial(v[at..at + lanes].as_mut_ptr(), lanes);
                    }
                }
            }
        }
    }

    /// Row i of A ∂Y Aᵀ, zero for tiles that are none.
    #[inline(always)]
    fn spread_tiles<V: Vector>(&self, windows: Range<usize>, z: &mut [f32]) {
        let (g, width) = (self.g, 2 * V::LANES);
        let panels = g.filters.div_ceil(width);
        for (row, window) in windows.enumerate() {
            let place = g.place(window);
            let ([n, oy, ox], [height, columns]) = (place, g.outputs(place));
            for f in (0..panels * width).step_by(V::LANES) {
                let lanes = g.filters.saturating_sub(f).min(V::LANES);
                // SAFETY: outputs that exist, `lanes` filters from f on; a full vector of the tile's row of
                // each place.
                unsafe {
                    let mut p = [[V::splat(0.0); 2]; 2];
                    for y in 0..2 {
                        for x in 0..2 {
                            if y < height && x < columns && lanes > 0 {
                                let pixel = (n * g.output[0] + oy + y) * g.output[1] + ox + x;
                                let from = &self.dy[pixel * g.filters + f..][..lanes];
                                p[y][x] = V::load_partial(from.as_ptr(), lanes);
                            }
                        }
                    }
                    let mut row_of = [V::splat(0.0); 2];
                    for x in 0..2 {
                        row_of[x] = match self.i {
                            0 => p[0][x],
                            1 => p[0][x].add(p[1][x]),
                            2 => p[0][x].sub(p[1][x]),
                            _ => V::splat(0.0).sub(p[1][x]),
                        };
                    }
                    for (place, value) in F2::spread_outputs(row_of).into_iter().enumerate() {
                        let at = ((place * panels + f / width) * self.slab + row) * width + f % width;
                        value.store(z[at..at + V::LANES].as_mut_ptr());
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn add_products<V: Vector>(&self, count: usize, rows: usize, v: &[f32], z: &[f32], start: Init) {
        let (g, width) = (self.g, 2 * V::LANES);
        let panels = g.filters.div_ceil(width);
        for place in 0..4 {
            for product in self.products.of(4 * self.i + place) {
                let window = place * rows + self.products.windows[product];
                for panel in 0..panels {
                    let b = z[(place * panels + panel) * self.slab * width..].as_ptr();
                    let columns = width.min(g.filters - panel * width);
                    for_each_tile::<V>(
                        self.channels.len(),
                        #[inline(always)]
                        |first, mr| {
                            let tile = MicroKernel {
                                steps: count,
                                runs: ONE_RUN,
                                a: v[window * self.step + first..].as_ptr(),
                                row_step: 0,
                                k_step: self.step,
                                b,
                                b_step: 0,
                                columns,
                                start,
                                activation: Activation::Linear,
                                non_temporal: false,
                                ahead: b,
                                ahead_step: 0,
                            };
                            let row = product * g.channels + self.channels.start + first;
                            let to = self.at + row * g.filters + panel * width;
                            // SAFETY: V has `count` rows of `step` floats from the product's first window
                            // on, Z as many full panel rows; the rows of the sums are this task's alone.
                            unsafe {
                                tile.run::<V, 1, B_PACKED>(
                                    mr,
                                    #[inline(always)]
                                    |row| self.sums.at(to + row * g.filters),
                                )
                            };
                        },
                    );
                }
            }
        }
    }
}

/// Gᵀ s G of one channel, into the taps of each piece.
struct Collect<'a> {
    g: &'a Geometry,
    products: &'a Products,
    /// Of all parts.
    sums: &'a [f32],
    /// Floats a part.
    size: usize,
    c: usize,
    dw: Shared<f32>,
}

impl Kernel for Collect<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (g, products) = (self.g, self.products);
        let pieces = (0..g.pieces()).flat_map(|y| (0..g.pieces()).map(move |x| [y, x]));
        for ([py, px], f) in
            pieces.flat_map(|piece| (0..g.filters).step_by(V::LANES).map(move |f| (piece, f)))
        {
            let lanes = V::LANES.min(g.filters - f);
            // SAFETY: `lanes` filters from f on, of channel c, in every product and tap; c is this task's
            // alone.
            unsafe {
                let mut s = [[V::splat(0.0); 4]; 4];
                for place in 0..products.places() {
                    for product in products.of(place) {
                        if products.pieces[product] != [py, px] {
                            continue;
                        }
                        let at = (product * g.channels + self.c) * g.filters + f;
                        for part in self.sums.chunks_exact(self.size) {
                            let sum = &mut s[place / 4][place % 4];
                            *sum = sum.add(V::load_partial(part[at..at + lanes].as_ptr(), lanes));
                        }
                    }
                }
                let taps = on_both_axes(s, F2::gather_kernel);
                for y in 0..3 {
                    for x in 0..3 {
                        // A second piece's first tap is the first one's last.
                        if y >= py && x >= px {
                            let tap = (2 * py + y) * g.kernel + 2 * px + x;
                            let at = (tap * g.channels + self.c) * g.filters + f;
                            taps[y][x].store_partial(self.dw.at(at), lanes);
                        }
                    }
                }
            }
        }
    }
}
