//! Depthwise 2-D convolution: every channel with its own window.
//!
//! `x [N, H, W, C], w [kh, kw, C, 1], b [C] → y [N, OH, OW, C]`:
//!
//! y(n, oy, ox, c) = b(c) + Σ_{ky, kx} x(n, iy, ix, c) · w(ky, kx, c),
//! with iy = oy·s + ky·d − pad (likewise ix), and x = 0 outside the image.
//!
//! With g = ∂L/∂y: ∂x gathers g·w over the taps that read a pixel, ∂w(ky, kx, c) = Σ x·g over
//! all windows, ∂b = Σ g.
//!
//! Bytes bind: 2·kh·kw operations for each 4-byte value read and written. Vectors run along the
//! channels, so every load is contiguous.

mod algorithm;
mod cpu;
pub(crate) mod cuda;

pub use algorithm::{Algorithm, choose};
pub(crate) use cpu::ByRows;

use crate::activation::Activation;
use crate::autograd::record_all;
use crate::cases::{Case, Input, Size};
use crate::context::isa;
use crate::error::{Error, Result};
use crate::ops::batch_norm::RunningStats;
use crate::ops::conv2d::{Conv2dOptions, Convolution, Windows};
use crate::ops::epilogue::{Epilogue, Fusable, Fused, Setting};
use crate::ops::{Padding, Route, route};
use crate::pool::Buffer;
use crate::tensor::{Real, Shape, Tensor};

/// `[y, x]` on each axis.
///
/// ```
/// use atrous::ops::Conv2dOptions;
/// use atrous::ops::depthwise_conv2d::DepthwiseGeometry;
///
/// let (images, kernel) = ([2, 28, 28, 64].into(), [3, 3, 64, 1].into());
/// let g = DepthwiseGeometry::new(images, kernel, Conv2dOptions::default().stride(2).same())?;
/// assert_eq!(g.output_shape()[..], [2, 14, 14, 64]);
/// assert_eq!(g.flops(), 2.0 * 9.0 * (2 * 14 * 14 * 64) as f64);
/// # Ok::<(), atrous::Error>(())
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthwiseGeometry {
    /// N, the images.
    pub batch: usize,
    /// [H, W] in pixels, without padding.
    pub input: [usize; 2],
    /// [OH, OW], the windows along each axis.
    pub output: [usize; 2],
    /// C, of input and output alike: each has one filter.
    pub channels: usize,
    /// [kh, kw], counted in taps: dilation does not enlarge it.
    pub kernel: [usize; 2],
    /// Input pixels from one window to the next.
    pub stride: [usize; 2],
    /// Input pixels from one tap to the next.
    pub dilation: [usize; 2],
    /// Cells of padding before the first pixel; those after the last follow from the other sizes.
    pub pad: [usize; 2],
}

impl DepthwiseGeometry {
    /// The shape rule. `kernel`: [kh, kw, C, 1].
    pub fn new(x: Shape, kernel: Shape, options: Conv2dOptions) -> Result<Self> {
        match (&x[..], &kernel[..]) {
            (&[batch, h, w, channels], &[kh, kw, kc, 1]) if kc == channels => {
                let Windows { output, pad } = Windows::new([h, w], [kh, kw], options)?;
                Shape::checked(&[batch, output[0], output[1], channels])?;
                Ok(DepthwiseGeometry {
                    batch,
                    input: [h, w],
                    output,
                    channels,
                    kernel: [kh, kw],
                    stride: options.stride,
                    dilation: options.dilation,
                    pad,
                })
            }
            _ => Err(Error::shape(
                "depthwise_conv2d",
                "pictures [N, H, W, C] and a kernel [kh, kw, C, 1]",
                format!("{x} and {kernel}"),
            )),
        }
    }

    /// `[N, OH, OW, C]`
    pub fn output_shape(&self) -> Shape {
        [self.batch, self.output[0], self.output[1], self.channels].into()
    }

    /// Multiplications and additions of the forward pass: 2·kh·kw an output, whatever the padding.
    pub fn flops(&self) -> f64 {
        2.0 * self.output_shape().elements() as f64 * (self.kernel[0] * self.kernel[1]) as f64
    }

    /// The input coordinate that tap k of output o reads, if it is inside the image.
    #[inline(always)]
    fn input_of(&self, axis: usize, o: usize, k: usize) -> Option<usize> {
        let i = (o * self.stride[axis] + k * self.dilation[axis]).checked_sub(self.pad[axis])?;
        (i < self.input[axis]).then_some(i)
    }

