//! Winograd's F(2×2, 3×3): 3×3 convolutions of stride 1 with 2.25 times fewer multiplications, 5×5 ones with
//! 2.04. And F(4×4, 3×3), with 4 times fewer and a larger error, for those who ask for it.
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
//! multiplications a tile: ∂g = Gᵀ [Σ over tiles (A ∂Y Aᵀ) ⊙ (Bᵀ d B)] G. The images' gradient is the forward
//! pass with the kernel turned by 180° and its channels swapped.
//!
//! **5×5 kernels** are cut into pieces of three taps on each axis, 0 1 2 and (2) 3 4, where the second one's first tap is
//! zero. The second piece reads the window two pixels on, which is the next tile's: so every window is
//! transformed once and meets up to four pieces. A zero first tap makes the second piece's first place zero,
//! so there are 7 · 7 = 49 products a tile instead of 100.
//!
//! The transforms only add, subtract and halve, so rounding stays near the direct sum's.
//!
//! **F(4×4, 3×3)** is taken where [`crate::context::fast_math()`] says so and it pays. A tile of 4×4 outputs reads a window of
//! 6×6, and 36 multiplications do for the 16 · 9 = 144 of the definition. The same formula holds with longer
//! matrices. They interpolate a product of polynomials at points: at 0, ±1 and ∞ for F(2×2), at two more for
//! F(4×4), where Lavin and Gray take 0, ±1, ±2 and ∞. Here all points are multiplied by √½, which makes them
//! 0, ±p, ±q and ∞ with p = √½ and q = √2:
//!
//! ```text
//! Bᵀ = 1   0 -5/2   0   1  0    G =   1     0    0     Aᵀ = 1   1    1  1   1  0
//!      0 -2p  -2    p   1  0        -2/3 -2p/3 -1/3         0   p   -p  q  -q  0
//!      0  2p  -2   -p   1  0        -2/3  2p/3 -1/3         0   ½    ½  2   2  0
//!      0 -q/2 -½    q   1  0         1/6   q/6  1/3         0 p/2 -p/2 2q -2q  1
//!      0  q/2 -½   -q   1  0         1/6  -q/6  1/3
//!      0   1   0 -5/2   0  1          0    0    1
//! ```
//!
//! What is lost is lost in Aᵀ, which adds large products to small sums: its numbers are up to 8 at their
//! points, 2√2 at ours, whose powers lie about 1 on both sides. The rms error of a result is about half that
//! of their points, and 3.0 to 3.2 times that of F(2×2) (64 to 512 channels; `tests.rs` measures both). The
//! kernel's gradient stays with tiles of 2×2, and so do 5×5 kernels, whose second piece reads the window two
//! pixels on.
//!
//! **Blocking.** A task takes a few row tiles of the matrix product, transforms their windows once into V (which
//! stays in L2), and then goes through the filters a panel at a time: 16 products, whose results (a few
//! dozen KiB) the output transform reads right after. U streams from L3 once a task, brought near one
//! product ahead.

#![allow(clippy::needless_range_loop, reason = "rows and columns of small matrices are what is counted")]

mod convolve;
mod kernel_gradient;
#[cfg(test)]
mod tests;
mod transforms;

pub use convolve::{Finish, convolve, transform_kernels, turned};
pub use kernel_gradient::kernel_gradient;

use crate::backend::cpu::elements;
use crate::backend::cpu::simd::{Isa, Vector};
use transforms::{F2, Transforms, on_both_axes};

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
    /// Side of a tile of outputs: 2, or of 3×3 kernels 4.
    pub tile: usize,
}

impl Geometry {
    /// The convolution that takes ∂y to ∂x: images and outputs change places.
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

    /// The same with tiles of 4×4 outputs, where they take less time.
    ///
    /// A tile that hangs over the edge costs as much as a whole one: 14×14 outputs take tiles for 16×16, and
    /// neither size is faster. And there must be tiles enough for U, which has 36 numbers where tiles of 2×2
    /// have 16 and is made anew for most calls. On two cores with AVX-512, U included, 49 tiles took 1.03
    /// times less time of 256 channels and filters, 1.26 of 64, and more time of 512 (where U, 38 MB, is in
    /// no cache near); 196 took 1.26 to 1.6 times less of 64 to 256, and as much of 512 (beside other work,
    /// which makes the last digit uncertain).
    pub fn with_large_tiles(self) -> Self {
        let large = Geometry { tile: 4, ..self };
        let (tiles, outputs) = (large.windows(), self.batch * self.output[0] * self.output[1]);
        let enough = tiles >= 48.max(self.channels * self.filters / 2048);
        if self.kernel == 3 && enough && 5 * outputs >= 4 * 16 * tiles { large } else { self }
    }

    /// Pieces of a kernel on each axis.
    fn pieces(&self) -> usize {
        (self.kernel - 1) / 2
    }

    /// Side of a window.
    fn window(&self) -> usize {
        self.tile + 2
    }

    /// Windows on each axis: one a tile, and one more for each more piece.
    fn grid(&self) -> [usize; 2] {
        self.output.map(|side| side.div_ceil(self.tile) + self.pieces() - 1)
    }

    fn windows(&self) -> usize {
        self.batch * self.grid()[0] * self.grid()[1]
    }

    /// Windows after a tile's own that it may read.
    fn halo(&self) -> usize {
        (self.pieces() - 1) * (self.grid()[1] + 1)
    }

