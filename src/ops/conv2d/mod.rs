//! 2-D convolution (cross-correlation, as in every deep-learning framework).
//!
//! `x [N, H, W, C], w [kh, kw, C, F], b [F] → y [N, OH, OW, F]`:
//!
//! y(n, oy, ox, f) = b(f) + Σ_{ky, kx, c} x(n, iy, ix, c) · w(ky, kx, c, f),
//! with iy = oy·s + ky·d − pad (likewise ix), and x = 0 outside the picture.
//!
//! With g = ∂L/∂y:
//!
//! - ∂L/∂x(n, iy, ix, c) = Σ over the (ky, kx, oy, ox) that read that pixel, and f, of g · w
//! - ∂L/∂w(ky, kx, c, f) = Σ_{n, oy, ox} x(n, iy, ix, c) · g(n, oy, ox, f)
//! - ∂L/∂b(f) = Σ_{n, oy, ox} g(n, oy, ox, f)
//!
//! Arithmetic binds: 2 · outputs · kh · kw · C operations each for y, ∂x and ∂w.

pub(crate) mod algorithm;
mod cases;
pub(crate) mod cpu;
pub(crate) mod cuda;
mod dilated;
mod input_grad_rgb;
mod reference;
mod rgb_conv;

pub use algorithm::{Algorithm, Choice, Pass, choose};
pub use cases::cases;

use crate::activation::Activation;
use crate::autograd::{Needs, record_all};
use crate::backend::cpu::kept::Weights;
use crate::context::{fast_math, isa, precision, with_fast_math};
use crate::error::{Error, Result};
use crate::ops::batch_norm::{Moments, Statistics};
use crate::ops::{Padding, PoolOptions, Route, max_pool2d, route, span};
use crate::pool::Buffer;
use crate::tensor::{Real, Shape, Tensor};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    pub stride: [usize; 2],
    pub padding: Padding,
    pub dilation: [usize; 2],
    /// The activation of the result.
    pub activation: Activation,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Conv2dOptions {
            stride: [1, 1],
            padding: Padding::Valid,
            dilation: [1, 1],
            activation: Activation::Linear,
        }
    }
}

/// Everything a kernel needs to know about one convolution; `[y, x]` on each axis.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dGeometry {
    pub batch: usize,
    pub input: [usize; 2],
    pub in_channels: usize,
    pub output: [usize; 2],
    pub out_channels: usize,
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Cells of padding before the first pixel.
    pub pad: [usize; 2],
}

impl Conv2dGeometry {
    /// The shape rule. `kernel`: [kh, kw, C, F].
    pub fn new(x: Shape, kernel: Shape, options: Conv2dOptions) -> Result<Self> {
        let (&[batch, h, w, c], &[kh, kw, kc, f]) = (&x[..], &kernel[..]) else {
            return Err(Error::shape(
                "conv2d",
                "pictures [N, H, W, C] and a kernel [kh, kw, C, F]",
                format!("{x} and {kernel}"),
            ));
        };
        if kc != c {
            let expected = format!("a kernel of {c} input channels for pictures {x}");
            return Err(Error::shape("conv2d", expected, kernel));
        }
        let Windows { output, pad } = Windows::new([h, w], [kh, kw], options)?;
        Shape::checked(&[batch, output[0], output[1], f])?;
        Ok(Conv2dGeometry {
            batch,
            input: [h, w],
            in_channels: c,
            output,
            out_channels: f,
            kernel: [kh, kw],
            stride: options.stride,
            dilation: options.dilation,
            pad,
        })
    }

    pub fn output_shape(&self) -> Shape {
        [self.batch, self.output[0], self.output[1], self.out_channels].into()
    }

    fn input_shape(&self) -> Shape {
        [self.batch, self.input[0], self.input[1], self.in_channels].into()
    }

    /// Operations of the forward pass, as the definition counts them.
    pub fn flops(&self) -> f64 {
        let outputs = self.output_shape().elements() as f64;
        2.0 * outputs * (self.kernel[0] * self.kernel[1] * self.in_channels) as f64
    }
}

/// Where the windows of a convolution lie; shared with depthwise convolution.
pub(crate) struct Windows {
    pub output: [usize; 2],
    pub pad: [usize; 2],
}

impl Windows {
    pub(crate) fn new(input: [usize; 2], kernel: [usize; 2], options: Conv2dOptions) -> Result<Self> {
        let (mut output, mut pad) = ([0; 2], [0; 2]);
        for axis in 0..2 {
            let span = span(kernel[axis], options.dilation[axis])?;
            (output[axis], pad[axis], _) =
                options.padding.resolve(input[axis], span, options.stride[axis])?;
        }
        Ok(Windows { output, pad })
    }
}

