//! The kernel's gradient.

use super::{
    Geometry, PLACES, Products, gather_kernel, on_both_axes, panel_width, row_step, spread_outputs,
    transform_window_of,
};
use crate::cpu::gemm::{KC, ONE_RUN, Start, Tile, for_each_tile};
use crate::cpu::simd::{Isa, Kernel, Vector, dispatch};
use crate::cpu::threads::{self, Shared};
use crate::ops::Then;
use crate::pool::Buffer;

/// Tiles of one slab of the kernel's gradient: two blocks of k a place.
const SLAB: usize = 2 * KC;

/// ∂w [k, k, C, F], a sum over all tiles.
///
/// A slab of tiles at a time is transformed (V and Z, a few MiB: they live in L3), then each product adds
/// Vᵀ·Z to its own [C, F]. Every sum has one owner, so there are no partial sums to add up.
pub fn kernel_gradient(isa: Isa, g: &Geometry, dy: &[f32], x: &[f32], dw: &mut [f32]) {
    struct Spread<'a> {
        g: &'a Geometry,
        x: &'a [f32],
        dy: &'a [f32],
        windows: std::ops::Range<usize>,
        /// Of the slab, whose V has the halo's windows, too.
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
            let rows = self.count + g.halo();
            for window in self.windows.clone() {
                let t = window - self.first;
                if window < g.windows() {
                    transform_window_of::<V>(
                        g,
                        self.x,
                        window,
                        #[inline(always)]
                        |place, c, value, lanes| {
                            let at = (place * rows + t) * self.step + c;
                            // SAFETY: V is [ξ][window][step], step ≥ C; this row is this task's alone.
                            unsafe { value.store_partial(self.v.at(at), lanes) }
                        },
                    );
                } else {
                    for place in 0..PLACES {
                        let row = (place * rows + t) * self.step;
                        // SAFETY: as above.
                        (0..g.channels).for_each(|c| unsafe { *self.v.at(row + c) = 0.0 });
                    }
                }
                if t >= self.count {
                    continue;
                }
                let place = g.place(window);
                let ([n, oy, ox], [height, width_there]) = (place, g.outputs(place));
                for f in (0..panels * width).step_by(V::LANES) {
                    let lanes = g.filters.saturating_sub(f).min(V::LANES);
                    // SAFETY: outputs that exist, `lanes` filters from f on; Z is [ξ][panel][tile][width], and
                    // this tile's rows are this task's alone.
                    unsafe {
                        let mut p = [[V::splat(0.0); 2]; 2];
                        for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                            if y < height && x < width_there && lanes > 0 {
                                let pixel = (n * g.output[0] + oy + y) * g.output[1] + ox + x;
                                let at = pixel * g.filters + f;
                                p[y][x] = V::load_partial(self.dy[at..at + lanes].as_ptr(), lanes);
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
        /// Where in V the product's first window is.
        window: usize,
        channels: std::ops::Range<usize>,
        start: Start<'a>,
        /// Where in the sums the product's begin.
        at: usize,
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
                    // The next panel, a share a tile.
                    let next = b.as_ptr().wrapping_add(count * width);
                    let ahead_step = width.div_ceil(self.channels.len().div_ceil(V::TILE_ROWS));
                    for_each_tile::<V>(
                        self.channels.len(),
                        #[inline(always)]
                        |first, rows| {
                            let c = self.channels.start + first;
                            let tile = Tile {
                                steps,
                                runs: ONE_RUN,
                                a: self.v[(self.window + from) * self.step + c..].as_ptr(),
                                row_step: 0,
                                k_step: self.step,
                                b: b.as_ptr(),
                                b_step: width,
                                columns,
                                start,
                                then: Then::Nothing,
                                stream: false,
                                ahead: next.wrapping_add(first / V::TILE_ROWS * ahead_step * steps),
                                ahead_step,
                            };
                            let to = self.at + c * g.filters + panel * width;
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
        products: &'a Products,
        sums: &'a [f32],
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
                // SAFETY: `lanes` filters from f on, of channel c, in every product and tap; c is this task's alone.
                unsafe {
                    let mut s = [[V::splat(0.0); 4]; 4];
                    for place in 0..PLACES {
                        for product in products.of(place) {
                            if products.pieces[product] == [py, px] {
                                let at = (product * g.channels + self.c) * g.filters + f;
                                s[place / 4][place % 4] = V::load_partial(self.sums.as_ptr().add(at), lanes);
                            }
                        }
                    }
                    let taps = on_both_axes(s, gather_kernel);
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
    assert_eq!(dw.len(), g.kernel * g.kernel * g.channels * g.filters);
    assert_eq!(dy.len(), g.batch * g.output[0] * g.output[1] * g.filters);
    if dw.is_empty() {
        return;
    }
    let width = panel_width(isa);
    let panels = g.filters.div_ceil(width);
    let products = Products::new(g);
    let (step, size) = (row_step(g.channels), g.channels * g.filters);
    let slab = SLAB.min(g.windows());
    let mut v = Buffer::<f32>::new(PLACES * (slab + g.halo()) * step);
    let mut z = Buffer::<f32>::new(PLACES * slab * panels * width);
    let mut sums = Buffer::<f32>::new(products.count() * size);
    /// Rows of C a task of the sum: 16 tiles of AVX-512.
    const ROWS: usize = 224;
    let cuts = g.channels.div_ceil(ROWS);
    for first in (0..g.windows()).step_by(SLAB) {
        let count = SLAB.min(g.windows() - first);
        let rows = count + g.halo();
        let (v_to, z_to) = (Shared::new(&mut v), Shared::new(&mut z));
        // A few dozen windows a task.
        threads::for_each(rows.div_ceil(32), |task| {
            let windows = first + task * 32..first + rows.min(task * 32 + 32);
            dispatch(isa, Spread { g, x, dy, windows, first, count, step, v: v_to, z: z_to });
        });
        let to = Shared::new(&mut sums);
        threads::for_each(products.count() * cuts, |task| {
            let (product, cut) = (task / cuts, task % cuts);
            let place = (0..PLACES).find(|&place| products.of(place).contains(&product)).unwrap_or(0);
            let window = place * rows + products.windows[product];
            let channels = cut * ROWS..g.channels.min((cut + 1) * ROWS);
            let start = if first == 0 { Start::Zero } else { Start::Accumulate };
            let (v, z, at) = (&v, &z, product * size);
            dispatch(isa, Gram { g, v, z, step, count, place, window, channels, start, at, sums: to });
        });
    }
    let to = Shared::new(dw);
    threads::for_each(g.channels, |c| {
        dispatch(isa, Collect { g, products: &products, sums: &sums, c, dw: to });
    });
}
