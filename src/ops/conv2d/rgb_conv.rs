//! Convolutions of images with three channels, which is to say a network's first layer.
//!
//! Patches of 3 channels are short runs (a row of a 3×3 window is 9 floats), and copying them costs more
//! than multiplying them. But neighbouring windows lie 3·stride floats apart, so a register tile can read
//! them where they are: element (pixel r, k) of a window's row is at r · 3·stride + k. Only windows that
//! hang over the image's edge are copied, with the padding.
//!
//! The kernel's gradient reads the same places with rows and steps exchanged: row k of ∂w sums over pixels
//! that are 3·stride apart. It sums over whole rows, and copies them with their padding, some at a time,
//! which stay in the core's cache.

use super::Conv2dGeometry;
use crate::activation::Activation;
use crate::backend::cpu::gemm::{
    B_PACKED, B_STRIDED, BOperand, Init, KC, MicroKernel, PackedB, for_each_tile,
};
use crate::backend::cpu::simd::{Isa, Kernel, Vector, dispatch};
use crate::backend::cpu::threads::{self, Shared};
use crate::ops::batch_norm::{RunningStats, fill};
use crate::pool::Buffer;
use std::ops::Range;

pub const CHANNELS: usize = 3;

/// Whether a convolution is one of these. Filters come in whole vectors: gradients are read where they lie,
/// too.
pub fn fits(isa: Isa, g: &Conv2dGeometry) -> bool {
    g.in_channels == CHANNELS
        && g.dilation == [1, 1]
        && g.stride[0] == g.stride[1]
        && g.stride[0] <= 2
        && g.kernel[0] * g.kernel[1] * CHANNELS <= KC
        && g.out_channels.is_multiple_of(isa.lanes())
        && !g.output.contains(&0)
}

/// Rows of an image as far as some rows of windows see them, padding included: [height, width, 3].
struct Padded {
    values: Buffer<f32>,
    /// The first row of outputs.
    first: usize,
    width: usize,
}

impl Padded {
    /// For the outputs `rows` of image n.
    fn new(g: &Conv2dGeometry, x: &[f32], n: usize, rows: Range<usize>) -> Self {
        let height = (rows.len() - 1) * g.stride[0] + g.kernel[0];
        let width = (g.output[1] - 1) * g.stride[1] + g.kernel[1];
        let mut values = Buffer::<f32>::new(height * width * CHANNELS);
        let seen = (g.input[1] + g.pad[1]).min(width).saturating_sub(g.pad[1]) * CHANNELS;
        let before = g.pad[1].min(width) * CHANNELS;
        for (row, out) in values.chunks_exact_mut(width * CHANNELS).enumerate() {
            let row = rows.start * g.stride[0] + row;
            match row.checked_sub(g.pad[0]).filter(|&y| y < g.input[0]) {
                None => out.fill(0.0),
                Some(y) => {
                    let from = (n * g.input[0] + y) * g.input[1] * CHANNELS;
                    out[..before].fill(0.0);
                    out[before..before + seen].copy_from_slice(&x[from..from + seen]);
                    out[before + seen..].fill(0.0);
                }
            }
        }
        Padded { values, first: rows.start, width }
    }

    /// From the first pixel of the window of output (y, x) on.
    #[inline(always)]
    fn window(&self, g: &Conv2dGeometry, y: usize, x: usize) -> &[f32] {
        let row = (y - self.first) * g.stride[0];
        &self.values[(row * self.width + x * g.stride[1]) * CHANNELS..]
    }

    /// Where so many rows begin, `stride` rows apart.
    fn runs(&self, count: usize, stride: usize) -> Vec<usize> {
        (0..count).map(|row| row * stride * self.row()).collect()
    }

    /// Floats a row.
    fn row(&self) -> usize {
        self.width * CHANNELS
    }
}

/// The windows of a tile's outputs where they hang over the edge: their part of the image, and zeros.
struct Edge {
    values: Buffer<f32>,
    /// Floats from one row to the next, enough for a tile of the most outputs.
    row: usize,
}

impl Edge {
    fn new(g: &Conv2dGeometry, most: usize) -> Self {
        let row = ((most - 1) * g.stride[1] + g.kernel[1]) * CHANNELS;
        Edge { values: Buffer::new(g.kernel[0] * row), row }
    }

