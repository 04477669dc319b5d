//! Convolutions of pictures with three channels, which is to say a network's first layer.
//!
//! Patches of 3 channels are short runs (a row of a 3×3 window is 9 floats), and copying them costs more than
//! multiplying them. But neighbouring windows lie 3·stride floats apart, so a register tile can read them where
//! they are: element (pixel r, k) of a window's row is at r · 3·stride + k. All it takes is a copy of the pictures
//! with their padding, which is a fraction of the outputs' bytes.
//!
//! The kernel's gradient reads the same places with rows and steps exchanged: row k of ∂w sums over pixels that
//! are 3·stride apart.

use super::Conv2dGeometry;
use crate::cpu::gemm::{KC, Packed, Right, Start, Tile, for_each_tile};
use crate::cpu::simd::{Isa, Kernel, Vector, dispatch, streams};
use crate::cpu::threads::{self, Shared};
use crate::ops::Then;
use crate::pool::Buffer;
use std::ops::Range;

const CHANNELS: usize = 3;

/// Whether a convolution is one of these. Filters come in whole vectors: gradients are read where they lie, too.
pub fn fits(isa: Isa, g: &Conv2dGeometry) -> bool {
    g.in_channels == CHANNELS
        && g.dilation == [1, 1]
        && g.stride[0] == g.stride[1]
        && g.stride[0] <= 2
        && g.kernel[0] * g.kernel[1] * CHANNELS <= KC
        && g.out_channels.is_multiple_of(isa.lanes())
        && !g.output.contains(&0)
}

/// The pictures as far as windows see them, padding included: [N, height, width, 3].
struct Padded {
    values: Buffer<f32>,
    size: [usize; 2],
}

