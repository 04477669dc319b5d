//! Convolutions whose dilation pushes many taps into the padding (DeepLab's 14×14 map with dilation 6, 12 or 18).
//!
//! On each axis the outputs fall into a few stretches that see the same taps: of 14 outputs with dilation 6 the first six
//! see taps 1 and 2, the next two all three, the last six taps 0 and 1. A rectangle of such stretches is a dense
//! convolution with fewer taps, a product with some blocks of the kernel's rows; nobody multiplies by padding.
//!
//! The kernel's gradient sums for each tap over the rectangle of outputs for which it sees a pixel.

use super::Conv2dGeometry;
use super::cpu::patches;
use crate::cpu::gemm::{GridPlace, Meeting, Packed, Patches, Right, Start, gram, product_of};
use crate::cpu::simd::Isa;
use crate::ops::Then;
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

/// Outputs of one axis that see the same taps.
#[derive(Clone, Debug, PartialEq)]
struct Stretch {
    outputs: Range<usize>,
    taps: Range<usize>,
}

pub struct Sparse<'a> {
    g: &'a Conv2dGeometry,
    axes: [Vec<Stretch>; 2],
}

impl<'a> Sparse<'a> {
    /// Where it saves more than a quarter of the products. None where nearly all taps see pixels, where there are too
    /// few channels for a product a tap to be efficient, or where padding is more than windows reach.
    pub fn new(g: &'a Conv2dGeometry) -> Option<Self> {
        let span = [0, 1].map(|axis| g.dilation[axis] * (g.kernel[axis] - 1));
        if g.dilation == [1, 1]
            || g.stride != [1, 1]
            || g.in_channels < 16
            || g.pad[0] > span[0]
            || g.pad[1] > span[1]
        {
            return None;
        }
        let axes = [0, 1].map(|axis| stretches(g, axis));
        let seen = axes
            .iter()
            .map(|stretches| stretches.iter().map(|s| s.outputs.len() * s.taps.len()).sum::<usize>());
        let all = g.kernel[0] * g.kernel[1] * g.output[0] * g.output[1];
        (4 * seen.product::<usize>() <= 3 * all).then_some(Sparse { g, axes })
    }

    pub fn convolve(
        &self,
        isa: Isa,
        x: &[f32],
        right: Right,
        b: Option<&[f32]>,
        then: Then,
        y: &mut [f32],
    ) {
        let g = self.g;
        let packed = Packed::by_tap(isa, &right);
        let blocks = packed.blocks() / (g.kernel[0] * g.kernel[1]);
        let start = b.map_or(Start::Zero, Start::Bias);
        for (rows, columns) in
            self.axes[0].iter().flat_map(|row| self.axes[1].iter().map(move |c| (row, c)))
        {
            let both = [rows, columns];
            let rectangle = Patches {
                grid: both.map(|s| s.outputs.len()),
                origin: [0, 1].map(|axis| {
                    let first = both[axis].outputs.start + both[axis].taps.start * g.dilation[axis];
                    first as isize - g.pad[axis] as isize
                }),
                taps: both.map(|s| s.taps.len()),
                ..patches(g, x)
            };
            let place = GridPlace {
                grid: rectangle.grid,
                size: g.output,
                channels: g.out_channels,
                step: [1, 1],
                origin: both.map(|s| s.outputs.start),
            };
            let mut meetings = Vec::new();
            for tap in rows
                .taps
                .clone()
                .flat_map(|ky| columns.taps.clone().map(move |kx| ky * g.kernel[1] + kx))
            {
                for block in tap * blocks..(tap + 1) * blocks {
                    let from =
                        meetings.last().map_or(0, |last: &Meeting| last.from + packed.steps(last.block));
                    meetings.push(Meeting { block, from });
                }
            }
            // SAFETY: the grid's points are distinct pixels of the output.
            unsafe { product_of(&rectangle, &packed, &meetings, start, then, &place, y) };
        }
    }

    pub fn kernel_gradient(&self, isa: Isa, dy: &[f32], x: &[f32], dw: &mut [f32]) {
        let g = self.g;
        let size = g.in_channels * g.out_channels;
        for (tap, dw) in dw.chunks_exact_mut(size).enumerate() {
            let at = [tap / g.kernel[1], tap % g.kernel[1]];
            // Outputs that see the tap: none, or all of some neighbouring stretches.
            let seen = [0, 1].map(|axis| {
                let mut seen = self.axes[axis].iter().filter(|s| s.taps.contains(&at[axis]));
                let first = seen.next().map_or(0..0, |s| s.outputs.clone());
                first.start..seen.next_back().map_or(first.end, |s| s.outputs.end)
            });
            let rows = Patches {
                grid: [seen[0].len(), seen[1].len()],
                origin: [0, 1].map(|axis| {
                    (seen[axis].start + at[axis] * g.dilation[axis]) as isize - g.pad[axis] as isize
                }),
                taps: [1, 1],
                tap_step: [1, 1],
                ..patches(g, x)
            };
            gram(isa, &rows, &self.cut(dy, &seen), g.out_channels, dw);
        }
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

fn stretches(g: &Conv2dGeometry, axis: usize) -> Vec<Stretch> {
    let mut all: Vec<Stretch> = Vec::new();
    for o in 0..g.output[axis] {
        let sees =
            |k: &usize| (g.pad[axis]..g.input[axis] + g.pad[axis]).contains(&(o + k * g.dilation[axis]));
        let mut seen = (0..g.kernel[axis]).filter(sees);
        let taps = seen.next().map_or(0..0, |first| first..seen.next_back().unwrap_or(first) + 1);
        match all.last_mut() {
            Some(last) if last.taps == taps => last.outputs.end = o + 1,
            _ => all.push(Stretch { outputs: o..o + 1, taps }),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Conv2dOptions, Padding};

    #[test]
    fn outputs_that_see_the_same_taps_are_a_stretch() {
        let atrous = |dilation| {
            let options =
                Conv2dOptions { padding: Padding::Same, dilation: [dilation; 2], ..Default::default() };
            Conv2dGeometry::new([1, 14, 14, 16].into(), [3, 3, 16, 16].into(), options).unwrap()
        };
        let stretch = |outputs, taps| Stretch { outputs, taps };
        let six = [stretch(0..6, 1..3), stretch(6..8, 0..3), stretch(8..14, 0..2)];
        assert_eq!(stretches(&atrous(6), 0), six);
        assert_eq!(stretches(&atrous(18), 1), [stretch(0..14, 1..2)]);
        assert!(Sparse::new(&atrous(1)).is_none());
        assert!(Sparse::new(&transposed(&atrous(6))).is_some());
    }
}
