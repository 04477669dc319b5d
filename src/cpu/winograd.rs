//! Winograd's F(2×2, 3×3): 3×3 convolutions of stride 1 with 2.25 times fewer multiplications.
//!
//! After Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016). A tile of 2×2 outputs
//! reads a window d of 4×4 inputs; with the kernel g,
//!
//! Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A
//!
//! has one multiplication for each of the 16 places ξ of the transformed window, where the definition has
//! 4 · 9 = 36. Summed over channels, place by place, that is 16 matrix products
//! M_ξ [tiles, F] = V_ξ [tiles, C] · U_ξ [C, F], with
//!
//! ```text
//! Bᵀ = 1  0 -1  0     G = 1   0   0      Aᵀ = 1  1  1  0
//!      0  1  1  0         ½   ½   ½           0  1 -1 -1
//!      0 -1  1  0         ½  -½   ½
//!      0  1  0 -1         0   0   1
//! ```
//!
//! The formula is bilinear in d and g, so its transpose gives the kernel's gradient for the same 16
//! multiplications a tile: ∂g = Gᵀ [Σ over tiles (A ∂Y Aᵀ) ⊙ (Bᵀ d B)] G. The pictures' gradient is the forward
//! pass with the kernel turned by 180° and its channels swapped.
//!
//! The transforms only add, subtract and halve, so rounding stays near the direct sum's (F(4×4) would
//! multiply by 5 and by ¼: its error is several times larger).
//!
//! **Blocking.** A task takes a few row tiles of the matrix product, transforms their windows once into V (at
//! most [`V_BYTES`], which stay in L2), and then goes through the filters a panel at a time: 16 products, whose
//! results (a few dozen KiB) the output transform reads right after. U streams from L3 once a task.

#![allow(clippy::needless_range_loop, reason = "rows and columns of small matrices are what is counted")]

use crate::cpu::gemm::{KC, ROW, Start, Tile, for_each_tile};
use crate::cpu::simd::{Isa, Kernel, Vector, dispatch};
use crate::cpu::threads::{self, Shared};
use crate::ops::Then;
use crate::pool::Buffer;

/// Places of a transformed window.
const PLACES: usize = 16;
/// Bytes of transformed windows a task: with a panel of results and the panels of U that pass by, inside an L2
/// cache of 1 MiB.
const V_BYTES: usize = 640 << 10;

/// A convolution with 3×3 kernels of stride 1: what it reads and where.
#[derive(Clone, Copy)]
pub struct Geometry {
    pub batch: usize,
    pub input: [usize; 2],
    pub channels: usize,
    pub output: [usize; 2],
    pub filters: usize,
    /// Rows and columns of zeros before the first pixel, at most 2.
    pub pad: [usize; 2],
}

impl Geometry {
    /// The convolution that takes ∂y to ∂x: pictures and outputs change places.
    pub fn transposed(&self) -> Self {
        Geometry {
            input: self.output,
            channels: self.filters,
            output: self.input,
            filters: self.channels,
            pad: self.pad.map(|pad| 2 - pad),
            ..*self
        }
    }

    fn grid(&self) -> [usize; 2] {
        self.output.map(|side| side.div_ceil(2))
    }

    fn tiles(&self) -> usize {
        self.batch * self.grid()[0] * self.grid()[1]
    }

    /// The picture of a tile, and its first output row and column.
    #[inline(always)]
    fn place(&self, tile: usize) -> [usize; 3] {
        let [height, width] = self.grid();
        [tile / (height * width), tile / width % height * 2, tile % width * 2]
    }
}

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

/// Applies a one-dimensional transform along x, then along y.
#[inline(always)]
fn on_both_axes<V: Vector, const I: usize, const O: usize>(
    d: [[V; I]; I],
    transform: impl Fn([V; I]) -> [V; O],
) -> [[V; O]; O] {
    // SAFETY: a value only. (Loops instead of `map`: a closure of the library's might not be inlined into
    // the instruction set of the caller.)
    let zero = unsafe { V::splat(0.0) };
    let mut rows = [[zero; O]; I];
    for y in 0..I {
        rows[y] = transform(d[y]);
    }
    let mut out = [[zero; O]; O];
    for x in 0..O {
        let mut column = [zero; I];
        for y in 0..I {
            column[y] = rows[y][x];
        }
        let column = transform(column);
        for y in 0..O {
            out[y][x] = column[y];
        }
    }
    out
}

