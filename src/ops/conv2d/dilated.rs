//! Convolutions whose dilation pushes many taps into the padding (DeepLab's 14×14 map with dilation 6, 12 or
//! 18).
//!
//! A tap sees pixels for a rectangle of outputs: of 14 outputs with dilation 6, tap 0 for the last eight,
//! tap 1 for all, tap 2 for the first eight. Each tap adds the product of its pixels, which are read where
//! they lie, with its matrix to that rectangle; nobody multiplies by padding, and taps that see none are not
//! even packed. The kernel's gradient sums for each tap over the same rectangle.
//!
//! A task has a panel of filters, so that each weight is brought to a core once, which brings it into order
//! itself unless that is kept; the outputs that it adds to again and again stay in L2 beside the pixels.

use super::Conv2dGeometry;
use super::cpu::patches;
use crate::activation::Activation;
use crate::backend::cpu::gemm::{
    ANY, B_PACKED, BOperand, Init, KC, MicroKernel, ONE_RUN, PackedB, Panel, Patches, for_each_tile_of,
    gemm_tn,
};
use crate::backend::cpu::simd::{Isa, Kernel, Vector, dispatch};
use crate::backend::cpu::threads::{self, Shared};
use crate::pool::Buffer;
use std::ops::Range;

/// The convolution that takes ∂y to ∂x, of stride 1.
pub fn transposed(g: &Conv2dGeometry) -> Conv2dGeometry {
    let pad = [0, 1].map(|axis| (g.dilation[axis] * (g.kernel[axis] - 1)).saturating_sub(g.pad[axis]));
    Conv2dGeometry {
        input: g.output,
        in_channels: g.out_channels,
        output: g.input,
        out_channels: g.in_channels,
        pad,
        ..*g
    }
}

/// Where each tap's matrix begins in the kernel.
pub fn offsets(g: &Conv2dGeometry) -> Vec<usize> {
    (0..g.kernel[0] * g.kernel[1]).map(|tap| tap * g.in_channels * g.out_channels).collect()
}

pub struct Sparse<'a> {
    g: &'a Conv2dGeometry,
    /// For each axis and tap, the outputs that see a pixel through it.
    seen: [Vec<Range<usize>>; 2],
}

impl<'a> Sparse<'a> {
    /// Of a convolution of stride 1, whose padding is no more than its windows reach.
    pub fn new(g: &'a Conv2dGeometry) -> Self {
        assert!(Self::fits(g));
        Sparse { g, seen: [0, 1].map(|axis| seen(g, axis)) }
    }

    fn fits(g: &Conv2dGeometry) -> bool {
        g.stride == [1, 1] && (0..2).all(|axis| g.pad[axis] <= g.dilation[axis] * (g.kernel[axis] - 1))
    }

    /// Whether it saves more than a quarter of the products. Not where nearly all taps see pixels, nor where
    /// there are too few channels for a product a tap to be efficient.
    pub fn pays(g: &Conv2dGeometry) -> bool {
        if g.dilation == [1, 1] || g.in_channels < 16 || !Self::fits(g) {
            return false;
        }
        let [seen, all] = Self::places(g);
        4 * seen <= 3 * all
    }

    /// In how many places of an image's outputs a tap sees a pixel, of how many.
    pub fn places(g: &Conv2dGeometry) -> [usize; 2] {
        let along = |axis| seen(g, axis).iter().map(Range::len).sum::<usize>();
        [along(0) * along(1), g.kernel[0] * g.kernel[1] * g.output[0] * g.output[1]]
    }

    /// The taps that see pixels at all.
    fn taps(&self) -> Vec<usize> {
        let sees = |axis: usize, k: usize| !self.seen[axis][k].is_empty();
        let width = self.g.kernel[1];
        (0..self.g.kernel[0] * width)
            .filter(|tap| sees(0, tap / width) && sees(1, tap % width))
            .collect()
    }

    /// What it needs of a kernel, in panels, to be kept; `right` has a matrix for each tap.
    pub fn pack(&self, isa: Isa, right: &BOperand) -> PerTap {
        let taps = self.taps();
        PerTap { packed: PackedB::per_tap(isa, &only(&taps, right)), taps }
    }

    /// Whether that is what was packed: it may have been for images of another size.
    pub fn holds(&self, kernel: &PerTap) -> bool {
        kernel.taps == self.taps()
    }

