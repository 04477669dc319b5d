//! Winograd's F(2×2, 3×3): 3×3 convolutions of stride 1 with 2.25 times fewer multiplications, 5×5 ones with 2.04.
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
//! **5×5 kernels** are cut into pieces of three taps on each axis, 0 1 2 and (2) 3 4, where the second one's first tap is
//! zero. The second piece reads the window two pixels on, which is the next tile's: so every window is transformed once
//! and meets up to four pieces. A zero first tap makes the second piece's first place zero, so there are 7 · 7 = 49
//! products a tile instead of 100.
//!
//! The transforms only add, subtract and halve, so rounding stays near the direct sum's (F(4×4) would
//! multiply by 5 and by ¼: its error is several times larger).
//!
//! **Blocking.** A task takes a few row tiles of the matrix product, transforms their windows once into V (which
//! stays in L2), and then goes through the filters a panel at a time: 16 products, whose results (a few dozen KiB) the
//! output transform reads right after. U streams from L3 once a task, brought near one product ahead.

#![allow(clippy::needless_range_loop, reason = "rows and columns of small matrices are what is counted")]

mod convolve;
mod kernel_gradient;

pub use convolve::{Finish, convolve, transform_kernels, turned};
pub use kernel_gradient::kernel_gradient;

use crate::cpu::simd::{Isa, Vector};

/// Places of a transformed window.
const PLACES: usize = 16;

/// A convolution of stride 1 with 3×3 or 5×5 kernels: what it reads and where.
#[derive(Clone, Copy)]
pub struct Geometry {
    pub batch: usize,
    pub input: [usize; 2],
    pub channels: usize,
    pub output: [usize; 2],
    pub filters: usize,
    /// Side of the kernel: 3 or 5.
    pub kernel: usize,
    /// Rows and columns of zeros before the first pixel, fewer than the kernel has.
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
            pad: self.pad.map(|pad| self.kernel - 1 - pad),
            ..*self
        }
    }

    /// Pieces of a kernel on each axis.
    fn pieces(&self) -> usize {
        (self.kernel - 1) / 2
    }

    /// Windows on each axis: one a tile, and one more for each more piece.
    fn grid(&self) -> [usize; 2] {
        self.output.map(|side| side.div_ceil(2) + self.pieces() - 1)
    }

    fn windows(&self) -> usize {
        self.batch * self.grid()[0] * self.grid()[1]
    }

    /// Windows after a tile's own that it may read.
    fn halo(&self) -> usize {
        (self.pieces() - 1) * (self.grid()[1] + 1)
    }

    /// The picture of a window, and the first output row and column of its tile (which may lie past the last
    /// output: the tile is none then).
    #[inline(always)]
    fn place(&self, window: usize) -> [usize; 3] {
        let [height, width] = self.grid();
        [window / (height * width), window / width % height * 2, window % width * 2]
    }

    /// Outputs of a tile that exist, from its first row and column on.
    #[inline(always)]
    fn outputs(&self, [_, oy, ox]: [usize; 3]) -> [usize; 2] {
        [2.min(self.output[0].saturating_sub(oy)), 2.min(self.output[1].saturating_sub(ox))]
    }
}

/// The products of each place: which piece of the kernel with which window.
struct Products {
    /// [y, x] of the pieces, place after place.
    pieces: Vec<[usize; 2]>,
    /// How many windows after a tile's own the one lies that a piece meets.
    windows: Vec<usize>,
    /// Of place ξ those from `first[ξ]` to `first[ξ + 1]`.
    first: [usize; PLACES + 1],
}

impl Products {
    fn new(g: &Geometry) -> Self {
        let (mut pieces, mut windows, mut first) = (Vec::new(), Vec::new(), [0; PLACES + 1]);
        for place in 0..PLACES {
            for [y, x] in (0..g.pieces()).flat_map(|y| (0..g.pieces()).map(move |x| [y, x])) {
                // G's first row sees a piece's first tap only, which of a second piece is zero.
                if (y == 0 || place / 4 > 0) && (x == 0 || place % 4 > 0) {
                    pieces.push([y, x]);
                    windows.push(y * g.grid()[1] + x);
                }
            }
            first[place + 1] = pieces.len();
        }
        Products { pieces, windows, first }
    }

