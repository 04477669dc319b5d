//! The forward pass, which with the kernel turned around is also the pictures' gradient.

use super::{
    Geometry, PLACES, gather_outputs, on_both_axes, panel_width, spread_kernel, transform_tile,
};
use crate::cpu::gemm::{KC, ONE_RUN, ROW, Start, Tile, for_each_tile};
use crate::cpu::simd::{Isa, Kernel, Vector, dispatch};
use crate::cpu::threads::{self, Shared};
use crate::ops::Then;
use crate::pool::Buffer;

/// Bytes of transformed windows a task: with a panel of results and the panels of U that pass by, inside an L2
/// cache of 1 MiB.
const V_BYTES: usize = 640 << 10;

/// w [3, 3, C, F] turned by 180°, channels swapped: [3, 3, F, C].
pub fn turned(w: &[f32], channels: usize, filters: usize) -> Buffer<f32> {
    /// A square that fits L1 twice.
    const SIDE: usize = 32;
    let size = channels * filters;
    let mut out = Buffer::<f32>::new(w.len());
    threads::for_each_chunk(&mut out, size.max(1), |tap, out| {
        let from = &w[(8 - tap) * size..][..size];
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

/// U = G g Gᵀ in panels: `[panel of filters][ξ][C][2 · LANES]`, the last panel filled up with zeros.
fn transform_kernels(isa: Isa, w: &[f32], channels: usize, filters: usize) -> Buffer<f32> {
    struct Panel<'a> {
        w: &'a [f32],
        channels: usize,
        filters: usize,
        first: usize,
        out: &'a mut [f32],
    }
    impl Kernel for Panel<'_> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            let width = 2 * V::LANES;
            assert_eq!(self.w.len(), 9 * self.channels * self.filters);
            assert_eq!(self.out.len(), PLACES * self.channels * width);
            for c in 0..self.channels {
                for half in [0, V::LANES] {
                    let first = self.first + half;
                    let n = self.filters.saturating_sub(first).min(V::LANES);
                    // SAFETY: the n filters from `first` on of every tap are inside w; `out` has a full vector
                    // for every place, channel and half.
                    unsafe {
                        let mut g = [[V::splat(0.0); 3]; 3];
                        for tap in 0..if n > 0 { 9 } else { 0 } {
                            let at = (tap * self.channels + c) * self.filters + first;
                            g[tap / 3][tap % 3] = V::load_partial(self.w.as_ptr().add(at), n);
                        }
                        let u = on_both_axes(g, spread_kernel);
                        for place in 0..PLACES {
                            let at = (place * self.channels + c) * width + half;
                            u[place / 4][place % 4].store(self.out.as_mut_ptr().add(at));
                        }
                    }
                }
            }
        }
    }
    let width = panel_width(isa);
    let mut u = Buffer::<f32>::new(filters.div_ceil(width) * PLACES * channels * width);
    threads::for_each_chunk(&mut u, PLACES * channels * width, |panel, out| {
        dispatch(isa, Panel { w, channels, filters, first: panel * width, out });
    });
    u
}