    /// The image of a window, and the first output row and column of its tile (which may lie past the last
    /// output: the tile is none then).
    #[inline(always)]
    fn place(&self, window: usize) -> [usize; 3] {
        let [height, width] = self.grid();
        [window / (height * width), window / width % height * self.tile, window % width * self.tile]
    }

    /// Outputs of a tile that exist, from its first row and column on.
    #[inline(always)]
    fn outputs(&self, [_, oy, ox]: [usize; 3]) -> [usize; 2] {
        let left = |axis: usize, at: usize| self.tile.min(self.output[axis].saturating_sub(at));
        [left(0, oy), left(1, ox)]
    }
}

/// The products of each place: which piece of the kernel with which window.
struct Products {
    /// [y, x] of the pieces, place after place.
    pieces: Vec<[usize; 2]>,
    /// How many windows after a tile's own the one lies that a piece meets.
    windows: Vec<usize>,
    /// Of place ξ those from `first[ξ]` to `first[ξ + 1]`.
    first: Vec<usize>,
}

impl Products {
    fn new(g: &Geometry) -> Self {
        assert!(g.tile == 2 || (g.tile, g.kernel) == (4, 3));
        let (mut pieces, mut windows, mut first) = (Vec::new(), Vec::new(), vec![0]);
        for place in 0..g.window() * g.window() {
            for [y, x] in (0..g.pieces()).flat_map(|y| (0..g.pieces()).map(move |x| [y, x])) {
                // G's first row sees a piece's first tap only, which of a second piece is zero.
                if (y == 0 || place / g.window() > 0) && (x == 0 || place % g.window() > 0) {
                    pieces.push([y, x]);
                    windows.push(y * g.grid()[1] + x);
                }
            }
            first.push(pieces.len());
        }
        Products { pieces, windows, first }
    }

    fn count(&self) -> usize {
        self.pieces.len()
    }

    /// Places of a transformed window.
    fn places(&self) -> usize {
        self.first.len() - 1
    }

    #[inline(always)]
    fn of(&self, place: usize) -> std::ops::Range<usize> {
        self.first[place]..self.first[place + 1]
    }
}

/// Floats from one window's row of V to the next: an odd number of cache lines, so that a tile's rows, or a
/// column of V, do not fall into a few sets of the cache.
fn row_step(channels: usize) -> usize {
    (channels.div_ceil(16) | 1) * 16
}

/// Two vectors: the columns of a register tile.
fn panel_width(isa: Isa) -> usize {
    2 * isa.lanes()
}

/// The images' windows, to be transformed.
#[derive(Clone, Copy)]
struct Windows<'a> {
    g: &'a Geometry,
    x: &'a [f32],
}

impl<'a> Windows<'a> {
    fn new(g: &'a Geometry, x: &'a [f32]) -> Self {
        assert_eq!(x.len(), elements(&[g.batch, g.input[0], g.input[1], g.channels]));
        Windows { g, x }
    }

    /// Rows of a window from channel c on, `lanes` channels, zero outside the image.
    #[inline(always)]
    fn rows<V: Vector, const W: usize, const ROWS: usize>(
        &self,
        window: usize,
        rows: [usize; ROWS],
        c: usize,
        lanes: usize,
    ) -> [[V; W]; ROWS] {
        let g = self.g;
        let [n, oy, ox] = g.place(window);
        let [height, width] = g.input;
        let (top, left) = (oy as isize - g.pad[0] as isize, ox as isize - g.pad[1] as isize);
        let inside = |at: isize, side: usize| at >= 0 && at + W as isize <= side as isize;
        assert!(n < g.batch && c + lanes <= g.channels);
        // SAFETY: pixels are loaded where they are inside the image, `lanes` channels from c on.
        unsafe {
            let image = self.x.as_ptr().add(n * height * width * g.channels);
            let pixel =
                |y: isize, x: isize| image.add((y as usize * width + x as usize) * g.channels + c);
            let mut d = [[V::splat(0.0); W]; ROWS];
            if inside(top, height) && inside(left, width) && lanes == V::LANES {
                for y in 0..ROWS {
                    for x in 0..W {
                        d[y][x] = V::load(pixel(top + rows[y] as isize, left + x as isize));
                    }
                }
            } else {
                for y in 0..ROWS {
                    for x in 0..W {
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
    fn transform<V: Vector, F: Transforms<W, O>, const W: usize, const O: usize>(
        &self,
        method: F,
        window: usize,
        mut keep: impl FnMut(usize, usize, V, usize),
    ) {
        let rows = std::array::from_fn(|row| row);
        for c in (0..self.g.channels).step_by(V::LANES) {
            let lanes = V::LANES.min(self.g.channels - c);
            let v = on_both_axes(
                self.rows::<V, W, W>(window, rows, c, lanes),
                #[inline(always)]
                |d| method.window(d),
            );
            for place in 0..W * W {
                keep(place, c, v[place / W][place % W], lanes);
            }
        }
    }

    /// Row i of F(2×2)'s Bᵀ d B, of which it takes two rows of the window.
    #[inline(always)]
    fn transform_row<V: Vector>(&self, window: usize, i: usize, c: usize, lanes: usize) -> [V; 4] {
        let [a, b] = self.rows::<V, 4, 2>(window, [[0, 2], [1, 2], [2, 1], [1, 3]][i], c, lanes);
        // SAFETY: sums of values, inside the instruction set of the caller.
        unsafe {
            let mut row = [V::splat(0.0); 4];
            for x in 0..4 {
                row[x] = if i == 1 { a[x].add(b[x]) } else { a[x].sub(b[x]) };
            }
            F2.window(row)
        }
    }
}
