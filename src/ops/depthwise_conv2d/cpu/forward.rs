use super::{BLOCK, TASK, pack, rows, strips};
use crate::activation::Activation;
use crate::backend::cpu::simd::{Isa, Kernel, Vector, dispatch, load, prefetch, store};
use crate::backend::cpu::threads;
use crate::context::isa;
use crate::ops::batch_norm::{RunningStats, fill};
use crate::ops::depthwise_conv2d::{Algorithm, DepthwiseGeometry};
use crate::pool::Buffer;
use crate::tensor::Tensor;
use std::ops::Range;

pub fn forward(
    g: &DepthwiseGeometry,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    activation: Activation,
    moments: Option<&mut RunningStats>,
) -> Tensor {
    let by_rows = ByRows::new(isa(), g, x.values(), w.values(), b.map(|b| b.values()), activation);
    let mut y = Buffer::<f32>::new(g.output_shape().elements());
    // What is looked at again for its moments must be in L2 still.
    let floats = if moments.is_some() { threads::GRAIN_SIZE } else { TASK };
    let rows = rows(g.batch * g.output[0], g.output[1] * g.channels, floats);
    fill(&mut y, g.channels, rows * g.output[1], moments, |first, non_temporal, out| {
        by_rows.make(first / g.output[1], non_temporal, out)
    });
    Tensor::from_buffer(y, g.output_shape())
}

/// A convolution whose outputs are made some rows at a time, by whoever wants them.
pub struct ByRows<'a> {
    isa: Isa,
    g: &'a DepthwiseGeometry,
    x: &'a [f32],
    /// As [`pack`] lays them out.
    w: Buffer<f32>,
    bias: Option<&'a [f32]>,
    activation: Activation,
    /// A row of zeros, for where a window looks past the image.
    none: Buffer<f32>,
}

impl<'a> ByRows<'a> {
    pub fn new(
        isa: Isa,
        g: &'a DepthwiseGeometry,
        x: &'a [f32],
        w: &[f32],
        bias: Option<&'a [f32]>,
        activation: Activation,
    ) -> Self {
        assert_eq!(x.len(), g.batch * g.input[0] * g.input[1] * g.channels);
        assert_eq!(w.len(), g.kernel[0] * g.kernel[1] * g.channels);
        assert!(bias.is_none_or(|bias| bias.len() == g.channels));
        let w = pack(w, g.channels, isa.lanes());
        let none = Buffer::filled(g.input[1] * g.channels, 0.0);
        ByRows { isa, g, x, w, bias, activation, none }
    }

    /// As many rows of outputs as fill `out`, from `first` on, counted through all images. To
    /// `non_temporal`, `out` is aligned (see [`wants_non_temporal`]).
    pub fn make(&self, first: usize, non_temporal: bool, out: &mut [f32]) {
        let ByRows { g, x, bias, activation, .. } = *self;
        assert!(first * g.output[1] * g.channels + out.len() <= g.output_shape().elements());
        let (w, none) = (&self.w, &self.none);
        dispatch(self.isa, Forward { g, x, w, bias, activation, non_temporal, none, first, out });
    }
}

/// Some rows of outputs: see [`ByRows`].
struct Forward<'a> {
    g: &'a DepthwiseGeometry,
    x: &'a [f32],
    w: &'a [f32],
    bias: Option<&'a [f32]>,
    activation: Activation,
    non_temporal: bool,
    none: &'a [f32],
    /// The first row, counted through all images.
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let g = self.g;
        let blocks = match Algorithm::of(g) {
            Algorithm::Sliding => self.interior(),
            Algorithm::PerTap => 0..0,
        };
        let mut taps = Vec::new();
        for strip in strips(g.output[1], &blocks, BLOCK, g.stride[1] * g.channels) {
            for row in 0..self.out.len() / (g.output[1] * g.channels).max(1) {
                // SAFETY: the strip's outputs are inside this row.
                unsafe { self.row::<V>(row, &strip, &blocks, &mut taps) };
            }
        }
    }
}

