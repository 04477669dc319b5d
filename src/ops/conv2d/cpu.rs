//! Convolution as implicit matrix products (see [`crate::cpu::gemm`]).
//!
//! | pass | left factor, gathered            | right factor, packed      | result          |
//! |------|----------------------------------|---------------------------|-----------------|
//! | y    | patches of x [pixels, kh·kw·C]   | w [kh·kw·C, F]            | y [pixels, F]   |
//! | ∂x   | patches of ∂y [pixels, kh·kw·F]  | w, C and F swapped        | ∂x [pixels, C]  |
//! | ∂w   | patches of x, transposed         | ∂y [pixels, F]            | ∂w [kh·kw·C, F] |
//!
//! ∂x of a strided convolution falls into stride² phases: input pixels whose coordinates agree
//! modulo the stride are reached through the same subset of taps, so each phase is a dense
//! convolution of its own, and no multiplication by a zero is ever made.
//!
//! 3×3 kernels of stride 1 go through Winograd's F(2×2, 3×3) in all three passes, where there are channels
//! enough for its products to pay for its transforms.
//!
//! Pictures of three channels have kernels of their own ([`first_layer`]).
//!
//! Where dilation pushes many taps into the padding (DeepLab's 14×14 map with dilation 12 or 18),
//! each tap is a product of its own over the rectangle of outputs for which it sees a pixel.

use super::{Conv2dGeometry, first_layer};
use crate::cpu::gemm::{Dense, GridPlace, Matrix, Packed, Patches, Right, Start, gram, product};
use crate::cpu::simd::Isa;
use crate::cpu::winograd;
use crate::ops::Then;
use crate::pool::Buffer;
use std::ops::Range;

pub fn forward(
    isa: Isa,
    g: &Conv2dGeometry,
    x: &[f32],
    w: &[f32],
    b: Option<&[f32]>,
    then: Then,
    y: &mut [f32],
) {
    if let Some(g) = winograd(g) {
        return winograd::convolve(isa, &g, x, w, b, then, y);
    }
    if first_layer::fits(isa, g) {
        return first_layer::forward(isa, g, x, w, b, then, y);
    }
    if let Some(taps) = sparse_taps(g) {
        for row in y.chunks_mut(g.out_channels) {
            match b {
                Some(b) => row.copy_from_slice(b),
                None => row.fill(0.0),
            }
        }
        for tap in taps {
            let packed =
                Packed::new(isa, &Right::matrix(tap.slice(g, w), g.in_channels, g.out_channels));
            let place = tap.place(g.output, g.out_channels, tap.origin(), [1, 1]);
            let rows = tap.input_patches(g, x);
            // SAFETY: the grid's points are distinct pixels of the output.
            unsafe { product(&rows, &packed, Start::Accumulate, Then::Nothing, &place, y) };
        }
        // No tap sees all outputs, so none of them could do this.
        return then.in_place(y);
    }
    let depth = g.kernel[0] * g.kernel[1] * g.in_channels;
    let packed = Packed::new(isa, &Right::matrix(w, depth, g.out_channels));
    let start = b.map_or(Start::Zero, Start::Bias);
    let place = Dense(g.out_channels);
    // SAFETY: dense rows, one an output pixel.
    unsafe {
        if is_pointwise(g) {
            let rows = Matrix::new(x, x.len() / g.in_channels, g.in_channels);
            product(&rows, &packed, start, then, &place, y);
        } else {
            product(&patches(g, x), &packed, start, then, &place, y);
        }
    }
}

/// The same as a convolution for Winograd's method, where that is faster.
fn winograd(g: &Conv2dGeometry) -> Option<winograd::Geometry> {
    let fits = g.kernel == [3, 3] && g.stride == [1, 1] && g.dilation == [1, 1];
    // Fewer channels make products too small to pay for the transforms.
    let pays = g.in_channels.min(g.out_channels) >= 16 && g.output.iter().all(|&side| side >= 4);
    (fits && pays && g.pad.iter().all(|&pad| pad <= 2)).then_some(winograd::Geometry {
        batch: g.batch,
        input: g.input,
        channels: g.in_channels,
        output: g.output,
        filters: g.out_channels,
        pad: g.pad,
    })
}