/// Convolves pictures [N, H, W, C] with a kernel [kh, kw, C, F] and adds a bias `[F]`; then the options'
/// activation.
pub fn conv2d(x: &Tensor, w: &Tensor, b: Option<&Tensor>, options: Conv2dOptions) -> Result<Tensor> {
    let (fused, after) = options.activation.split();
    let (y, _) = conv2d_with_statistics(x, w, b, Conv2dOptions { activation: fused, ..options }, false)?;
    after.apply(y)
}

/// [`conv2d`], and the statistics of its result, if they are wanted and its kernel can tell them: for the batch norm that comes after it.
pub(crate) fn conv2d_with_statistics(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    options: Conv2dOptions,
    statistics: bool,
) -> Result<(Tensor, Option<Statistics>)> {
    let g = Conv2dGeometry::new(x.shape(), w.shape(), options)?;
    if let Some(b) = b
        && b.shape()[..] != [g.out_channels]
    {
        return Err(Error::shape("conv2d", format!("a bias of [{}]", g.out_channels), b.shape()));
    }
    let inputs: Vec<&Tensor> = [x, w].into_iter().chain(b).collect();
    let (precision, fast, activation) = (precision(), fast_math(), options.activation);
    let route_taken = route("conv2d", &inputs)?;
    let fused = route_taken.fuses();
    let mut moments = None;
    let output = match route_taken {
        Route::F64 => forward::<f64>(&g, x, w, b, reference::forward),
        Route::Reference => forward::<f32>(&g, x, w, b, reference::forward),
        Route::Fast => {
            let kept = (!w.needs_grad()).then(|| w.kept());
            let wanted = statistics && activation == Activation::Linear && cpu::takes_moments(isa(), &g);
            moments = wanted.then(|| Moments::new(isa(), g.output_shape()));
            forward::<f32>(&g, x, w, b, |g, x, values, b, y| {
                cpu::forward(isa(), g, x, Weights { values, kept }, b, activation, moments.as_mut(), y)
            })
        }
        Route::Cuda(cuda) => Tensor::from_memory(
            cuda::forward(cuda, &g, [x, w], b, precision, activation)?,
            g.output_shape(),
        ),
    };
    let needs = Needs::of([x, w, b.unwrap_or(w)]);
    let has_bias = b.is_some();
    let saved_x = needs.0[1].then(|| x.detach());
    let saved_w = needs.0[0].then(|| w.detach());
    let constant = !w.needs_grad();
    let kernel_shape = w.shape();
    let made = activation.made(fused, &output, &needs);
    let output = record_all("conv2d", &inputs, output, move |dy| {
        let dy = activation.through(made.as_ref(), dy)?;
        let dx = saved_w.map(|w| {
            let shape = g.input_shape();
            Ok(match route("conv2d", &[&dy, &w])? {
                Route::F64 => gradient::<f64>(shape, &dy, &w, &g, reference::input_gradient),
                Route::Reference => gradient::<f32>(shape, &dy, &w, &g, reference::input_gradient),
                Route::Fast => gradient::<f32>(shape, &dy, &w, &g, |g, dy, values, dx| {
                    let kept = constant.then(|| w.kept());
                    let w = Weights { values, kept };
                    with_fast_math(fast, || cpu::input_gradient(isa(), g, dy, w, dx))
                }),
                Route::Cuda(cuda) => {
                    Tensor::from_memory(cuda::input_gradient(cuda, &g, &dy, &w, precision)?, shape)
                }
            })
        });
        let dw = saved_x.map(|x| {
            let shape = kernel_shape;
            Ok(match route("conv2d", &[&dy, &x])? {
                Route::F64 => gradient::<f64>(shape, &dy, &x, &g, reference::kernel_gradient),
                Route::Reference => gradient::<f32>(shape, &dy, &x, &g, reference::kernel_gradient),
                Route::Fast => gradient::<f32>(shape, &dy, &x, &g, |g, dy, x, dw| {
                    cpu::kernel_gradient(isa(), g, dy, x, dw)
                }),
                Route::Cuda(cuda) => {
                    Tensor::from_memory(cuda::kernel_gradient(cuda, &g, &dy, &x, precision)?, shape)
                }
            })
        });
        let (dx, dw) = (dx.transpose()?, dw.transpose()?);
        let mut all = vec![dx, dw];
        if has_bias {
            let db = needs.0[2].then(|| crate::ops::reduce::sum_axes(&dy, 0..3)).transpose()?;
            all.push(db);
        }
        Ok(all)
    });
    Ok((activation.complete(fused, output)?, moments.map(Moments::merge)))
}

