//! The kernel's gradient.

use super::{
    Geometry, PLACES, gather_kernel, on_both_axes, panel_width, spread_outputs, transform_tile,
};
use crate::cpu::gemm::{KC, ONE_RUN, Start, Tile, for_each_tile};
use crate::cpu::simd::{Isa, Kernel, Vector, dispatch};
use crate::cpu::threads::{self, Shared};
use crate::ops::Then;
use crate::pool::Buffer;

/// Tiles of one slab of the kernel's gradient: two blocks of k a place.
const SLAB: usize = 2 * KC;

/// ∂w [3, 3, C, F], a sum over all tiles.
///
/// A slab of tiles at a time is transformed (V and Z, a few MiB: they live in L3), then each place adds
/// Vᵀ·Z to its own [C, F]. Every sum has one owner, so there are no partial sums to add up.
pub fn kernel_gradient(isa: Isa, g: &Geometry, dy: &[f32], x: &[f32], dw: &mut [f32]) {
    struct Spread<'a> {
        g: &'a Geometry,
        x: &'a [f32],
        dy: &'a [f32],
        tiles: std::ops::Range<usize>,
        /// Of the slab.
        first: usize,
        count: usize,
        step: usize,
        v: Shared<f32>,
        z: Shared<f32>,
    }
    impl Kernel for Spread<'_> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            let (g, width) = (self.g, 2 * V::LANES);
            let panels = g.filters.div_ceil(width);
            for tile in self.tiles.clone() {
                let t = tile - self.first;
                transform_tile::<V>(
                    g,
                    self.x,
                    tile,
                    0..g.channels,
                    #[inline(always)]
                    |place, c, value, lanes| {
                        let at = (place * self.count + t) * self.step + c;
                        // SAFETY: V is [ξ][tile][step], step ≥ C; this row is this task's alone.
                        unsafe { value.store_partial(self.v.at(at), lanes) }
                    },
                );
                let [n, oy, ox] = g.place(tile);
                for f in (0..panels * width).step_by(V::LANES) {
                    let lanes = g.filters.saturating_sub(f).min(V::LANES);
                    // SAFETY: outputs that exist, `lanes` filters from f on; Z is [ξ][panel][tile][width], and
                    // this tile's rows are this task's alone.
                    unsafe {
                        let mut p = [[V::splat(0.0); 2]; 2];
                        for y in 0..2.min(g.output[0] - oy) {
                            for x in 0..2.min(g.output[1] - ox) {
                                let pixel = (n * g.output[0] + oy + y) * g.output[1] + ox + x;
                                if lanes > 0 {
                                    let at = pixel * g.filters + f;
                                    p[y][x] = V::load_partial(self.dy[at..at + lanes].as_ptr(), lanes);
                                }
                            }
                        }
                        let z = on_both_axes(p, spread_outputs);
                        for place in 0..PLACES {
                            let row = (place * panels + f / width) * self.count + t;
                            z[place / 4][place % 4].store(self.z.at(row * width + f % width));
                        }
                    }
                }
            }
        }
    }
    struct Gram<'a> {
        g: &'a Geometry,
        v: &'a [f32],
        z: &'a [f32],
        step: usize,
        count: usize,
        place: usize,
        channels: std::ops::Range<usize>,
        start: Start<'a>,
        sums: Shared<f32>,
    }
    impl Kernel for Gram<'_> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            let (g, width, count) = (self.g, 2 * V::LANES, self.count);
            let panels = g.filters.div_ceil(width);
            let mut start = self.start;
            for from in (0..count).step_by(KC) {
                let steps = KC.min(count - from);
                for panel in 0..panels {
                    let b = &self.z[((self.place * panels + panel) * count + from) * width..];
                    let columns = width.min(g.filters - panel * width);
                    for_each_tile::<V>(
                        self.channels.len(),
                        #[inline(always)]
                        |first, rows| {
                            let c = self.channels.start + first;
                            let tile = Tile {
                                steps,
                                runs: ONE_RUN,
                                a: self.v[(self.place * count + from) * self.step + c..].as_ptr(),
                                row_step: 0,
                                k_step: self.step,
                                b: b.as_ptr(),
                                b_step: width,
                                columns,
                                start,
                                then: Then::Nothing,
                                stream: false,
                                ahead: self.v.as_ptr(),
                                ahead_step: 0,
                            };
                            let to = (self.place * g.channels + c) * g.filters + panel * width;
                            // SAFETY: V has `steps` rows of `step` floats, Z `steps` full panel rows; the rows of
                            // the sums are this task's alone.
                            unsafe {
                                tile.run::<V, 1>(
                                    rows,
                                    #[inline(always)]
                                    |row| self.sums.at(to + row * g.filters),
                                )
                            };
                        },
                    );
                }
                start = Start::Accumulate;
            }
        }
    }
    struct Collect<'a> {
        g: &'a Geometry,
        sums: &'a [f32],
        c: usize,
        dw: Shared<f32>,
    }
    impl Kernel for Collect<'_> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            let g = self.g;
            for f in (0..g.filters).step_by(V::LANES) {
                let lanes = V::LANES.min(g.filters - f);
                // SAFETY: `lanes` filters from f on, of channel c, in every place and tap; c is this task's alone.
                unsafe {
                    let mut s = [[V::splat(0.0); 4]; 4];
                    for place in 0..PLACES {
                        let at = (place * g.channels + self.c) * g.filters + f;
                        s[place / 4][place % 4] = V::load_partial(self.sums.as_ptr().add(at), lanes);
                    }
                    let taps = on_both_axes(s, gather_kernel);
                    for tap in 0..9 {
                        let at = (tap * g.channels + self.c) * g.filters + f;
                        taps[tap / 3][tap % 3].store_partial(self.dw.at(at), lanes);
                    }
                }
            }
        }
    }
    assert_eq!(dw.len(), 9 * g.channels * g.filters);
    assert_eq!(dy.len(), g.batch * g.output[0] * g.output[1] * g.filters);
    if dw.is_empty() {
        return;
    }
    let width = panel_width(isa);
    let panels = g.filters.div_ceil(width);
    // An odd number of cache lines from one tile's row to the next: a column of V must not fall into a few
    // sets of the cache.
    let step = (g.channels.div_ceil(16) | 1) * 16;
    let slab = SLAB.min(g.tiles());
    let mut v = Buffer::<f32>::new(PLACES * slab * step);
    let mut z = Buffer::<f32>::new(PLACES * slab * panels * width);
    let mut sums = Buffer::<f32>::filled(PLACES * g.channels * g.filters, 0.0);
    /// Rows of C a task of the sum: 16 tiles of AVX-512.
    const ROWS: usize = 224;
    let cuts = g.channels.div_ceil(ROWS);
    for first in (0..g.tiles()).step_by(SLAB) {
        let count = SLAB.min(g.tiles() - first);
        let (v_to, z_to) = (Shared::new(&mut v), Shared::new(&mut z));
        // A few dozen tiles a task.
        threads::for_each(count.div_ceil(32), |task| {
            let tiles = first + task * 32..first + count.min(task * 32 + 32);
            dispatch(isa, Spread { g, x, dy, tiles, first, count, step, v: v_to, z: z_to });
        });
        let to = Shared::new(&mut sums);
        threads::for_each(PLACES * cuts, |task| {
            let (place, cut) = (task / cuts, task % cuts);
            let channels = cut * ROWS..g.channels.min((cut + 1) * ROWS);
            let start = if first == 0 { Start::Zero } else { Start::Accumulate };
            dispatch(isa, Gram { g, v: &v, z: &z, step, count, place, channels, start, sums: to });
        });
    }
    let to = Shared::new(dw);
    threads::for_each(g.channels, |c| dispatch(isa, Collect { g, sums: &sums, c, dw: to }));
}
