//! Convolution as implicit matrix products (see [`crate::backend::cpu::gemm`]).
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
//! Other algorithms take less time where they fit: [`super::algorithm`] says which, and each pass is a match
//! on its answer.

use super::algorithm::{algorithm, is_pointwise, winograd_geometry};
use super::dilated::{PerTap, Sparse, TapMatrices, offsets, transposed};
use super::{Algorithm, Conv2dGeometry, Pass, input_grad_rgb, rgb_conv};
use crate::activation::Activation;
use crate::backend::cpu::gemm::{
    BOperand, Dense, GridMap, Init, Matrix, PackedB, Patches, gemm_tn, matrix_product, multiply_rows,
    product,
};
use crate::backend::cpu::prepack::WeightView;
use crate::backend::cpu::simd::Isa;
use crate::backend::cpu::winograd::{self, Finish};
use crate::context::fast_math;
use crate::ops::batch_norm::{RunningStats, fill};
use std::sync::Arc;

/// With moments where the kernel [`takes_moments`].
#[expect(clippy::too_many_arguments, reason = "a convolution's operands and what is made of its result")]
pub fn forward(
    isa: Isa,
    g: &Conv2dGeometry,
    x: &[f32],
    weights: WeightView,
    b: Option<&[f32]>,
    activation: Activation,
    moments: Option<&mut RunningStats>,
    y: &mut [f32],
) {
    assert!(moments.is_none() || takes_moments(isa, g));
    match algorithm(Pass::Forward, isa, g, fast_math()) {
        Algorithm::Winograd { .. } => {
            with_winograd(isa, g, x, weights, Finish { bias: b, activation, pool: false }, y)
        }
        Algorithm::DirectRgb => rgb_conv::forward(isa, g, x, weights.values, b, activation, moments, y),
        Algorithm::Dilated => {
            let all = BOperand::matrix(weights.values, window(g), g.out_channels);
            let right = BOperand { taps: offsets(g), inner: g.in_channels, ..all };
            let taps = Sparse::new(g);
            let kept = per_tap(isa, &taps, weights, pixels(g), "by tap", &right);
            let kernel = TapMatrices { right: &right, kept: kept.as_deref() };
            taps.convolve(isa, x, kernel, b, activation, y);
        }
        Algorithm::PointwiseGemm => {
            let panels = pointwise_panels(isa, g, weights);
            let start = b.map_or(Init::Zero, Init::Bias);
            match moments {
                Some(moments) => pointwise_with_moments(g, x, &panels, start, activation, moments, y),
                None => matrix_product(x, &panels, start, activation, y),
            }
        }
        Algorithm::ImplicitGemm => {
            let right = BOperand::matrix(weights.values, window(g), g.out_channels);
            let packed = weights.layout(pixels(g), ("blocks", isa), || PackedB::new(isa, &right));
            let (start, place) = (b.map_or(Init::Zero, Init::Bias), Dense(g.out_channels));
            // SAFETY: dense rows, one an output pixel.
            unsafe { product(&patches(g, x), &packed, start, activation, &place, y) };
        }
    }
}

fn pointwise_with_moments(
    g: &Conv2dGeometry,
    x: &[f32],
    panels: &PackedB,
    start: Init,
    activation: Activation,
    moments: &mut RunningStats,
    y: &mut [f32],
) {
    /// A task's rows of the product.
    const ROWS: usize = 256;
    fill(y, g.out_channels, ROWS, Some(moments), |first, non_temporal, y| {
        let rows = first..first + y.len() / g.out_channels;
        let x = &x[rows.start * g.in_channels..rows.end * g.in_channels];
        multiply_rows(x, panels, start, activation, non_temporal, y);
    });
}