impl Padded {
    fn new(g: &Conv2dGeometry, x: &[f32]) -> Self {
        let size = [0, 1].map(|axis| (g.output[axis] - 1) * g.stride[axis] + g.kernel[axis]);
        let [height, width] = size;
        let mut values = Buffer::<f32>::new(g.batch * height * width * CHANNELS);
        let seen = (g.input[1] + g.pad[1]).min(width).saturating_sub(g.pad[1]) * CHANNELS;
        let before = g.pad[1].min(width) * CHANNELS;
        threads::for_each_chunk(&mut values, height * width * CHANNELS, |n, picture| {
            for (row, out) in picture.chunks_exact_mut(width * CHANNELS).enumerate() {
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
        });
        Padded { values, size }
    }

    /// From the first pixel of the window of output (n, y, x) on.
    #[inline(always)]
    fn window(&self, g: &Conv2dGeometry, n: usize, y: usize, x: usize) -> &[f32] {
        let row = n * self.size[0] + y * g.stride[0];
        &self.values[(row * self.size[1] + x * g.stride[1]) * CHANNELS..]
    }

    /// Floats a row.
    fn row(&self) -> usize {
        self.size[1] * CHANNELS
    }
}

pub fn forward(
    isa: Isa,
    g: &Conv2dGeometry,
    x: &[f32],
    w: &[f32],
    b: Option<&[f32]>,
    then: Then,
    y: &mut [f32],
) {
    struct Rows<'a> {
        g: &'a Conv2dGeometry,
        padded: &'a Padded,
        packed: &'a Packed,
        bias: Option<&'a [f32]>,
        then: Then,
        stream: bool,
        /// The first row, counted through all pictures.
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
            let runs: Vec<usize> = (0..g.kernel[0]).map(|ky| ky * self.padded.row()).collect();
            for (row, out) in self.out.chunks_exact_mut(g.output[1] * f).enumerate() {
                let (n, oy) = ((self.first + row) / g.output[0], (self.first + row) % g.output[0]);
                for panel in 0..f.div_ceil(width) {
                    let column = panel * width;
                    let columns = width.min(f - column);
                    for_each_tile::<V>(
                        g.output[1],
                        #[inline(always)]
                        |first, count| {
                            let tile = Tile {
                                steps: g.kernel[1] * CHANNELS,
                                runs: &runs,
                                a: self.padded.window(g, n, oy, first).as_ptr(),
                                row_step: 0,
                                k_step: 1,
                                b: self.packed.panel(0, panel).as_ptr(),
                                b_step: width,
                                columns,
                                start: match self.bias {
                                    Some(bias) => Start::Bias(&bias[column..column + columns]),
                                    None => Start::Zero,
                                },
                                then: self.then,
                                stream: self.stream,
                                ahead: self.padded.window(g, n, oy, first).as_ptr(),
                                ahead_step: 0,
                            };
                            let to = out[first * f..(first + count) * f].as_mut_ptr();
                            // SAFETY: the windows of `count` outputs lie in the padded picture, one STEP after the
                            // other; the panel has a row for each element of a window; the outputs are borrowed.
                            unsafe {
                                tile.run::<V, STEP>(
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
    let padded = Padded::new(g, x);
    let depth = g.kernel[0] * g.kernel[1] * CHANNELS;
    let packed = Packed::new(isa, &Right::matrix(w, depth, g.out_channels));
    let row = g.output[1] * g.out_channels;
    let rows = (threads::PASS / row).max(1);
    let stream = streams(y, g.out_channels);
    threads::for_each_chunk(y, rows * row, |i, out| {
        let (padded, packed) = (&padded, &packed);
        dispatch(isa, Rows { g, padded, packed, bias: b, then, stream, first: i * rows, out });
    });
}

/// Output rows a tile sums over before it goes back to memory.
const BAND: usize = 8;

pub fn kernel_gradient(isa: Isa, g: &Conv2dGeometry, dy: &[f32], x: &[f32], dw: &mut [f32]) {
    struct Part<'a> {
        g: &'a Conv2dGeometry,
        padded: &'a Padded,
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
            let runs = [0, 1, 2, 3, 4, 5, 6, 7].map(|row| row * g.stride[0] * self.padded.row());
            for from in self.rows.clone().step_by(BAND) {
                let rows = BAND.min(self.rows.end - from);
                let dy = &self.dy[(self.n * g.output[0] + from) * g.output[1] * f..];
                for (ky, column) in
                    (0..g.kernel[0]).flat_map(|ky| (0..f).step_by(width).map(move |c| (ky, c)))
                {
                    let window = self.padded.window(g, self.n, from, 0);
                    for_each_tile::<V>(
                        run,
                        #[inline(always)]
                        |first, count| {
                            let tile = Tile {
                                steps: g.output[1],
                                runs: &runs[..rows],
                                a: window[ky * self.padded.row() + first..].as_ptr(),
                                row_step: 0,
                                k_step: g.stride[1] * CHANNELS,
                                b: dy[column..].as_ptr(),
                                b_step: f,
                                columns: width.min(f - column),
                                start: Start::Accumulate,
                                then: Then::Nothing,
                                stream: false,
                                ahead: window.as_ptr(),
                                ahead_step: 0,
                            };
                            let to = self.at + (ky * run + first) * f + column;
                            // SAFETY: element `first` + r of all windows of these rows lies in the padded picture;
                            // filters come in whole vectors, which are read where they lie; the sums are this
                            // part's alone.
                            unsafe {
                                tile.run::<V, 1>(
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
    let padded = Padded::new(g, x);
    // A picture is a part; of few pictures some rows are.
    let parts = 16usize.div_ceil(g.batch.max(1)).min(g.output[0]);
    let mut sums = Buffer::<f32>::filled(g.batch * parts * dw.len(), 0.0);
    let (to, size) = (Shared::new(&mut sums), dw.len());
    threads::for_each(g.batch * parts, |part| {
        let (n, i) = (part / parts, part % parts);
        let rows = g.output[0] * i / parts..g.output[0] * (i + 1) / parts;
        dispatch(isa, Part { g, padded: &padded, dy, n, rows, dw: to, at: part * size });
    });
    dw.fill(0.0);
    for part in sums.chunks(size) {
        dw.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
}