    /// y = x * the kernel + b, then the activation.
    pub fn convolve(
        &self,
        isa: Isa,
        x: &[f32],
        kernel: TapMatrices,
        b: Option<&[f32]>,
        activation: Activation,
        y: &mut [f32],
    ) {
        /// Tasks there should be, for a few cores.
        const TASKS: usize = 8;
        let g = self.g;
        let pixels = |size: [usize; 2]| g.batch * size[0] * size[1];
        assert_eq!(
            (x.len(), y.len()),
            (pixels(g.input) * g.in_channels, pixels(g.output) * g.out_channels)
        );
        if y.is_empty() {
            return;
        }
        let taps = &self.taps();
        let right = &only(taps, kernel.right);
        let (kept, blocks) = (kernel.kept.map(|kept| &kept.packed), &right.per_tap());
        let panels = g.out_channels.div_ceil(2 * isa.lanes());
        let parts = TASKS.div_ceil(panels).min(g.batch);
        let out = Shared::new(y);
        threads::for_each(panels * parts, |task| {
            let (panel, part) = (task / parts, task % parts);
            let images = g.batch * part / parts..g.batch * (part + 1) / parts;
            let sparse = self;
            dispatch(
                isa,
                Task { sparse, x, taps, right, blocks, kept, panel, images, b, activation, out },
            );
        });
    }

    pub fn kernel_gradient(&self, isa: Isa, dy: &[f32], x: &[f32], dw: &mut [f32]) {
        let g = self.g;
        let size = g.in_channels * g.out_channels;
        threads::for_each_chunk(dw, size.max(1), |tap, dw| {
            let at = [tap / g.kernel[1], tap % g.kernel[1]];
            let seen = [0, 1].map(|axis| self.seen[axis][at[axis]].clone());
            let rows = Patches {
                grid: [seen[0].len(), seen[1].len()],
                origin: [0, 1].map(|axis| {
                    (seen[axis].start + at[axis] * g.dilation[axis]) as isize - g.pad[axis] as isize
                }),
                taps: [1, 1],
                tap_step: [1, 1],
                ..patches(g, x)
            };
            gemm_tn(isa, &rows, &self.cut(dy, &seen), g.out_channels, dw);
        });
    }

    /// A rectangle copied out of the output's gradient.
    fn cut(&self, dy: &[f32], [rows, columns]: &[Range<usize>; 2]) -> Buffer<f32> {
        let (g, f) = (self.g, self.g.out_channels);
        let run = columns.len() * f;
        let mut out = Buffer::<f32>::new(g.batch * rows.len() * run);
        for (row, out) in out.chunks_mut(run.max(1)).enumerate() {
            let y = rows.start + row % rows.len();
            let from = ((row / rows.len() * g.output[0] + y) * g.output[1] + columns.start) * f;
            out.copy_from_slice(&dy[from..from + run]);
        }
        out
    }
}

/// A kernel: a matrix for each tap, and what [`Sparse::pack`] made of them, where it did.
pub struct TapMatrices<'a> {
    pub right: &'a BOperand<'a>,
    pub kept: Option<&'a PerTap>,
}

/// A kernel in panels, as far as it sees pixels.
pub struct PerTap {
    packed: PackedB,
    /// Whose matrices these are.
    taps: Vec<usize>,
}

/// The matrices of these taps.
fn only<'a>(taps: &[usize], right: &BOperand<'a>) -> BOperand<'a> {
    BOperand { taps: taps.iter().map(|&tap| right.taps[tap]).collect(), ..*right }
}

/// For each tap of an axis, the outputs for which it lies inside the image.
fn seen(g: &Conv2dGeometry, axis: usize) -> Vec<Range<usize>> {
    let outputs = |k: usize| {
        let reach = k * g.dilation[axis];
        let first = g.pad[axis].saturating_sub(reach);
        let end = (g.input[axis] + g.pad[axis]).saturating_sub(reach).min(g.output[axis]);
        first.min(end)..end
    };
    (0..g.kernel[axis]).map(outputs).collect()
}