/// Whether [`forward`] takes the moments of its result in passing: a first layer, and a 1×1 convolution of
/// so many pixels that tiles of them are work for a few cores.
pub fn takes_moments(isa: Isa, g: &Conv2dGeometry) -> bool {
    const TILES: usize = 64;
    let shape = g.output_shape();
    match algorithm(Pass::Forward, isa, g, fast_math()) {
        Algorithm::PointwiseGemm => pixels(g) >= TILES * RunningStats::tile(&shape),
        Algorithm::DirectRgb => RunningStats::tile_is_whole_rows(&shape),
        Algorithm::Winograd { .. } | Algorithm::Dilated | Algorithm::ImplicitGemm => false,
    }
}

/// Whether [`forward_pooled`] can.
pub fn pools(isa: Isa, g: &Conv2dGeometry) -> bool {
    matches!(algorithm(Pass::Forward, isa, g, fast_math()), Algorithm::Winograd { .. })
}

/// The largest of each square of 2×2 outputs, in the pass that makes them.
pub fn forward_pooled(
    isa: Isa,
    g: &Conv2dGeometry,
    x: &[f32],
    weights: WeightView,
    b: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) {
    assert!(pools(isa, g));
    with_winograd(isa, g, x, weights, Finish { bias: b, activation, pool: true }, y);
}

/// y + the convolution, of a 1×1 kernel ([`is_pointwise`]), in y's memory.
pub fn forward_onto(
    isa: Isa,
    g: &Conv2dGeometry,
    x: &[f32],
    weights: WeightView,
    b: Option<&[f32]>,
    y: &mut [f32],
) {
    let start = b.map_or(Init::Accumulate, Init::Onto);
    matrix_product(x, &pointwise_panels(isa, g, weights), start, Activation::Linear, y);
}

fn with_winograd(
    isa: Isa,
    g: &Conv2dGeometry,
    x: &[f32],
    weights: WeightView,
    finish: Finish,
    y: &mut [f32],
) {
    let pixels = pixels(g);
    let g = &winograd_geometry(Pass::Forward, g, fast_math());
    let form = if g.tile == 4 { "winograd, 4×4" } else { "winograd" };
    let make = || winograd::transform_kernels(isa, g, weights.values);
    winograd::convolve(isa, g, x, &weights.layout(pixels, (form, isa), make), finish, y);
}

/// The right factor of a kernel that [`is_pointwise`].
pub fn pointwise_panels(isa: Isa, g: &Conv2dGeometry, weights: WeightView) -> Arc<PackedB> {
    assert!(is_pointwise(g));
    let right = BOperand::matrix(weights.values, g.in_channels, g.out_channels);
    weights.layout(pixels(g), ("whole", isa), || PackedB::whole(isa, &right))
}

/// What a sparse convolution needs of its kernel, where that is kept.
fn per_tap(
    isa: Isa,
    taps: &Sparse,
    weights: WeightView,
    pixels: usize,
    name: &'static str,
    right: &BOperand,
) -> Option<Arc<PerTap>> {
    let kernel = weights.kept_layout(pixels, (name, isa), || taps.pack(isa, right))?;
    taps.holds(&kernel).then_some(kernel)
}

/// Of all results.
fn pixels(g: &Conv2dGeometry) -> usize {
    g.batch * g.output[0] * g.output[1]
}

/// Values a window has.
fn window(g: &Conv2dGeometry) -> usize {
    g.kernel[0] * g.kernel[1] * g.in_channels
}