    /// The output coordinate whose tap k reads input i, if there is one.
    #[inline(always)]
    fn output_of(&self, axis: usize, i: usize, k: usize) -> Option<usize> {
        let shifted = (i + self.pad[axis]).checked_sub(k * self.dilation[axis])?;
        let o = shifted / self.stride[axis];
        (shifted % self.stride[axis] == 0 && o < self.output[axis]).then_some(o)
    }
}

/// Convolves each channel of x [N, H, W, C] with its own window of w [kh, kw, C, 1], and adds a bias `[C]`.
///
/// # Errors
/// Where shapes, types or devices do not fit together.
///
/// See [`Tensor::depthwise_conv2d`], which has an example.
pub fn depthwise_conv2d(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    options: Conv2dOptions,
) -> Result<Tensor> {
    let convolution = Convolution::new(w, b, options);
    Ok(depthwise_conv2d_fused(x, convolution, Epilogue::default())?.y)
}

/// [`depthwise_conv2d`], and what its epilogue makes of the result: in the kernel's pass where it can.
pub(crate) fn depthwise_conv2d_fused(
    x: &Tensor,
    convolution: Convolution,
    mut epilogue: Epilogue,
) -> Result<Fused> {
    let Convolution { kernel: w, bias: b, options, .. } = convolution;
    let g = DepthwiseGeometry::new(x.shape(), w.shape(), options)?;
    convolution.check_bias("depthwise_conv2d", g.channels)?;
    let inputs: Vec<&Tensor> = [x, w].into_iter().chain(b).collect();
    let route = route("depthwise_conv2d", &inputs)?;
    let needs = convolution.needs(x);
    let activation = epilogue.take_activation();
    let plain = activation == Activation::Linear && epilogue.is_empty();
    let told = g.fuses_statistics(Setting::new(&route, needs.any())).is_ok();
    let statistics = plain && epilogue.statistics && told;
    let Fused { y, statistics } = convolve(g, route, x, convolution, activation, statistics)?;
    Ok(Fused { y: epilogue.apply(y)?, statistics })
}

impl DepthwiseGeometry {
    /// Whether its kernel takes statistics of its result in passing, for the batch norm after it.
    pub(crate) fn fuses_statistics(&self, setting: Setting) -> Fusable {
        setting.on_cpu()?;
        match RunningStats::tile_is_whole_rows(&self.output_shape()) {
            true => Ok(()),
            false => Err("its rows of pixels are too long for a tile of the statistics"),
        }
    }
}

/// The convolution itself; an activation that kernels fuse, and statistics where they take them.
fn convolve(
    g: DepthwiseGeometry,
    route_taken: Route,
    x: &Tensor,
    convolution: Convolution,
    activation: Activation,
    statistics: bool,
) -> Result<Fused> {
    let Convolution { kernel: w, bias: b, .. } = convolution;
    let inputs: Vec<&Tensor> = [x, w].into_iter().chain(b).collect();
    let fused = route_taken.fuses();
    let mut moments = statistics.then(|| RunningStats::new(isa(), g.output_shape()));
    let output = match route_taken {
        Route::F64 => reference::forward::<f64>(&g, x, w, b),
        Route::Reference => reference::forward::<f32>(&g, x, w, b),
        Route::Fast => cpu::forward(&g, x, w, b, activation, moments.as_mut()),
        Route::Cuda(cuda) => cuda::forward(cuda, &g, [x, w], b, activation)?,
    };
    let needs = convolution.needs(x);
    let has_bias = b.is_some();
    let saved_x = needs.0[1].then(|| x.detach());
    let saved_w = needs.0[0].then(|| w.detach());
    let made = activation.made(fused, &output, &needs);
    let output = record_all("depthwise_conv2d", &inputs, output, move |dy| {
        let dy = activation.through(made.as_ref(), dy)?;
        let (x, w) = (saved_x.as_ref(), saved_w.as_ref());
        let all: Vec<&Tensor> = [Some(&dy), x, w].into_iter().flatten().collect();
        let of_bias = needs.0[2] && has_bias;
        let sum = || of_bias.then(|| crate::ops::reduce::sum_axes(&dy, 0..3)).transpose();
        let [dx, dw, db] = match route("depthwise_conv2d", &all)? {
            Route::F64 => [
                w.map(|w| reference::input_gradient::<f64>(&g, &dy, w)),
                x.map(|x| reference::kernel_gradient::<f64>(&g, &dy, x)),
                sum()?,
            ],
            Route::Reference => [
                w.map(|w| reference::input_gradient::<f32>(&g, &dy, w)),
                x.map(|x| reference::kernel_gradient::<f32>(&g, &dy, x)),
                sum()?,
            ],
            Route::Fast => cpu::gradients(&g, &dy, x, w, of_bias),
            Route::Cuda(cuda) => {
                let (dx, dw) = cuda::gradients(cuda, &g, &dy, x, w)?;
                [dx, dw, sum()?]
            }
        };
        let mut all = vec![dx, dw];
        if has_bias {
            all.push(db);
        }
        Ok(all)
    });
    Ok(Fused { y: activation.complete(fused, output)?, statistics: moments.map(RunningStats::merge) })
}