/// A panel of filters of some images.
struct Task<'a> {
    sparse: &'a Sparse<'a>,
    x: &'a [f32],
    /// Those that see pixels; their matrices, and these cut into blocks, as many for each; all panels, where
    /// they are kept.
    taps: &'a [usize],
    right: &'a BOperand<'a>,
    blocks: &'a [Range<usize>],
    kept: Option<&'a PackedB>,
    panel: usize,
    images: Range<usize>,
    b: Option<&'a [f32]>,
    activation: Activation,
    out: Shared<f32>,
}

impl Kernel for Task<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (g, right, width) = (self.sparse.g, self.right, 2 * V::LANES);
        let column = self.panel * width;
        let columns = width.min(g.out_channels - column);
        let pixel = |n: usize, size: [usize; 2], y: usize, x: usize| (n * size[0] + y) * size[1] + x;
        let (from, to) = (self.images.start, self.images.end);
        let outputs = pixel(from, g.output, 0, 0)..pixel(to, g.output, 0, 0);
        // SAFETY: these columns of these images are this task's alone.
        let row = |i: usize| unsafe {
            std::slice::from_raw_parts_mut(self.out.at(i * g.out_channels + column), columns)
        };
        for i in outputs.clone() {
            match self.b {
                Some(b) => row(i).copy_from_slice(&b[column..column + columns]),
                None => row(i).fill(0.0),
            }
        }
        let mut packed = Buffer::<f32>::new(if self.kept.is_some() { 0 } else { KC / 2 * width });
        let blocks = self.blocks.len() / self.taps.len().max(1);
        for (at, &tap) in self.taps.iter().enumerate() {
            let (ky, kx) = (tap / g.kernel[1], tap % g.kernel[1]);
            let [rows, columns_seen] = [0, 1].map(|axis| self.sparse.seen[axis][[ky, kx][axis]].clone());
            let down = turns(rows.len(), columns_seen.len(), V::MR);
            // Lines of outputs, along x or down y; from one output of a line to the next there are so many
            // pixels.
            let (lines, line) = if down { (columns_seen, rows) } else { (rows, columns_seen) };
            let step = |width: usize| if down { width } else { 1 };
            let most = if down { V::MR.div_ceil(2) } else { V::MR };
            let mut channel = 0;
            for block in at * blocks..(at + 1) * blocks {
                let Range { start, end } = self.blocks[block];
                let steps = end - start;
                let b = match self.kept {
                    Some(kept) => kept.panel(block, self.panel),
                    None => {
                        let out = &mut packed[..steps * width];
                        Panel { right, first: start, column, width, out }.run::<V>();
                        &packed[..]
                    }
                };
                for (n, across) in self.images.clone().flat_map(|n| lines.clone().map(move |i| (n, i))) {
                    for_each_tile_of(
                        most,
                        line.len(),
                        #[inline(always)]
                        |first: usize, count: usize| {
                            let first = line.start + first;
                            let (oy, ox) = if down { (first, across) } else { (across, first) };
                            let iy = oy + ky * g.dilation[0] - g.pad[0];
                            let ix = ox + kx * g.dilation[1] - g.pad[1];
                            let from = pixel(n, g.input, iy, ix) * g.in_channels + channel;
                            let tile = MicroKernel {
                                steps,
                                runs: ONE_RUN,
                                a: self.x[from..].as_ptr(),
                                row_step: step(g.input[1]) * g.in_channels,
                                k_step: 1,
                                b: b.as_ptr(),
                                b_step: 0,
                                columns,
                                start: Init::Accumulate,
                                activation: Activation::Linear,
                                non_temporal: false,
                                // The pixels of the next row.
                                ahead: self.x.as_ptr().wrapping_add(from + g.input[1] * g.in_channels),
                                ahead_step: 16,
                            };
                            let to = pixel(n, g.output, oy, ox) * g.out_channels + column;
                            let to_step = step(g.output[1]) * g.out_channels;
                            // SAFETY: `count` pixels of this line lie in the image, from `channel` on at
                            // least `steps` channels each; the panel has as many rows of full width; the
                            // outputs are this task's alone.
                            unsafe {
                                tile.run::<V, ANY, B_PACKED>(
                                    count,
                                    #[inline(always)]
                                    |r| self.out.at(to + r * to_step),
                                )
                            };
                        },
                    );
                }
                channel += steps;
            }
        }
        if self.activation != Activation::Linear {
            // SAFETY: the vectors are those this kernel was dispatched with.
            outputs.for_each(|i| unsafe { self.activation.in_place_lanes::<V>(row(i)) });
        }
    }
}