pub fn input_gradient(isa: Isa, g: &Conv2dGeometry, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let (c, f) = (g.in_channels, g.out_channels);
    let size = c * f;
    if let Some(g) = winograd(g) {
        let turned = winograd::turned(w, c, f);
        return winograd::convolve(isa, &g.transposed(), dy, &turned, None, Then::Nothing, dx);
    }
    if let Some(taps) = sparse_taps(g) {
        dx.fill(0.0);
        for tap in taps {
            let packed = Packed::new(isa, &Right::transpose(tap.slice(g, w), f, c));
            let place = tap.place(g.input, c, tap.input_origin(g), g.stride);
            let rows = tap.output_patches(g, dy);
            // SAFETY: the grid's points are distinct pixels of the input.
            unsafe { product(&rows, &packed, Start::Accumulate, Then::Nothing, &place, dx) };
        }
        return;
    }
    if is_pointwise(g) {
        let packed = Packed::new(isa, &Right::transpose(w, f, c));
        let rows = Matrix::new(dy, dy.len() / f, f);
        // SAFETY: dense rows, one an input pixel.
        unsafe { product(&rows, &packed, Start::Zero, Then::Nothing, &Dense(c), dx) };
        return;
    }
    for py in 0..g.stride[0].min(g.input[0]) {
        for px in 0..g.stride[1].min(g.input[1]) {
            let phases = [Phase::new(g, 0, py), Phase::new(g, 1, px)];
            let place = GridPlace {
                grid: [phases[0].count, phases[1].count],
                size: g.input,
                channels: c,
                step: g.stride,
                origin: [py, px],
            };
            let rows = Patches {
                x: dy,
                batch: g.batch,
                size: g.output,
                channels: f,
                grid: place.grid,
                step: [1, 1],
                origin: [phases[0].origin, phases[1].origin],
                taps: [phases[0].taps.len(), phases[1].taps.len()],
                tap_step: [phases[0].tap_step, phases[1].tap_step],
            };
            let tap = |ky: &usize, kx: &usize| (ky * g.kernel[1] + kx) * size;
            let taps: Vec<usize> = phases[0]
                .taps
                .iter()
                .flat_map(|ky| phases[1].taps.iter().map(move |kx| tap(ky, kx)))
                .collect();
            let right = Right { values: w, taps, inner: f, columns: c, stride: f, transposed: true };
            if right.taps.is_empty() {
                fill_zero(&place, g.batch, dx);
                continue;
            }
            // SAFETY: the grid's points are distinct pixels of the input.
            unsafe { product(&rows, &Packed::new(isa, &right), Start::Zero, Then::Nothing, &place, dx) };
        }
    }
}

pub fn kernel_gradient(isa: Isa, g: &Conv2dGeometry, dy: &[f32], x: &[f32], dw: &mut [f32]) {
    let (c, f) = (g.in_channels, g.out_channels);
    if let Some(g) = winograd(g) {
        return winograd::kernel_gradient(isa, &g, dy, x, dw);
    }
    if first_layer::fits(isa, g) {
        return first_layer::kernel_gradient(isa, g, dy, x, dw);
    }
    if let Some(taps) = sparse_taps(g) {
        dw.fill(0.0);
        for tap in taps {
            let rectangle = tap.cut(g, dy);
            let dw = &mut dw[tap.index * c * f..][..c * f];
            gram(isa, &tap.input_patches(g, x), &rectangle, f, dw);
        }
    } else if is_pointwise(g) {
        gram(isa, &Matrix::new(x, x.len() / c, c), dy, f, dw);
    } else {
        gram(isa, &patches(g, x), dy, f, dw);
    }
}

/// A 1×1 convolution that reads every pixel once: a plain matrix product.
fn is_pointwise(g: &Conv2dGeometry) -> bool {
    g.kernel == [1, 1] && g.stride == [1, 1] && g.pad == [0, 0]
}

pub(crate) fn patches<'a>(g: &Conv2dGeometry, x: &'a [f32]) -> Patches<'a> {
    Patches {
        x,
        batch: g.batch,
        size: g.input,
        channels: g.in_channels,
        grid: g.output,
        step: g.stride,
        origin: g.pad.map(|pad| -(pad as isize)),
        taps: g.kernel,
        tap_step: g.dilation,
    }
}

fn fill_zero(place: &GridPlace, batch: usize, out: &mut [f32]) {
    use crate::cpu::gemm::Place;
    for row in 0..batch * place.grid[0] * place.grid[1] {
        out[place.offset(row)..][..place.channels].fill(0.0);
    }
}

/// The input pixels of one axis with coordinate ≡ phase (mod stride), and the taps that reach them.
struct Phase {
    count: usize,
    /// Ordered so that the output pixel they lead to ascends.
    taps: Vec<usize>,
    /// The output pixel that the first tap of the first input pixel leads to.
    origin: isize,
    tap_step: usize,
}