mod reference {
    use super::*;

    /// Calls `f(output pixel, input pixel, tap)` for every tap that sees a pixel.
    fn for_each_tap(g: &DepthwiseGeometry, mut f: impl FnMut(usize, usize, usize)) {
        for output in 0..g.batch * g.output[0] * g.output[1] {
            let (ox, oy) = (output % g.output[1], output / g.output[1] % g.output[0]);
            let n = output / (g.output[1] * g.output[0]);
            for tap in 0..g.kernel[0] * g.kernel[1] {
                let (Some(iy), Some(ix)) =
                    (g.input_of(0, oy, tap / g.kernel[1]), g.input_of(1, ox, tap % g.kernel[1]))
                else {
                    continue;
                };
                f(output, (n * g.input[0] + iy) * g.input[1] + ix, tap);
            }
        }
    }

    pub fn forward<T: Real>(
        g: &DepthwiseGeometry,
        x: &Tensor,
        w: &Tensor,
        b: Option<&Tensor>,
    ) -> Tensor {
        let (x, w, c) = (x.values::<T>(), w.values::<T>(), g.channels);
        let mut y = Buffer::<T>::filled(g.output_shape().elements(), T::ZERO);
        if let Some(b) = b {
            y.chunks_mut(c).for_each(|row| row.copy_from_slice(b.values()));
        }
        for_each_tap(g, |output, input, tap| {
            for i in 0..c {
                y[output * c + i] += x[input * c + i] * w[tap * c + i];
            }
        });
        Tensor::from_buffer(y, g.output_shape())
    }

    pub fn input_gradient<T: Real>(g: &DepthwiseGeometry, dy: &Tensor, w: &Tensor) -> Tensor {
        let (dy, w, c) = (dy.values::<T>(), w.values::<T>(), g.channels);
        let shape = [g.batch, g.input[0], g.input[1], c];
        let mut dx = Buffer::<T>::filled(shape.iter().product(), T::ZERO);
        for_each_tap(g, |output, input, tap| {
            for i in 0..c {
                dx[input * c + i] += dy[output * c + i] * w[tap * c + i];
            }
        });
        Tensor::from_buffer(dx, shape)
    }