// The one-dimensional transforms. SAFETY of all: sums of values, inside the instruction set of the caller.

/// G
#[inline(always)]
fn spread_kernel<V: Vector>([a, b, c]: [V; 3]) -> [V; 4] {
    unsafe {
        let half = V::splat(0.5);
        let (outer, b) = (a.add(c).mul(half), b.mul(half));
        [a, outer.add(b), outer.sub(b), c]
    }
}

/// Gᵀ
#[inline(always)]
fn gather_kernel<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 3] {
    unsafe {
        let half = V::splat(0.5);
        let (sum, difference) = (b.add(c).mul(half), b.sub(c).mul(half));
        [a.add(sum), difference, sum.add(d)]
    }
}

/// Bᵀ
#[inline(always)]
fn transform_window<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 4] {
    unsafe { [a.sub(c), b.add(c), c.sub(b), b.sub(d)] }
}

/// Aᵀ
#[inline(always)]
fn gather_outputs<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 2] {
    unsafe { [a.add(b).add(c), b.sub(c).sub(d)] }
}

/// A
#[inline(always)]
fn spread_outputs<V: Vector>([a, b]: [V; 2]) -> [V; 4] {
    unsafe { [a, a.add(b), a.sub(b), V::splat(0.0).sub(b)] }
}

/// Two vectors: the columns of a register tile.
fn panel_width(isa: Isa) -> usize {
    2 * isa.lanes()
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

/// Bᵀ d B of one tile's window, `V::LANES` channels at a time: `keep(ξ, channel, values, lanes)`.
#[inline(always)]
fn transform_tile<V: Vector>(
    g: &Geometry,
    x: &[f32],
    tile: usize,
    channels: std::ops::Range<usize>,
    mut keep: impl FnMut(usize, usize, V, usize),
) {
    let [n, oy, ox] = g.place(tile);
    let [height, width] = g.input;
    let (top, left) = (oy as isize - g.pad[0] as isize, ox as isize - g.pad[1] as isize);
    assert_eq!(x.len(), g.batch * height * width * g.channels);
    let picture = x[n * height * width * g.channels..].as_ptr();
    let inside = |at: isize, side: usize| at >= 0 && at + 4 <= side as isize;
    let whole = inside(top, height) && inside(left, width);
    let mut c = channels.start;
    while c < channels.end {
        let lanes = V::LANES.min(channels.end - c);
        // SAFETY: pixels are loaded where they are inside the picture, `lanes` channels from c on.
        unsafe {
            let zero = V::splat(0.0);
            let mut d = [[zero; 4]; 4];
            let pixel = |y: isize, x: isize| {
                let at = (y as usize * width + x as usize) * g.channels + c;
                picture.add(at)
            };
            if whole && lanes == V::LANES {
                for y in 0..4 {
                    for x in 0..4 {
                        d[y][x] = V::load(pixel(top + y as isize, left + x as isize));
                    }
                }
            } else {
                for y in 0..4 {
                    for x in 0..4 {
                        let (py, px) = (top + y as isize, left + x as isize);
                        if (0..height as isize).contains(&py) && (0..width as isize).contains(&px) {
                            d[y][x] = V::load_partial(pixel(py, px), lanes);
                        }
                    }
                }
            }
            let v = on_both_axes(d, transform_window);
            for place in 0..PLACES {
                keep(place, c, v[place / 4][place % 4], lanes);
            }
        }
        c += V::LANES;
    }
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
                                    runs: 1,
                                    run_step: 0,
                                    a: v[v_at(block, place, first)..].as_ptr(),
                                    k_step: 1,
                                    b,
                                    b_step: width,
                                    columns: width,
                                    start: if block == 0 { Start::Zero } else { Start::Accumulate },
                                    then: Then::Nothing,
                                    stream: false,
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
                                runs: 1,
                                run_step: 0,
                                a: self.v[(self.place * count + from) * self.step + c..].as_ptr(),
                                k_step: self.step,
                                b: b.as_ptr(),
                                b_step: width,
                                columns,
                                start,
                                then: Then::Nothing,
                                stream: false,
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