impl Forward<'_> {
    /// The outputs of a row whose windows are inside the image along x.
    fn interior(&self) -> Range<usize> {
        let (g, s) = (self.g, self.g.stride[1]);
        let first = g.pad[1].div_ceil(s);
        let end = (g.input[1] + g.pad[1]).checked_sub(3).map_or(0, |last| last / s + 1);
        let end = end.min(g.output[1]);
        first.min(end)..end
    }

    /// The outputs of a strip in one of these rows. `blocks`: those of the row that are made block by block.
    #[inline(always)]
    unsafe fn row<V: Vector>(
        &mut self,
        row: usize,
        strip: &Range<usize>,
        blocks: &Range<usize>,
        taps: &mut Vec<(usize, usize)>,
    ) {
        let (g, c) = (self.g, self.g.channels);
        let (n, oy) = ((self.first + row) / g.output[0], (self.first + row) % g.output[0]);
        let out = self.out[row * g.output[1] * c..].as_mut_ptr();
        let blocks = blocks.start.max(strip.start)..blocks.end.min(strip.end);
        // SAFETY: a block's windows lie inside the image's rows, its outputs inside this row.
        unsafe {
            let rows = [0, 1, 2].map(|ky| match g.input_of(0, oy, ky) {
                Some(iy) if !blocks.is_empty() => {
                    self.x[(n * g.input[0] + iy) * g.input[1] * c..].as_ptr()
                }
                _ => self.none.as_ptr(),
            });
            let mut ox = blocks.start;
            while ox < blocks.end {
                let step = if ox + BLOCK <= blocks.end { BLOCK } else { 1 };
                let from = (ox * g.stride[1] - g.pad[1]) * c;
                let (rows, out) = (rows.map(|row| row.add(from)), out.add(ox * c));
                match (g.stride[1], step) {
                    (1, BLOCK) => self.block::<V, BLOCK, 1>(rows, out),
                    (1, _) => self.block::<V, 1, 1>(rows, out),
                    (_, BLOCK) => self.block::<V, BLOCK, 2>(rows, out),
                    _ => self.block::<V, 1, 2>(rows, out),
                }
                ox += step;
            }
            for ox in (strip.start..blocks.start).chain(blocks.end..strip.end) {
                taps.clear();
                for tap in 0..g.kernel[0] * g.kernel[1] {
                    let (ky, kx) = (tap / g.kernel[1], tap % g.kernel[1]);
                    let (Some(iy), Some(ix)) = (g.input_of(0, oy, ky), g.input_of(1, ox, kx)) else {
                        continue;
                    };
                    taps.push((((n * g.input[0] + iy) * g.input[1] + ix) * c, tap));
                }
                self.pixel::<V>(taps, out.add(ox * c));
            }
        }
    }

    /// N outputs. `rows`: the first pixel of the first window in its three rows.
    #[inline(always)]
    unsafe fn block<V: Vector, const N: usize, const S: usize>(
        &self,
        rows: [*const f32; 3],
        out: *mut f32,
    ) {
        let c = self.g.channels;
        let (mut rows, mut w, mut out) = (rows, self.w.as_ptr(), out);
        let mut bias = self.bias.map(|bias| bias.as_ptr());
        unsafe {
            for _ in 0..c / V::LANES {
                self.vector::<V, N, S, true>(rows, w, bias, out, V::LANES);
                rows = rows.map(|row| row.add(V::LANES));
                w = w.add(9 * V::LANES);
                out = out.add(V::LANES);
                bias = bias.map(|bias| bias.add(V::LANES));
            }
            if !c.is_multiple_of(V::LANES) {
                self.vector::<V, N, S, false>(rows, w, bias, out, c % V::LANES);
            }
        }
    }

    #[inline(always)]
    unsafe fn vector<V: Vector, const N: usize, const S: usize, const FULL: bool>(
        &self,
        rows: [*const f32; 3],
        w: *const f32,
        bias: Option<*const f32>,
        out: *mut f32,
        lanes: usize,
    ) {
        unsafe {
            let c = self.g.channels;
            // The rows that the next row of outputs sees for the first time.
            for row in &rows[3 - S..] {
                let next = row.wrapping_add(S * self.g.input[1] * c);
                for x in 0..N * S {
                    prefetch(next.wrapping_add((x + 3 - S) * c));
                }
            }
            let start = bias.map_or(V::splat(0.0), |bias| load::<V, FULL>(bias, lanes));
            let mut sums = [start; N];
            for (ky, row) in rows.into_iter().enumerate() {
                let w: [V; 3] = std::array::from_fn(|kx| V::load(w.add((3 * ky + kx) * V::LANES)));
                for x in 0..(N - 1) * S + 3 {
                    let pixel = load::<V, FULL>(row.add(x * c), lanes);
                    for (o, sum) in sums.iter_mut().enumerate() {
                        if x >= o * S && x < o * S + 3 {
                            *sum = pixel.mul_add(w[x - o * S], *sum);
                        }
                    }
                }
            }
            for (o, sum) in sums.into_iter().enumerate() {
                store::<V, FULL>(
                    self.activation.forward_lanes(sum),
                    out.add(o * c),
                    lanes,
                    self.non_temporal,
                );
            }
        }
    }

    /// One output: the sum over `taps`, the offset of a pixel and the number of its weight.
    #[inline(always)]
    unsafe fn pixel<V: Vector>(&self, taps: &[(usize, usize)], out: *mut f32) {
        let (c, of_vector) = (self.g.channels, self.g.kernel[0] * self.g.kernel[1] * V::LANES);
        unsafe {
            let mut w = self.w.as_ptr();
            for i in (0..c / V::LANES).map(|vector| vector * V::LANES) {
                self.pixel_vector::<V, true>(taps, w, out, i, V::LANES);
                w = w.add(of_vector);
            }
            if !c.is_multiple_of(V::LANES) {
                self.pixel_vector::<V, false>(taps, w, out, c - c % V::LANES, c % V::LANES);
            }
        }
    }

    #[inline(always)]
    unsafe fn pixel_vector<V: Vector, const FULL: bool>(
        &self,
        taps: &[(usize, usize)],
        w: *const f32,
        out: *mut f32,
        i: usize,
        lanes: usize,
    ) {
        unsafe {
            let mut sum =
                self.bias.map_or(V::splat(0.0), |bias| load::<V, FULL>(bias.as_ptr().add(i), lanes));
            for &(pixel, tap) in taps {
                let pixel = load::<V, FULL>(self.x.as_ptr().add(pixel + i), lanes);
                sum = pixel.mul_add(V::load(w.add(tap * V::LANES)), sum);
            }
            store::<V, FULL>(self.activation.forward_lanes(sum), out.add(i), lanes, self.non_temporal);
        }
    }
}