    fn count(&self) -> usize {
        self.pieces.len()
    }

    #[inline(always)]
    fn of(&self, place: usize) -> std::ops::Range<usize> {
        self.first[place]..self.first[place + 1]
    }
}

/// Floats from one window's row of V to the next: an odd number of cache lines, so that a tile's rows, or a column of
/// V, do not fall into a few sets of the cache.
fn row_step(channels: usize) -> usize {
    (channels.div_ceil(16) | 1) * 16
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

/// The pictures' windows, to be transformed.
#[derive(Clone, Copy)]
struct Windows<'a> {
    g: &'a Geometry,
    x: &'a [f32],
}

impl<'a> Windows<'a> {
    fn new(g: &'a Geometry, x: &'a [f32]) -> Self {
        assert_eq!(x.len(), g.batch * g.input[0] * g.input[1] * g.channels);
        Windows { g, x }
    }

    /// Rows of a window from channel c on, `lanes` channels, zero outside the picture.
    #[inline(always)]
    fn rows<V: Vector, const ROWS: usize>(
        &self,
        window: usize,
        rows: [usize; ROWS],
        c: usize,
        lanes: usize,
    ) -> [[V; 4]; ROWS] {
        let g = self.g;
        let [n, oy, ox] = g.place(window);
        let [height, width] = g.input;
        let (top, left) = (oy as isize - g.pad[0] as isize, ox as isize - g.pad[1] as isize);
        let inside = |at: isize, side: usize| at >= 0 && at + 4 <= side as isize;
        assert!(n < g.batch && c + lanes <= g.channels);
        // SAFETY: pixels are loaded where they are inside the picture, `lanes` channels from c on.
        unsafe {
            let picture = self.x.as_ptr().add(n * height * width * g.channels);
            let pixel =
                |y: isize, x: isize| picture.add((y as usize * width + x as usize) * g.channels + c);
            let mut d = [[V::splat(0.0); 4]; ROWS];
            if inside(top, height) && inside(left, width) && lanes == V::LANES {
                for y in 0..ROWS {
                    for x in 0..4 {
                        d[y][x] = V::load(pixel(top + rows[y] as isize, left + x as isize));
                    }
                }
            } else {
                for y in 0..ROWS {
                    for x in 0..4 {
                        let (py, px) = (top + rows[y] as isize, left + x as isize);
                        if (0..height as isize).contains(&py) && (0..width as isize).contains(&px) {
                            d[y][x] = V::load_partial(pixel(py, px), lanes);
                        }
                    }
                }
            }
            d
        }
    }

    /// Bᵀ d B of one window, `V::LANES` channels at a time: `keep(ξ, channel, values, lanes)`.
    #[inline(always)]
    fn transform<V: Vector>(&self, window: usize, mut keep: impl FnMut(usize, usize, V, usize)) {
        for c in (0..self.g.channels).step_by(V::LANES) {
            let lanes = V::LANES.min(self.g.channels - c);
            let v = on_both_axes(self.rows::<V, 4>(window, [0, 1, 2, 3], c, lanes), transform_window);
            for place in 0..PLACES {
                keep(place, c, v[place / 4][place % 4], lanes);
            }
        }
    }

    /// Row i of Bᵀ d B, of which it takes two rows of the window.
    #[inline(always)]
    fn transform_row<V: Vector>(&self, window: usize, i: usize, c: usize, lanes: usize) -> [V; 4] {
        let [a, b] = self.rows::<V, 2>(window, [[0, 2], [1, 2], [2, 1], [1, 3]][i], c, lanes);
        // SAFETY: sums of values, inside the instruction set of the caller.
        unsafe {
            let mut row = [V::splat(0.0); 4];
            for x in 0..4 {
                row[x] = if i == 1 { a[x].add(b[x]) } else { a[x].sub(b[x]) };
            }
            transform_window(row)
        }
    }
}