/// max_pool2d of 2×2 of conv2d(x, w, b), where no gradient is asked for in one pass: the larger picture is never written.
pub(crate) fn conv2d_pooled(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    options: Conv2dOptions,
) -> Result<Tensor> {
    let g = Conv2dGeometry::new(x.shape(), w.shape(), options)?;
    let inputs: Vec<&Tensor> = [x, w].into_iter().chain(b).collect();
    let fast = matches!(route("conv2d", &inputs)?, Route::Fast) && cpu::pools(isa(), &g);
    let biased = b.is_none_or(|b| b.shape()[..] == [g.out_channels]);
    if !(fast && biased) || Needs::of([x, w, b.unwrap_or(w)]).any() {
        let pool = PoolOptions { pool: [2; 2], stride: [2; 2], padding: Padding::Valid };
        return max_pool2d(&conv2d(x, w, b, options)?, pool);
    }
    let [height, width] = g.output.map(|side| side / 2);
    let mut y = Buffer::<f32>::new(g.batch * height * width * g.out_channels);
    let weights = Weights { values: w.values(), kept: Some(w.kept()) };
    let bias = b.map(|b| b.values());
    cpu::forward_pooled(isa(), &g, x.values(), weights, bias, options.activation, &mut y);
    Ok(Tensor::from_buffer(y, [g.batch, height, width, g.out_channels]))
}

/// `onto` + conv2d(x, w, b), in the memory of `onto` where nobody else holds it and no gradient is asked for: the
/// residual sum of a block that ends with a 1×1 convolution, without a pass of its own.
pub(crate) fn conv2d_onto(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    options: Conv2dOptions,
    mut onto: Tensor,
) -> Result<Tensor> {
    let g = Conv2dGeometry::new(x.shape(), w.shape(), options)?;
    let inputs: Vec<&Tensor> = [x, w, &onto].into_iter().chain(b).collect();
    let fast = matches!(route("conv2d", &inputs)?, Route::Fast) && algorithm::is_pointwise(&g);
    let fits = onto.shape() == g.output_shape() && options.activation == Activation::Linear;
    let biased = b.is_none_or(|b| b.shape()[..] == [g.out_channels]);
    let constant = !Needs::of([x, w, &onto, b.unwrap_or(w)]).any();
    if !(fast && fits && biased && constant && onto.is_unique()) {
        return crate::ops::add(&conv2d(x, w, b, options)?, &onto);
    }
    let weights = Weights { values: w.values(), kept: Some(w.kept()) };
    cpu::forward_onto(isa(), &g, x.values(), weights, b.map(|b| b.values()), onto.values_mut());
    Ok(onto.detach())
}

fn forward<T: Real>(
    g: &Conv2dGeometry,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    kernel: impl FnOnce(&Conv2dGeometry, &[T], &[T], Option<&[T]>, &mut [T]),
) -> Tensor {
    let mut out = Buffer::<T>::new(g.output_shape().elements());
    kernel(g, x.values(), w.values(), b.map(|b| b.values()), &mut out);
    Tensor::from_buffer(out, g.output_shape())
}

