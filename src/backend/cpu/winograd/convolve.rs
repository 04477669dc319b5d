//! The forward pass, which with the kernel turned around is also the images' gradient.

use super::transforms::{F2, F4, Transforms, on_both_axes};
use super::{Geometry, Products, Windows, panel_width, row_step};
use crate::activation::Activation;
use crate::backend::cpu::elements;
use crate::backend::cpu::gemm::{ANY, B_PACKED, Init, MicroKernel, for_each_tile};
use crate::backend::cpu::simd::{Isa, Kernel, Vector, dispatch, store, wants_non_temporal};
use crate::backend::cpu::threads::{self, Shared};
use crate::pool::Buffer;
use std::ops::Range;

/// Bytes of transformed windows a task: with a panel of results and the panels of U that pass by, inside an
/// L2 cache of 1 MiB.
const V_BYTES: usize = 640 << 10;
/// Channels that are summed up before they are added to the others' sums: short sums round less, and this is
/// where Winograd's method would lose to the definition, whose terms are smaller.
const CHANNELS_AT_ONCE: usize = 128;
/// Row tiles a task, at least: each passes all of U by, so fewer would wait for it. (Of 512 channels they
/// are more than V_BYTES, which costs less.)
const LEAST: usize = 2;

/// w [k, k, C, F] turned by 180°, channels swapped: [k, k, F, C].
pub fn turned(w: &[f32], channels: usize, filters: usize) -> Buffer<f32> {
    /// A square that fits L1 twice.
    const SIDE: usize = 32;
    let size = channels * filters;
    let mut out = Buffer::<f32>::new(w.len());
    let taps = w.len() / size.max(1);
    threads::for_each_chunk(&mut out, size.max(1), |tap, out| {
        let from = &w[(taps - 1 - tap) * size..][..size];
        for c0 in (0..channels).step_by(SIDE) {
            for f0 in (0..filters).step_by(SIDE) {
                for f in f0..filters.min(f0 + SIDE) {
                    for c in c0..channels.min(c0 + SIDE) {
                        out[f * channels + c] = from[c * filters + f];
                    }
                }
            }
        }
    });
    out
}

/// U = G g Gᵀ in panels: `[panel of filters][product][C][2 · LANES]`, the last panel filled up with zeros.
pub fn transform_kernels(isa: Isa, g: &Geometry, w: &[f32]) -> Buffer<f32> {
    match g.tile {
        4 => transform_kernels_by(isa, g, F4, w),
        _ => transform_kernels_by(isa, g, F2, w),
    }
}