/// y = x * w + bias, then the activation. `w` is [3, 3, C, F] (for ∂x: [`turned`]).
pub fn convolve(
    isa: Isa,
    g: &Geometry,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    then: Then,
    y: &mut [f32],
) {
    struct Task<'a> {
        g: &'a Geometry,
        x: &'a [f32],
        u: &'a [f32],
        bias: Option<&'a [f32]>,
        then: Then,
        y: Shared<f32>,
        tiles: std::ops::Range<usize>,
        panels: std::ops::Range<usize>,
    }
    impl Kernel for Task<'_> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            let (g, width, count) = (self.g, 2 * V::LANES, self.tiles.len());
            let (channels, blocks) = (g.channels, g.channels.div_ceil(KC));
            // V: [block of k][ξ][tile][ROW]; M: [ξ][tile][width].
            let mut v = Buffer::<f32>::new(blocks * PLACES * count * ROW);
            let mut m = Buffer::<f32>::new(PLACES * count * width);
            let v_at = |block: usize, place: usize, tile: usize| {
                ((block * PLACES + place) * count + tile) * ROW
            };
            let into = v.as_mut_ptr();
            for (t, tile) in self.tiles.clone().enumerate() {
                transform_tile::<V>(
                    g,
                    self.x,
                    tile,
                    0..channels,
                    #[inline(always)]
                    |place, c, value, lanes| {
                        // SAFETY: channel c of block c / KC lies inside its row of KC + 16 floats.
                        unsafe { value.store_partial(into.add(v_at(c / KC, place, t) + c % KC), lanes) }
                    },
                );
            }
            for panel in self.panels.clone() {
                let u = &self.u[panel * PLACES * channels * width..][..PLACES * channels * width];
                let results = m.as_mut_ptr();
                for place in 0..PLACES {
                    for block in 0..blocks {
                        let steps = KC.min(channels - block * KC);
                        let b = u[(place * channels + block * KC) * width..].as_ptr();
                        for_each_tile::<V>(
                            count,
                            #[inline(always)]
                            |first, rows| {
                                let tile = Tile {
                                    steps,
                                    runs: ONE_RUN,
                                    a: v[v_at(block, place, first)..].as_ptr(),
                                    row_step: 0,
                                    k_step: 1,
                                    b,
                                    b_step: width,
                                    columns: width,
                                    start: if block == 0 { Start::Zero } else { Start::Accumulate },
                                    then: Then::Nothing,
                                    stream: false,
                                    ahead: v.as_ptr(),
                                    ahead_step: 0,
                                };
                                // SAFETY: V holds `rows` rows of ROW floats from `first` on, U `steps` full
                                // panel rows, and M a row of `width` floats for every tile.
                                unsafe {
                                    tile.run::<V, ROW>(
                                        rows,
                                        #[inline(always)]
                                        |row| results.add((place * count + first + row) * width),
                                    )
                                };
                            },
                        );
                    }
                }
                for (t, tile) in self.tiles.clone().enumerate() {
                    for half in [0, V::LANES] {
                        let f = panel * width + half;
                        let lanes = g.filters.saturating_sub(f).min(V::LANES);
                        if lanes > 0 {
                            // SAFETY: M has a vector for every place, tile and half; a tile's outputs are its own.
                            unsafe {
                                let from = m.as_ptr().add(t * width + half);
                                self.finish::<V>(from, count * width, tile, f, lanes)
                            };
                        }
                    }
                }
            }
        }
    }
    impl Task<'_> {
        /// Aᵀ M A of one tile and vector of filters, into the outputs that exist.
        #[inline(always)]
        unsafe fn finish<V: Vector>(
            &self,
            from: *const f32,
            step: usize,
            tile: usize,
            f: usize,
            lanes: usize,
        ) {
            let g = self.g;
            let [n, oy, ox] = g.place(tile);
            unsafe {
                let mut m = [[V::splat(0.0); 4]; 4];
                for place in 0..PLACES {
                    m[place / 4][place % 4] = V::load(from.add(place * step));
                }
                let y = on_both_axes(m, gather_outputs);
                let bias = match self.bias {
                    Some(bias) => V::load_partial(bias[f..f + lanes].as_ptr(), lanes),
                    None => V::splat(0.0),
                };
                for dy in 0..2.min(g.output[0] - oy) {
                    for dx in 0..2.min(g.output[1] - ox) {
                        let pixel = (n * g.output[0] + oy + dy) * g.output[1] + ox + dx;
                        let value = self.then.of(y[dy][dx].add(bias));
                        value.store_partial(self.y.at(pixel * g.filters + f), lanes);
                    }
                }
            }
        }
    }
    assert_eq!(y.len(), g.batch * g.output[0] * g.output[1] * g.filters);
    assert!(bias.is_none_or(|bias| bias.len() == g.filters));
    if y.is_empty() {
        return;
    }
    let u = transform_kernels(isa, w, g.channels, g.filters);
    let panels = g.filters.div_ceil(panel_width(isa));
    let rows = isa.tile_rows();
    let row_tiles = g.tiles().div_ceil(rows);
    let most = (V_BYTES / (4 * PLACES * rows * g.channels)).clamp(1, 8);
    let blocks = row_tiles.div_ceil(most);
    // Few tiles: cut the filters as well, so that there is work for every core. Many: tasks of even size.
    let cuts = (8 / blocks).clamp(1, panels);
    let blocks = if blocks > 4 { blocks.next_multiple_of(4).min(row_tiles) } else { blocks };
    let shared = Shared::new(y);
    threads::for_each(blocks * cuts, |task| {
        let (block, cut) = (task / cuts, task % cuts);
        let tiles =
            row_tiles * block / blocks * rows..(row_tiles * (block + 1) / blocks * rows).min(g.tiles());
        let panels = panels * cut / cuts..panels * (cut + 1) / cuts;
        dispatch(isa, Task { g, x, u: &u, bias, then, y: shared, tiles, panels });
    });
}