    /// Whether the windows of `count` outputs from (y, x) on lie in the image only in part.
    #[inline(always)]
    fn overhangs(g: &Conv2dGeometry, y: usize, x: usize, count: usize) -> bool {
        let (first, last) = ([y, x], [y, x + count - 1]);
        (0..2).any(|d| {
            first[d] * g.stride[d] < g.pad[d]
                || last[d] * g.stride[d] + g.kernel[d] > g.pad[d] + g.input[d]
        })
    }

    /// The windows of `count` outputs from (y, x) on.
    fn copy(&mut self, g: &Conv2dGeometry, image: &[f32], y: usize, x: usize, count: usize) -> &[f32] {
        let (top, left) = (y * g.stride[0], x * g.stride[1]);
        let right = left + (count - 1) * g.stride[1] + g.kernel[1];
        // Columns of the image among them, counted with the padding in front of it.
        let seen = left.max(g.pad[1])..right.min(g.pad[1] + g.input[1]);
        for (ky, out) in self.values.chunks_exact_mut(self.row).enumerate() {
            out.fill(0.0);
            let row = (top + ky).checked_sub(g.pad[0]).filter(|&row| row < g.input[0]);
            if let Some(row) = row.filter(|_| !seen.is_empty()) {
                let from = (row * g.input[1] + seen.start - g.pad[1]) * CHANNELS;
                let size = seen.len() * CHANNELS;
                out[(seen.start - left) * CHANNELS..][..size].copy_from_slice(&image[from..from + size]);
            }
        }
        &self.values
    }
}

#[expect(clippy::too_many_arguments, reason = "a convolution's operands and what is made of its result")]
pub fn forward(
    isa: Isa,
    g: &Conv2dGeometry,
    x: &[f32],
    w: &[f32],
    b: Option<&[f32]>,
    activation: Activation,
    moments: Option<&mut RunningStats>,
    y: &mut [f32],
) {
    struct Rows<'a> {
        g: &'a Conv2dGeometry,
        x: &'a [f32],
        packed: &'a PackedB,
        bias: Option<&'a [f32]>,
        activation: Activation,
        non_temporal: bool,
        /// The first row, counted through all images.
        first: usize,
        out: &'a mut [f32],
    }
    impl Kernel for Rows<'_> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            match self.g.stride[0] {
                1 => self.rows::<V, CHANNELS>(),
                _ => self.rows::<V, { 2 * CHANNELS }>(),
            }
        }
    }
    impl Rows<'_> {
        #[inline(always)]
        fn rows<V: Vector, const STEP: usize>(self) {
            let (g, f, width) = (self.g, self.g.out_channels, 2 * V::LANES);
            let mut edge = Edge::new(g, V::MR);
            let runs = |row: usize| (0..g.kernel[0]).map(|ky| ky * row).collect::<Vec<_>>();
            let (inside, copied) = (runs(g.input[1] * CHANNELS), runs(edge.row));
            let share = g.stride[0] * g.input[1] * CHANNELS / g.output[1];
            for (row, out) in self.out.chunks_exact_mut(g.output[1] * f).enumerate() {
                let (n, oy) = ((self.first + row) / g.output[0], (self.first + row) % g.output[0]);
                let soon = self
                    .x
                    .as_ptr()
                    .wrapping_add(((n * g.input[0] + (oy + 2) * g.stride[0]) * g.input[1]) * CHANNELS);
                let image = &self.x[n * g.input[0] * g.input[1] * CHANNELS..];
                for panel in 0..f.div_ceil(width) {
                    let column = panel * width;
                    let columns = width.min(f - column);
                    for_each_tile::<V>(
                        g.output[1],
                        #[inline(always)]
                        |first, count| {
                            let (a, runs) = match Edge::overhangs(g, oy, first, count) {
                                false => {
                                    let (y, x) =
                                        (oy * g.stride[0] - g.pad[0], first * g.stride[1] - g.pad[1]);
                                    (image[(y * g.input[1] + x) * CHANNELS..].as_ptr(), &inside)
                                }
                                true => (edge.copy(g, image, oy, first, count).as_ptr(), &copied),
                            };
                            let tile = MicroKernel {
                                steps: g.kernel[1] * CHANNELS,
                                runs,
                                a,
                                row_step: 0,
                                k_step: 1,
                                b: self.packed.panel(0, panel).as_ptr(),
                                b_step: 0,
                                columns,
                                start: match self.bias {
                                    Some(bias) => Init::Bias(&bias[column..column + columns]),
                                    None => Init::Zero,
                                },
                                activation: self.activation,
                                non_temporal: self.non_temporal,
                                // What the row after the next will read first, a share a tile.
                                ahead: soon.wrapping_add(first * share),
                                ahead_step: (count * share)
                                    .div_ceil(g.kernel[0] * g.kernel[1] * CHANNELS),
                            };
                            let to = out[first * f..(first + count) * f].as_mut_ptr();
                            // SAFETY: the windows of `count` outputs lie in the image or in the copy, one
                            // STEP after the other; the panel has a row for each element of a window; the
                            // outputs are borrowed.
                            unsafe {
                                tile.run::<V, STEP, B_PACKED>(
                                    count,
                                    #[inline(always)]
                                    |row| to.add(row * f + column),
                                )
                            };
                        },
                    );
                }
            }
        }
    }
    let depth = g.kernel[0] * g.kernel[1] * CHANNELS;
    let packed = PackedB::new(isa, &BOperand::matrix(w, depth, g.out_channels));
    let row = g.output[1] * g.out_channels;
    let rows = (threads::GRAIN_SIZE / row).max(1);
    fill(y, g.out_channels, rows * g.output[1], moments, |first, non_temporal, out| {
        let (packed, first) = (&packed, first / g.output[1]);
        dispatch(isa, Rows { g, x, packed, bias: b, activation, non_temporal, first, out });
    });
}