pub(super) fn transform_kernels_by<F: Transforms<W, O>, const W: usize, const O: usize>(
    isa: Isa,
    g: &Geometry,
    method: F,
    w: &[f32],
) -> Buffer<f32> {
    struct Part<'a, F, const W: usize, const O: usize> {
        g: &'a Geometry,
        method: F,
        products: &'a Products,
        w: &'a [f32],
        panel: usize,
        channels: Range<usize>,
        u: Shared<f32>,
    }
    impl<F: Transforms<W, O>, const W: usize, const O: usize> Kernel for Part<'_, F, W, O> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            let (g, width, products) = (self.g, 2 * V::LANES, self.products);
            let side = g.kernel;
            assert_eq!(self.w.len(), elements(&[side, side, g.channels, g.filters]));
            let pieces = (0..g.pieces()).flat_map(|y| (0..g.pieces()).map(move |x| [y, x]));
            for (c, [py, px]) in self.channels.flat_map(|c| pieces.clone().map(move |piece| (c, piece)))
            {
                for half in [0, V::LANES] {
                    let first = self.panel * width + half;
                    let n = g.filters.saturating_sub(first).min(V::LANES);
                    // SAFETY: the n filters from `first` on of every tap are inside w; U has a full vector
                    // for every product, channel and half, and these channels of this panel are this task's
                    // alone.
                    unsafe {
                        let mut taps = [[V::splat(0.0); 3]; 3];
                        for y in 0..3 {
                            for x in 0..3 {
                                // A second piece begins with a tap of the first one's: with zero.
                                if n > 0 && y >= py && x >= px {
                                    let tap = (2 * py + y) * side + 2 * px + x;
                                    let at = (tap * g.channels + c) * g.filters + first;
                                    taps[y][x] = V::load_partial(self.w.as_ptr().add(at), n);
                                }
                            }
                        }
                        let u = on_both_axes(
                            taps,
                            #[inline(always)]
                            |taps| self.method.kernel(taps),
                        );
                        for place in 0..W * W {
                            for product in products.of(place) {
                                if products.pieces[product] == [py, px] {
                                    let row = (self.panel * products.count() + product) * g.channels + c;
                                    u[place / W][place % W].store(self.u.at(row * width + half));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    /// Channels a task.
    const CHANNELS: usize = 64;
    let products = Products::new(g);
    let width = panel_width(isa);
    let panels = g.filters.div_ceil(width);
    let mut u = Buffer::<f32>::new(elements(&[panels, products.count(), g.channels, width]));
    let (shared, cuts) = (Shared::new(&mut u), g.channels.div_ceil(CHANNELS));
    let products = &products;
    threads::for_each(panels * cuts, |task| {
        let (panel, cut) = (task / cuts, task % cuts);
        let channels = cut * CHANNELS..g.channels.min((cut + 1) * CHANNELS);
        dispatch(isa, Part { g, method, products, w, panel, channels, u: shared });
    });
    u
}

/// What is made of the sums before they are written.
#[derive(Clone, Copy, Default)]
pub struct Finish<'a> {
    pub bias: Option<&'a [f32]>,
    pub activation: Activation,
    /// Of each square of 2×2 outputs, of which a tile has one or four, the largest alone is written: max
    /// pooling of that stride, which drops an odd row and column.
    pub pool: bool,
}

impl Finish<'_> {
    /// Height and width of what is written.
    pub(super) fn size(&self, g: &Geometry) -> [usize; 2] {
        if self.pool { g.output.map(|side| side / 2) } else { g.output }
    }
}

/// y = x * w, finished. `u` is what [`transform_kernels`] makes of w [k, k, C, F] (for ∂x: of w
/// [`turned`]).
pub fn convolve(isa: Isa, g: &Geometry, x: &[f32], u: &[f32], finish: Finish, y: &mut [f32]) {
    match g.tile {
        4 => convolve_by(isa, g, F4, [x, u], finish, y),
        _ => convolve_by(isa, g, F2, [x, u], finish, y),
    }
}

pub(super) fn convolve_by<F: Transforms<W, O>, const W: usize, const O: usize>(
    isa: Isa,
    g: &Geometry,
    method: F,
    [x, u]: [&[f32]; 2],
    finish: Finish,
    y: &mut [f32],
) {
    assert_eq!((g.tile, g.window()), (O, W));
    let [height, width] = finish.size(g);
    assert_eq!(y.len(), elements(&[g.batch, height, width, g.filters]));
    assert!(finish.bias.is_none_or(|bias| bias.len() == g.filters));
    let (products, panels) = (Products::new(g), g.filters.div_ceil(panel_width(isa)));
    assert_eq!(u.len(), elements(&[panels, products.count(), g.channels, panel_width(isa)]));
    if y.is_empty() {
        return;
    }
    let rows = isa.mr();
    let row_tiles = g.windows().div_ceil(rows);
    let most = (V_BYTES / (4 * W * W * rows * g.channels)).clamp(LEAST, 8);
    let blocks = row_tiles.div_ceil(most);
    // Few tiles: cut the filters as well, so that there is work for every core. Many: tasks of even size.
    let cuts = (8 / blocks).clamp(1, panels);
    let blocks = if blocks > 4 { blocks.next_multiple_of(4).min(row_tiles) } else { blocks };
    let (non_temporal, x) = (wants_non_temporal(y, g.filters), Windows::new(g, x));
    let shared = Shared::new(y);
    threads::for_each(blocks * cuts, |task| {
        let (block, cut) = (task / cuts, task % cuts);
        let from = |block: usize| (row_tiles * block / blocks * rows).min(g.windows());
        let windows = from(block)..from(block + 1);
        let panels = panels * cut / cuts..panels * (cut + 1) / cuts;
        let products = &products;
        dispatch(
            isa,
            Task { g, method, products, x, u, finish, non_temporal, y: shared, windows, panels },
        );
    });
}

/// All channels of some windows, with some panels of filters.
struct Task<'a, F, const W: usize, const O: usize> {
    g: &'a Geometry,
    method: F,
    products: &'a Products,
    x: Windows<'a>,
    u: &'a [f32],
    finish: Finish<'a>,
    non_temporal: bool,
    y: Shared<f32>,
    windows: Range<usize>,
    panels: Range<usize>,
}

impl<F: Transforms<W, O>, const W: usize, const O: usize> Kernel for Task<'_, F, W, O> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (g, width, count) = (self.g, 2 * V::LANES, self.windows.len());
        let (channels, step, rows) = (g.channels, row_step(g.channels), count + g.halo());
        // V: [ξ][window][step]; M: [ξ][tile][width].
        let mut v = Buffer::<f32>::new(W * W * rows * step);
        let mut m = Buffer::<f32>::new(W * W * count * width);
        let runs: Vec<usize> = self.products.windows.iter().map(|window| window * step).collect();
        let into = v.as_mut_ptr();
        let end = g.windows().min(self.windows.end + g.halo());
        for (row, window) in (self.windows.start..end).enumerate() {
            self.x.transform::<V, F, W, O>(
                self.method,
                window,
                #[inline(always)]
                |place, c, value, lanes| {
                    // SAFETY: channel c lies inside the window's row.
                    unsafe { value.store_partial(into.add((place * rows + row) * step + c), lanes) }
                },
            );
        }
        // (Past the last window only places read that are no tile's.)
        let tail = end - self.windows.start;
        for place in 0..W * W {
            v[(place * rows + tail) * step..(place + 1) * rows * step].fill(0.0);
        }
        let size = self.products.count() * channels * width;
        for panel in self.panels.clone() {
            let columns = if g.filters - panel * width > V::LANES { width } else { V::LANES };
            let u = &self.u[panel * size..][..size];
            let products = self.products;
            // SAFETY: inside this instruction set.
            unsafe {
                V::apart(Multiply {
                    products,
                    runs: &runs,
                    v: &v,
                    rows,
                    channels,
                    u,
                    columns,
                    count,
                    m: &mut m,
                })
            };
            for (t, window) in self.windows.clone().enumerate() {
                for half in [0, V::LANES] {
                    let f = panel * width + half;
                    let lanes = g.filters.saturating_sub(f).min(V::LANES);
                    if lanes > 0 {
                        // SAFETY: M has a vector for every place, tile and half; a tile's outputs are its
                        // own.
                        unsafe {
                            let from = m.as_ptr().add(t * width + half);
                            self.finish::<V>(from, count * width, window, f, lanes)
                        };
                    }
                }
            }
        }
    }
}