/// Whether a rectangle of outputs goes by lines down y: where that takes fewer steps. A tile of two outputs
/// waits for its own sums as long as one of four computes. (Pixels above each other are a power of two apart
/// at times, and all in the same places of a cache of 8 or 12 ways: half as many of them a tile.)
fn turns(rows: usize, columns: usize, most: usize) -> bool {
    let steps = |lines: usize, line: usize, most: usize| {
        let tiles = line.div_ceil(most).max(1);
        lines * tiles * line.div_ceil(tiles).max(4)
    };
    steps(columns, rows, most.div_ceil(2)) < steps(rows, columns, most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::supported;
    use crate::ops::{Conv2dOptions, Padding};

    #[test]
    fn a_tap_sees_a_rectangle_of_outputs() {
        let atrous = |dilation| {
            let options =
                Conv2dOptions { padding: Padding::Same, dilation: [dilation; 2], ..Default::default() };
            Conv2dGeometry::new([1, 14, 14, 16].into(), [3, 3, 16, 16].into(), options).unwrap()
        };
        assert_eq!(seen(&atrous(6), 0), [6..14, 0..14, 0..8]);
        assert_eq!(seen(&atrous(18), 1), [14..14, 0..14, 0..0]);
        assert!(!Sparse::pays(&atrous(1)) && Sparse::pays(&transposed(&atrous(6))));
        // Of dilation 18 the middle alone is left, of 12 the corners are small.
        let weights = vec![0.0; 9 * 256];
        for (dilation, taps) in [(18, vec![4]), (12, (0..9).collect())] {
            let g = atrous(dilation);
            let right =
                BOperand { taps: offsets(&g), inner: 16, ..BOperand::matrix(&weights, 9 * 16, 16) };
            let (sparse, other) = (Sparse::new(&g), atrous(30 - dilation));
            let packed = sparse.pack(Isa::Portable, &right);
            assert_eq!(packed.taps, taps);
            assert!(sparse.holds(&packed) && !Sparse::new(&other).holds(&packed));
        }
        assert!(turns(14, 2, 14) && !turns(14, 8, 14) && !turns(2, 14, 14) && !turns(14, 14, 14));
    }

    /// The panels of a kernel that is kept, and those that a task makes for itself: of 40 filters there is a
    /// half panel, of 150 channels a block that no vector ends.
    #[test]
    fn panels_that_are_kept_and_panels_made_on_the_way_give_the_same_bits() {
        let options = Conv2dOptions { padding: Padding::Same, dilation: [5; 2], ..Default::default() };
        let g = Conv2dGeometry::new([2, 9, 8, 150].into(), [3, 3, 150, 40].into(), options).unwrap();
        let numbers = |n: usize| (0..n).map(|i| (i * i % 29) as f32 - 14.0).collect::<Vec<f32>>();
        let (x, w) = (numbers(2 * 9 * 8 * 150), numbers(9 * 150 * 40));
        let sparse = Sparse::new(&g);
        let plain = BOperand { taps: offsets(&g), inner: 150, ..BOperand::matrix(&w, 9 * 150, 40) };
        // The same numbers as [tap, filter, channel].
        let turned: Vec<f32> =
            (0..w.len()).map(|i| w[i / 6000 * 6000 + i % 150 * 40 + i / 150 % 40]).collect();
        let taps = offsets(&g);
        let transposed = BOperand { values: &turned, taps, stride: 150, transposed: true, ..plain };
        for isa in supported().into_iter().filter(|&isa| isa != Isa::Reference) {
            let convolve = |right: &BOperand, kept: Option<&PerTap>| {
                let mut y = vec![0.0; 2 * 9 * 8 * 40];
                let kernel = TapMatrices { right, kept };
                sparse.convolve(isa, &x, kernel, None, Activation::Linear, &mut y);
                y
            };
            let y = convolve(&plain, None);
            assert!(y.iter().any(|&y| y != 0.0));
            for right in [&plain, &transposed] {
                let kept = sparse.pack(isa, right);
                assert_eq!(convolve(right, None), y, "{isa:?}");
                assert_eq!(convolve(right, Some(&kept)), y, "{isa:?}");
            }
        }
    }
}