impl Phase {
    fn new(g: &Conv2dGeometry, axis: usize, phase: usize) -> Self {
        let (s, d, pad) = (g.stride[axis], g.dilation[axis], g.pad[axis]);
        // Input pixel phase + j·s is read by tap k from output (phase + pad − k·d)/s + j.
        let lead = |k: usize| (phase + pad) as isize - (k * d) as isize;
        let taps: Vec<usize> =
            (0..g.kernel[axis]).rev().filter(|&k| lead(k) % s as isize == 0).collect();
        let origin = taps.first().map_or(0, |&k| lead(k) / s as isize);
        // From one usable tap to the next the output moves by lcm(s, d)/s.
        let tap_step = taps.get(1).map_or(1, |&k| (lead(k) / s as isize - origin) as usize);
        Phase { count: (g.input[axis] - phase).div_ceil(s), taps, origin, tap_step }
    }
}

/// One tap of a kernel and the rectangle of outputs for which it sees a pixel.
struct Tap {
    /// ky · kw + kx
    index: usize,
    at: [usize; 2],
    rectangle: [Range<usize>; 2],
}

/// The taps one by one, where that saves more than a quarter of the products. None where nearly
/// all taps see pixels, or where there are too few channels for a product a tap to be efficient.
fn sparse_taps(g: &Conv2dGeometry) -> Option<Vec<Tap>> {
    if g.dilation == [1, 1] || g.in_channels < 16 {
        return None;
    }
    let range = |axis: usize, k: usize| {
        let (s, shift) = (g.stride[axis], k * g.dilation[axis]);
        let first = g.pad[axis].saturating_sub(shift).div_ceil(s);
        // Outputs o with o·s + shift − pad ≤ input − 1.
        let end = match (g.input[axis] + g.pad[axis]).checked_sub(shift + 1) {
            Some(last) => (last / s + 1).min(g.output[axis]),
            None => 0,
        };
        first..end.max(first)
    };
    let taps: Vec<Tap> = (0..g.kernel[0] * g.kernel[1])
        .map(|index| {
            let at = [index / g.kernel[1], index % g.kernel[1]];
            Tap { index, at, rectangle: [range(0, at[0]), range(1, at[1])] }
        })
        .filter(|tap| tap.rectangle.iter().all(|side| !side.is_empty()))
        .collect();
    let seen: usize = taps.iter().map(|tap| tap.rectangle[0].len() * tap.rectangle[1].len()).sum();
    let all = g.kernel[0] * g.kernel[1] * g.output[0] * g.output[1];
    (4 * seen <= 3 * all).then_some(taps)
}

impl Tap {
    fn grid(&self) -> [usize; 2] {
        [self.rectangle[0].len(), self.rectangle[1].len()]
    }

    /// The rectangle's first output pixel.
    fn origin(&self) -> [usize; 2] {
        [self.rectangle[0].start, self.rectangle[1].start]
    }

    /// The input pixel that the rectangle's first output reads.
    fn input_origin(&self, g: &Conv2dGeometry) -> [usize; 2] {
        [0, 1].map(|axis| {
            self.origin()[axis] * g.stride[axis] + self.at[axis] * g.dilation[axis] - g.pad[axis]
        })
    }

    fn slice<'a>(&self, g: &Conv2dGeometry, w: &'a [f32]) -> &'a [f32] {
        let size = g.in_channels * g.out_channels;
        &w[self.index * size..][..size]
    }

    fn place(
        &self,
        size: [usize; 2],
        channels: usize,
        origin: [usize; 2],
        step: [usize; 2],
    ) -> GridPlace {
        GridPlace { grid: self.grid(), size, channels, step, origin }
    }

    /// The input pixels that the rectangle reads, one a row.
    fn input_patches<'a>(&self, g: &Conv2dGeometry, x: &'a [f32]) -> Patches<'a> {
        Patches {
            grid: self.grid(),
            origin: self.input_origin(g).map(|o| o as isize),
            taps: [1, 1],
            tap_step: [1, 1],
            ..patches(g, x)
        }
    }

    /// The rectangle of the output's gradient, one pixel a row.
    fn output_patches<'a>(&self, g: &Conv2dGeometry, dy: &'a [f32]) -> Patches<'a> {
        Patches {
            x: dy,
            batch: g.batch,
            size: g.output,
            channels: g.out_channels,
            grid: self.grid(),
            step: [1, 1],
            origin: self.origin().map(|o| o as isize),
            taps: [1, 1],
            tap_step: [1, 1],
        }
    }

    /// The rectangle copied out of the output's gradient.
    fn cut(&self, g: &Conv2dGeometry, dy: &[f32]) -> Buffer<f32> {
        let [height, width] = self.grid();
        let (f, run) = (g.out_channels, width * g.out_channels);
        let mut out = Buffer::<f32>::new(g.batch * height * run);
        for (row, out) in out.chunks_mut(run).enumerate() {
            let y = self.rectangle[0].start + row % height;
            let from = ((row / height * g.output[0] + y) * g.output[1] + self.rectangle[1].start) * f;
            out.copy_from_slice(&dy[from..from + run]);
        }
        out
    }
}