/// A gradient computed from the output's gradient and one saved factor.
fn gradient<T: Real>(
    shape: Shape,
    dy: &Tensor,
    factor: &Tensor,
    g: &Conv2dGeometry,
    kernel: impl Fn(&Conv2dGeometry, &[T], &[T], &mut [T]),
) -> Tensor {
    let mut out = Buffer::<T>::new(shape.elements());
    kernel(g, dy.values(), factor.values(), &mut out);
    Tensor::from_buffer(out, shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
        Tensor::from_slice(&values, shape).unwrap()
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused_by_name() {
        let x = Tensor::zeros([1, 5, 5, 3]);
        let bad =
            |w: Tensor, b: Option<Tensor>, o| conv2d(&x, &w, b.as_ref(), o).unwrap_err().to_string();
        let options = Conv2dOptions::default();
        assert!(bad(Tensor::zeros([3, 3, 4, 2]), None, options).contains("3 input channels"));
        assert!(bad(Tensor::zeros([3, 3, 3]), None, options).contains("[kh, kw, C, F]"));
        assert!(
            bad(Tensor::zeros([3, 3, 3, 2]), Some(Tensor::zeros([3])), options).contains("bias of [2]")
        );
        assert!(bad(Tensor::zeros([7, 7, 3, 2]), None, options).contains("valid"));
        let zero = Conv2dOptions { stride: [0, 1], ..options };
        assert!(bad(Tensor::zeros([3, 3, 3, 2]), None, zero).contains("stride"));
        assert!(bad(Tensor::scalar(1.0f64), None, options).contains("conv2d"));
    }

    #[test]
    fn a_sum_in_the_convolutions_pass_is_the_sum_after_it_to_the_bit() {
        for isa in crate::backend::cpu::simd::supported() {
            crate::context::with_isa(isa, || {
                for (c, f, k) in [(24, 40, 1), (3, 5, 1), (300, 33, 1), (4, 6, 3)] {
                    let (x, w) = (noise(&[2, 5, 7, c]), noise(&[k, k, c, f]));
                    let options = Conv2dOptions { padding: Padding::Same, ..Default::default() };
                    for b in [Some(noise(&[f])), None] {
                        let onto = noise(&[2, 5, 7, f]);
                        let plain = conv2d(&x, &w, b.as_ref(), options).unwrap();
                        let expected = crate::ops::add(&plain, &onto).unwrap();
                        // Held by somebody else, its memory stays as it is.
                        let shared = conv2d_onto(&x, &w, b.as_ref(), options, onto.clone()).unwrap();
                        let alone = conv2d_onto(&x, &w, b.as_ref(), options, onto).unwrap();
                        assert_eq!(shared.values::<f32>(), expected.values::<f32>());
                        assert_eq!(alone.values::<f32>(), expected.values::<f32>());
                    }
                }
            });
        }
        let (x, w) = (noise(&[1, 2, 2, 3]), noise(&[1, 1, 3, 4]).leaf());
        let y = conv2d_onto(&x, &w, None, Conv2dOptions::default(), noise(&[1, 2, 2, 4])).unwrap();
        assert!(y.needs_grad());
        let (onto, options) = (noise(&[1, 2, 3, 4]), Conv2dOptions::default());
        assert!(conv2d_onto(&x, &w, None, options, onto).is_err());
    }

    #[test]
    fn pooling_in_the_convolutions_pass_is_pooling_after_it_to_the_bit() {
        for isa in crate::backend::cpu::simd::supported() {
            crate::context::with_isa(isa, || {
                for (h, w, c, f, k) in
                    [(8, 6, 16, 40, 3), (7, 9, 33, 17, 3), (9, 8, 16, 16, 5), (5, 4, 3, 4, 3)]
                {
                    for (padding, activation) in
                        [(Padding::Same, Activation::Relu), (Padding::Valid, Activation::Linear)]
                    {
                        if padding == Padding::Valid && h.min(w) < k {
                            continue;
                        }
                        let options = Conv2dOptions { padding, activation, ..Default::default() };
                        let (x, kernel, b) = (noise(&[2, h, w, c]), noise(&[k, k, c, f]), noise(&[f]));
                        let pool = PoolOptions { pool: [2; 2], stride: [2; 2], padding: Padding::Valid };
                        let plain = conv2d(&x, &kernel, Some(&b), options).unwrap();
                        if plain.shape()[1].min(plain.shape()[2]) < 2 {
                            continue;
                        }
                        let expected = max_pool2d(&plain, pool).unwrap();
                        let got = conv2d_pooled(&x, &kernel, Some(&b), options).unwrap();
                        assert_eq!(got.shape(), expected.shape());
                        assert_eq!(got.values::<f32>(), expected.values::<f32>(), "{isa:?} {h} {w} {c}");
                        let leaf = conv2d_pooled(&x.leaf(), &kernel, Some(&b), options).unwrap();
                        assert!(leaf.needs_grad() && leaf.values::<f32>() == expected.values::<f32>());
                    }
                }
            });
        }
    }

    #[test]
    fn a_constant_input_costs_no_gradient() {
        let x = Tensor::full([1, 4, 4, 2], 1.0);
        let w = Tensor::full([3, 3, 2, 3], 0.5).leaf();
        let y = conv2d(&x, &w, None, Conv2dOptions::default()).unwrap();
        let gradients = y.backward_from(Tensor::full(y.shape(), 1.0)).unwrap();
        assert!(gradients.get(&x).is_none());
        assert!(gradients.get(&w).unwrap().to_vec_f64().iter().all(|&g| g == 4.0));
    }
}