/// The products of all places with one panel: the same code whatever the size of a tile.
struct Multiply<'a> {
    products: &'a Products,
    /// Where in V each product's windows begin, from its place on.
    runs: &'a [usize],
    v: &'a [f32],
    /// Windows in V.
    rows: usize,
    channels: usize,
    /// The panel's.
    u: &'a [f32],
    columns: usize,
    /// Tiles in M.
    count: usize,
    m: &'a mut [f32],
}

impl Kernel for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Multiply { v, rows, channels, u, columns, count, .. } = self;
        let (width, step) = (2 * V::LANES, row_step(channels));
        let results = self.m.as_mut_ptr();
        for place in 0..self.products.places() {
            let of = self.products.of(place);
            let b = u[of.start * channels * width..].as_ptr();
            // What comes next of U, a share a tile.
            let next = b.wrapping_add(of.len() * channels * width);
            let ahead_step = width.div_ceil(count.div_ceil(V::MR));
            let blocks = if of.len() > 1 { 1 } else { channels.div_ceil(CHANNELS_AT_ONCE) };
            for block in 0..blocks {
                let part = channels * block / blocks..channels * (block + 1) / blocks;
                for_each_tile::<V>(
                    count,
                    #[inline(always)]
                    |first, mr| {
                        let share = first / V::MR * ahead_step * of.len() * channels;
                        let tile = MicroKernel {
                            steps: part.len(),
                            runs: &self.runs[of.clone()],
                            a: v[(place * rows + first) * step + part.start..].as_ptr(),
                            row_step: step,
                            k_step: 1,
                            b: b.wrapping_add(part.start * width),
                            b_step: 0,
                            columns,
                            start: if block == 0 { Init::Zero } else { Init::Accumulate },
                            activation: Activation::Linear,
                            non_temporal: false,
                            ahead: next.wrapping_add(share + part.start * ahead_step),
                            ahead_step,
                        };
                        // SAFETY: V holds `mr` rows of `step` floats from `first` on and as many at every
                        // run, U a full panel row for each step of each run, M a row of `width` floats a
                        // tile.
                        unsafe {
                            tile.run_inlined::<V, ANY, B_PACKED>(
                                mr,
                                #[inline(always)]
                                |row| results.add((place * count + first + row) * width),
                            )
                        };
                    },
                );
            }
        }
    }
}