    pub fn kernel_gradient<T: Real>(g: &DepthwiseGeometry, dy: &Tensor, x: &Tensor) -> Tensor {
        let (dy, x, c) = (dy.values::<T>(), x.values::<T>(), g.channels);
        let mut dw = Buffer::<T>::filled(g.kernel[0] * g.kernel[1] * c, T::ZERO);
        for_each_tap(g, |output, input, tap| {
            for i in 0..c {
                dw[tap * c + i] += dy[output * c + i] * x[input * c + i];
            }
        });
        Tensor::from_buffer(dw, [g.kernel[0], g.kernel[1], c, 1])
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let case_then = |name: &str,
                     size,
                     x: [usize; 4],
                     k: usize,
                     (stride, padding, dilation),
                     bias: bool,
                     activation: Activation| {
        let (stride, dilation) = ([stride; 2], [dilation; 2]);
        let options = Conv2dOptions { stride, padding, dilation };
        let kernel = [k, k, x[3], 1];
        let g = DepthwiseGeometry::new(x.into(), kernel.into(), options).expect("a valid case");
        let mut inputs = vec![Input::new("x", x), Input::new("w", kernel)];
        if bias {
            inputs.push(Input::new("b", [x[3]]));
        }
        Case::new("depthwise_conv2d", name, size, inputs, move |t| {
            let convolution = Convolution::new(&t[1], t.get(2), options);
            Ok(depthwise_conv2d_fused(&t[0], convolution, activation.into())?.y)
        })
        .flops(g.flops())
    };
    let case = |name: &str, size, x, k, stride, padding, dilation, bias| {
        case_then(name, size, x, k, (stride, padding, dilation), bias, Activation::Linear)
    };
    use Padding::{Cells, Same, Valid};
    use Size::{Real, Tiny};
    vec![
        case("3x3_same", Tiny, [2, 7, 6, 5], 3, 1, Same, 1, true),
        case("3x3_valid", Tiny, [1, 5, 6, 3], 3, 1, Valid, 1, false),
        case("3x3_s2_even", Tiny, [1, 8, 8, 6], 3, 2, Same, 1, false),
        case("3x3_s2_padded_0_1", Tiny, [2, 8, 7, 6], 3, 2, Cells([0, 1]), 1, false),
        case("3x3_s2_padded_1_1_fours", Tiny, [1, 8, 10, 20], 3, 2, Cells([1, 1]), 1, true),
        case("3x3_s2_odd", Tiny, [2, 7, 9, 4], 3, 2, Same, 1, false),
        case("3x3_wide", Tiny, [1, 6, 6, 35], 3, 1, Same, 1, true),
        case("3x3_larger_than_input", Tiny, [1, 2, 2, 7], 3, 1, Same, 1, false),
        case("3x3_d2", Tiny, [1, 9, 8, 17], 3, 1, Same, 2, false),
        case("5x5_s2", Tiny, [1, 11, 10, 16], 5, 2, Same, 1, false),
        case("many_bands", Tiny, [2, 21, 5, 3], 3, 1, Same, 1, false),
        case_then("3x3_relu", Tiny, [2, 7, 6, 8], 3, (1, Same, 1), true, Activation::Relu),
        case_then("3x3_s2_relu6", Tiny, [1, 7, 6, 5], 3, (2, Same, 1), true, Activation::Relu6),
        case_then("3x3_d2_relu", Tiny, [1, 7, 6, 4], 3, (1, Same, 2), true, Activation::Relu),
        case("3x3_fours", Tiny, [2, 11, 13, 132], 3, 1, Same, 1, true),
        case("3x3_s2_fours", Tiny, [2, 9, 12, 8], 3, 2, Same, 1, true),
        case("3x3_d3_fours", Tiny, [1, 9, 8, 12], 3, 1, Same, 3, false),
        case("3x3_32_112_n4", Real, [4, 112, 112, 32], 3, 1, Same, 1, true)
            .peer("depthwise3x3", "[4] 32->32 112x112"),
        case("3x3_144_64_n16", Real, [16, 64, 64, 144], 3, 1, Same, 1, true)
            .peer("depthwise3x3", "[16] 144->144 64x64"),
        case("3x3_512_14_n4", Real, [4, 14, 14, 512], 3, 1, Same, 1, true)
            .peer("depthwise3x3", "[4] 512->512 14x14"),
        case("3x3_s2_96_128_n16", Real, [16, 128, 128, 96], 3, 2, Same, 1, true)
            .peer("depthwise3x3_s2", "[16] 96->96 128x128"),
    ]
}

impl Tensor {
    /// [`depthwise_conv2d`] of `[N, H, W, C]` with a kernel `[kh, kw, C, 1]` and a bias `[C]` or `None`: `[N,
    /// H', W', C]`.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let (x, kernel) = (Tensor::ones([1, 4, 4, 2]), Tensor::ones([3, 3, 2, 1]));
    /// let y = x.depthwise_conv2d(&kernel, None, Conv2dOptions::default())?;
    /// assert_eq!((&y.shape()[..], y.to_vec_f64()[0]), (&[1, 2, 2, 2][..], 9.0)); // each channel for itself
    /// # Ok::<(), Error>(())
    /// ```
    pub fn depthwise_conv2d<'a>(
        &self,
        w: &Tensor,
        b: impl Into<Option<&'a Tensor>>,
        options: Conv2dOptions,
    ) -> Result<Tensor> {
        depthwise_conv2d(self, w, b.into(), options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_multiplier_or_a_wrong_channel_count_is_refused() {
        let x = Tensor::zeros([1, 4, 4, 3]);
        let options = Conv2dOptions::default();
        assert!(depthwise_conv2d(&x, &Tensor::zeros([3, 3, 3, 2]), None, options).is_err());
        assert!(depthwise_conv2d(&x, &Tensor::zeros([3, 3, 4, 1]), None, options).is_err());
    }
}