pub fn input_gradient(isa: Isa, g: &Conv2dGeometry, dy: &[f32], weights: WeightView, dx: &mut [f32]) {
    let (c, f) = (g.in_channels, g.out_channels);
    let (w, pixels) = (weights.values, g.batch * g.input[0] * g.input[1]);
    match algorithm(Pass::InputGrad, isa, g, fast_math()) {
        Algorithm::Winograd { .. } => {
            let g = winograd_geometry(Pass::InputGrad, g, fast_math());
            let form = if g.tile == 4 { "winograd, 4×4, transposed" } else { "winograd, transposed" };
            let make = || winograd::transform_kernels(isa, &g, &winograd::turned(w, c, f));
            let u = weights.layout(pixels, (form, isa), make);
            winograd::convolve(isa, &g, dy, &u, Finish::default(), dx);
        }
        Algorithm::DirectRgb => input_grad_rgb::run(isa, g, dy, w, dx),
        Algorithm::Dilated => {
            // The kernel turned by 180°.
            let turned = offsets(g).into_iter().rev().collect();
            let right =
                BOperand { taps: turned, inner: f, columns: c, stride: f, values: w, transposed: true };
            let transposed = transposed(g);
            let taps = Sparse::new(&transposed);
            let kept = per_tap(isa, &taps, weights, pixels, "by tap, transposed", &right);
            let kernel = TapMatrices { right: &right, kept: kept.as_deref() };
            taps.convolve(isa, dy, kernel, None, Activation::Linear, dx);
        }
        Algorithm::PointwiseGemm => {
            let make = || PackedB::whole(isa, &BOperand::transpose(w, f, c));
            let packed = weights.layout(pixels, ("whole, transposed", isa), make);
            matrix_product(dy, &packed, Init::Zero, Activation::Linear, dx);
        }
        Algorithm::ImplicitGemm => input_gradient_by_phases(isa, g, dy, w, dx),
    }
}

/// One product for each phase of the stride.
fn input_gradient_by_phases(isa: Isa, g: &Conv2dGeometry, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    let (c, f) = (g.in_channels, g.out_channels);
    for py in 0..g.stride[0].min(g.input[0]) {
        for px in 0..g.stride[1].min(g.input[1]) {
            let phases = [Phase::new(g, 0, py), Phase::new(g, 1, px)];
            let place = GridMap {
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
            let tap = |ky: &usize, kx: &usize| (ky * g.kernel[1] + kx) * c * f;
            let taps: Vec<usize> = phases[0]
                .taps
                .iter()
                .flat_map(|ky| phases[1].taps.iter().map(move |kx| tap(ky, kx)))
                .collect();
            let right = BOperand { values: w, taps, inner: f, columns: c, stride: f, transposed: true };
            if right.taps.is_empty() {
                fill_zero(&place, g.batch, dx);
                continue;
            }
            // SAFETY: the grid's points are distinct pixels of the input.
            unsafe {
                product(&rows, &PackedB::new(isa, &right), Init::Zero, Activation::Linear, &place, dx)
            };
        }
    }
}

pub fn kernel_gradient(isa: Isa, g: &Conv2dGeometry, dy: &[f32], x: &[f32], dw: &mut [f32]) {
    let (c, f) = (g.in_channels, g.out_channels);
    match algorithm(Pass::KernelGrad, isa, g, fast_math()) {
        Algorithm::Winograd { .. } => {
            let g = winograd_geometry(Pass::KernelGrad, g, fast_math());
            winograd::kernel_gradient(isa, &g, dy, x, dw);
        }
        Algorithm::DirectRgb => rgb_conv::kernel_gradient(isa, g, dy, x, dw),
        Algorithm::Dilated => Sparse::new(g).kernel_gradient(isa, dy, x, dw),
        Algorithm::PointwiseGemm => gemm_tn(isa, &Matrix::new(x, x.len() / c, c), dy, f, dw),
        Algorithm::ImplicitGemm => gemm_tn(isa, &patches(g, x), dy, f, dw),
    }
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

fn fill_zero(place: &GridMap, batch: usize, out: &mut [f32]) {
    use crate::backend::cpu::gemm::OutputMap;
    for row in 0..batch * place.grid[0] * place.grid[1] {
        out[place.offset(row)..][..place.channels].fill(0.0);
    }
}

/// The input pixels of one axis with coordinate ≡ phase (mod stride), and the taps that reach them.
pub struct Phase {
    pub count: usize,
    /// Ordered so that the output pixel they lead to ascends.
    pub taps: Vec<usize>,
    /// The output pixel that the first tap of the first input pixel leads to.
    pub origin: isize,
    pub tap_step: usize,
}

impl Phase {
    pub fn new(g: &Conv2dGeometry, axis: usize, phase: usize) -> Self {
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
