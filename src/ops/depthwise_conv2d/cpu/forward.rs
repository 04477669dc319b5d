use super::{BLOCK, blocked};
use crate::cpu::simd::{Kernel, Vector, dispatch, isa, load, store, streams};
use crate::cpu::threads;
use crate::ops::Then;
use crate::ops::depthwise_conv2d::DepthwiseGeometry;
use crate::pool::Buffer;
use crate::tensor::Tensor;
use std::ops::Range;

pub fn forward(g: &DepthwiseGeometry, x: &Tensor, w: &Tensor, b: Option<&Tensor>, then: Then) -> Tensor {
    let (x, w, isa) = (x.values::<f32>(), w.values::<f32>(), isa());
    let bias = b.map(|b| b.values::<f32>());
    assert_eq!(x.len(), g.batch * g.input[0] * g.input[1] * g.channels);
    assert_eq!(w.len(), g.kernel[0] * g.kernel[1] * g.channels);
    assert!(bias.is_none_or(|bias| bias.len() == g.channels));
    let mut y = Buffer::<f32>::new(g.output_shape().elements());
    let none = Buffer::<f32>::filled(g.input[1] * g.channels, 0.0);
    let width = g.output[1] * g.channels;
    let rows = (threads::PASS / 4 / width.max(1)).max(1);
    let stream = streams(&y, g.channels);
    threads::for_each_chunk(&mut y, rows * width, |i, out| {
        dispatch(isa, Forward { g, x, w, bias, then, stream, none: &none, first: i * rows, out });
    });
    Tensor::from_buffer(y, g.output_shape())
}

/// Some rows of outputs.
struct Forward<'a> {
    g: &'a DepthwiseGeometry,
    x: &'a [f32],
    w: &'a [f32],
    bias: Option<&'a [f32]>,
    then: Then,
    stream: bool,
    /// A row of zeros, for where a window looks past the picture.
    none: &'a [f32],
    /// The first row, counted through all pictures.
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (g, c) = (self.g, self.g.channels);
        let mut taps = Vec::new();
        for row in 0..self.out.len() / (g.output[1] * c).max(1) {
            let (n, oy) = ((self.first + row) / g.output[0], (self.first + row) % g.output[0]);
            let out = self.out[row * g.output[1] * c..].as_mut_ptr();
            let blocks = match blocked(g) {
                true => self.interior(),
                false => 0..0,
            };
            // SAFETY: a block's windows lie inside the picture's rows, its outputs inside this row.
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
                for ox in (0..blocks.start).chain(blocks.end..g.output[1]) {
                    taps.clear();
                    for tap in 0..g.kernel[0] * g.kernel[1] {
                        let (ky, kx) = (tap / g.kernel[1], tap % g.kernel[1]);
                        let (Some(iy), Some(ix)) = (g.input_of(0, oy, ky), g.input_of(1, ox, kx)) else {
                            continue;
                        };
                        taps.push((((n * g.input[0] + iy) * g.input[1] + ix) * c, tap * c));
                    }
                    self.pixel::<V>(&taps, out.add(ox * c));
                }
            }
        }
    }
}

impl Forward<'_> {
    /// The outputs of a row whose windows are inside the picture along x.
    fn interior(&self) -> Range<usize> {
        let (g, s) = (self.g, self.g.stride[1]);
        let first = g.pad[1].div_ceil(s);
        let end = (g.input[1] + g.pad[1]).checked_sub(3).map_or(0, |last| last / s + 1);
        let end = end.min(g.output[1]);
        first.min(end)..end
    }

    /// N outputs. `rows`: the first pixel of the first window in its three rows.
    #[inline(always)]
    unsafe fn block<V: Vector, const N: usize, const S: usize>(
        &self,
        rows: [*const f32; 3],
        out: *mut f32,
    ) {
        let c = self.g.channels;
        let mut i = 0;
        unsafe {
            while i + V::LANES <= c {
                self.vector::<V, N, S, true>(rows, out, i, V::LANES);
                i += V::LANES;
            }
            if i < c {
                self.vector::<V, N, S, false>(rows, out, i, c - i);
            }
        }
    }

    #[inline(always)]
    unsafe fn vector<V: Vector, const N: usize, const S: usize, const FULL: bool>(
        &self,
        rows: [*const f32; 3],
        out: *mut f32,
        i: usize,
        lanes: usize,
    ) {
        unsafe {
            let c = self.g.channels;
            let start =
                self.bias.map_or(V::splat(0.0), |bias| load::<V, FULL>(bias.as_ptr().add(i), lanes));
            let mut sums = [start; N];
            for (ky, row) in rows.into_iter().enumerate() {
                let mut w = [start; 3];
                for (kx, w) in w.iter_mut().enumerate() {
                    *w = load::<V, FULL>(self.w.as_ptr().add((3 * ky + kx) * c + i), lanes);
                }
                for x in 0..(N - 1) * S + 3 {
                    let pixel = load::<V, FULL>(row.add(x * c + i), lanes);
                    for (o, sum) in sums.iter_mut().enumerate() {
                        if x >= o * S && x < o * S + 3 {
                            *sum = pixel.mul_add(w[x - o * S], *sum);
                        }
                    }
                }
            }
            for (o, sum) in sums.into_iter().enumerate() {
                store::<V, FULL>(self.then.of(sum), out.add(o * c + i), lanes, self.stream);
            }
        }
    }

    /// One output: the sum over `taps`, the offsets of a pixel and of its weights.
    #[inline(always)]
    unsafe fn pixel<V: Vector>(&self, taps: &[(usize, usize)], out: *mut f32) {
        let c = self.g.channels;
        for i in (0..c).step_by(V::LANES) {
            let n = V::LANES.min(c - i);
            unsafe {
                let mut sum = self.bias.map_or(V::splat(0.0), |b| V::load_partial(b.as_ptr().add(i), n));
                for &(pixel, weight) in taps {
                    let pixel = V::load_partial(self.x.as_ptr().add(pixel + i), n);
                    sum = pixel.mul_add(V::load_partial(self.w.as_ptr().add(weight + i), n), sum);
                }
                self.then.of(sum).store_partial(out.add(i), n);
            }
        }
    }
}