/// Output rows whose windows are copied at a time.
const BAND: usize = 8;
/// Output rows a tile sums over before it goes back to memory: few, so that two vectors of each of their
/// gradients stay in L1 for all elements of a window.
const ROWS: usize = 2;

pub fn kernel_gradient(isa: Isa, g: &Conv2dGeometry, dy: &[f32], x: &[f32], dw: &mut [f32]) {
    struct Part<'a> {
        g: &'a Conv2dGeometry,
        x: &'a [f32],
        dy: &'a [f32],
        n: usize,
        rows: Range<usize>,
        /// This part's [kh · kw · 3, F], zero at first.
        dw: Shared<f32>,
        at: usize,
    }
    impl Kernel for Part<'_> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            let (g, f, width) = (self.g, self.g.out_channels, 2 * V::LANES);
            let run = g.kernel[1] * CHANNELS;
            for band in self.rows.clone().step_by(BAND) {
                let band = band..self.rows.end.min(band + BAND);
                let padded = Padded::new(g, self.x, self.n, band.clone());
                let runs = padded.runs(ROWS, g.stride[0]);
                for (from, column) in band
                    .clone()
                    .step_by(ROWS)
                    .flat_map(|from| (0..f).step_by(width).map(move |c| (from, c)))
                {
                    let dy = &self.dy[(self.n * g.output[0] + from) * g.output[1] * f + column..];
                    let window = padded.window(g, from, 0);
                    for ky in 0..g.kernel[0] {
                        for_each_tile::<V>(
                            run,
                            #[inline(always)]
                            |first, count| {
                                let tile = MicroKernel {
                                    steps: g.output[1],
                                    runs: &runs[..ROWS.min(band.end - from)],
                                    a: window[ky * padded.row() + first..].as_ptr(),
                                    row_step: 0,
                                    k_step: g.stride[1] * CHANNELS,
                                    b: dy.as_ptr(),
                                    b_step: f,
                                    columns: width.min(f - column),
                                    start: Init::Accumulate,
                                    activation: Activation::Linear,
                                    non_temporal: false,
                                    ahead: window.as_ptr(),
                                    ahead_step: 0,
                                };
                                let to = self.at + (ky * run + first) * f + column;
                                // SAFETY: element `first` + r of all windows of these rows lies in the
                                // padded rows; filters come in whole vectors, which are read where they lie;
                                // the sums are this part's alone.
                                unsafe {
                                    tile.run::<V, 1, B_STRIDED>(
                                        count,
                                        #[inline(always)]
                                        |row| self.dw.at(to + row * f),
                                    )
                                };
                            },
                        );
                    }
                }
            }
        }
    }
    // An image is a part; of few images some rows are.
    let parts = 16usize.div_ceil(g.batch.max(1)).min(g.output[0]);
    let mut sums = Buffer::<f32>::filled(g.batch * parts * dw.len(), 0.0);
    let (to, size) = (Shared::new(&mut sums), dw.len());
    threads::for_each(g.batch * parts, |part| {
        let (n, i) = (part / parts, part % parts);
        let rows = g.output[0] * i / parts..g.output[0] * (i + 1) / parts;
        dispatch(isa, Part { g, x, dy, n, rows, dw: to, at: part * size });
    });
    dw.fill(0.0);
    for part in sums.chunks(size) {
        dw.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
}