impl<F: Transforms<W, O>, const W: usize, const O: usize> Task<'_, F, W, O> {
    /// Aᵀ M A of one tile and vector of filters, into the outputs that exist.
    ///
    /// # Safety
    /// A vector of M for every place, `step` floats apart from `from` on; the tile's outputs, `lanes`
    /// filters from f on, are this task's alone.
    #[inline(always)]
    unsafe fn finish<V: Vector>(
        &self,
        from: *const f32,
        step: usize,
        window: usize,
        f: usize,
        lanes: usize,
    ) {
        let g = self.g;
        let [n, oy, ox] = g.place(window);
        let [height, width] = g.outputs([n, oy, ox]);
        if height * width == 0 {
            return;
        }
        unsafe {
            let mut m = [[V::splat(0.0); W]; W];
            for place in 0..W * W {
                m[place / W][place % W] = V::load(from.add(place * step));
            }
            let y = on_both_axes(
                m,
                #[inline(always)]
                |m| self.method.outputs(m),
            );
            let Finish { bias, activation, pool } = self.finish;
            let size = self.finish.size(g);
            let bias = match bias {
                Some(bias) => V::load_partial(bias[f..f + lanes].as_ptr(), lanes),
                None => V::splat(0.0),
            };
            if pool {
                for py in 0..O / 2 {
                    for px in 0..O / 2 {
                        if 2 * py + 1 >= height || 2 * px + 1 >= width {
                            continue;
                        }
                        let mut best = activation.forward_lanes(y[2 * py][2 * px].add(bias));
                        for (dy, dx) in [(0, 1), (1, 0), (1, 1)] {
                            best = activation
                                .forward_lanes(y[2 * py + dy][2 * px + dx].add(bias))
                                .max(best);
                        }
                        let pixel = (n * size[0] + oy / 2 + py) * size[1] + ox / 2 + px;
                        self.write(best, pixel, f, lanes);
                    }
                }
                return;
            }
            for dy in 0..O {
                for dx in 0..O {
                    if dy >= height || dx >= width {
                        continue;
                    }
                    let pixel = (n * size[0] + oy + dy) * size[1] + ox + dx;
                    self.write(activation.forward_lanes(y[dy][dx].add(bias)), pixel, f, lanes);
                }
            }
        }
    }

    /// # Safety
    /// As [`Task::finish`]: the filters of this pixel are this task's alone.
    #[inline(always)]
    unsafe fn write<V: Vector>(&self, value: V, pixel: usize, f: usize, lanes: usize) {
        unsafe {
            let to = self.y.at(pixel * self.g.filters + f);
            match lanes == V::LANES {
                true => store::<V, true>(value, to, lanes, self.non_temporal),
                false => store::<V, false>(value, to, lanes, false),
            }
        }
    }
}
