//! 2-D convolution (cross-correlation, as in every deep-learning framework).
//!
//! `x [N, H, W, C], w [kh, kw, C, F], b [F] → y [N, OH, OW, F]`:
//!
//! y(n, oy, ox, f) = b(f) + Σ_{ky, kx, c} x(n, iy, ix, c) · w(ky, kx, c, f),
//! with iy = oy·s + ky·d − pad (likewise ix), and x = 0 outside the image.
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
pub(crate) use cases::cases;

use crate::activation::Activation;
use crate::autograd::{Needs, record_all};
use crate::backend::cpu::prepack::{PrepackCache, WeightView};
use crate::context::{isa, precision};
use crate::error::{Error, Result};
use crate::ops::batch_norm::RunningStats;
use crate::ops::epilogue::{Epilogue, Fusable, Fused, Setting};
use crate::ops::{Padding, Route, route, span};
use crate::pool::Buffer;
use crate::tensor::{Real, Shape, Tensor};
use std::sync::Arc;

/// How the windows of a convolution lie, `[y, x]` on each axis; stride 1, valid, dilation 1 by default.
///
/// ```
/// use atrous::ops::{Conv2dOptions, Padding};
///
/// let options = Conv2dOptions::default();
/// assert_eq!((options.stride, options.padding, options.dilation), ([1, 1], Padding::Valid, [1, 1]));
/// assert_eq!(options.stride(2).same(), Conv2dOptions { stride: [2, 2], padding: Padding::Same, ..options });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Input pixels from one window to the next.
    pub stride: [usize; 2],
    /// Zeros around the image, by TensorFlow's two rules or a number of cells.
    pub padding: Padding,
    /// Input pixels from one tap of a window to the next: 1 is side by side, more is "atrous".
    pub dilation: [usize; 2],
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Conv2dOptions { stride: [1, 1], padding: Padding::Valid, dilation: [1, 1] }
    }
}

/// The same with one of them changed; the number is for both axes.
impl Conv2dOptions {
    /// Cells from window to window.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let (x, kernel) = (Tensor::ones([1, 7, 7, 2]), Tensor::ones([3, 3, 2, 1]));
    /// let y = x.conv2d(&kernel, None, Conv2dOptions::default().stride(2))?;
    /// assert_eq!(y.shape()[..], [1, 3, 3, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn stride(self, stride: usize) -> Self {
        Conv2dOptions { stride: [stride; 2], ..self }
    }

    /// Where the windows lie.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let (x, kernel) = (Tensor::ones([1, 7, 7, 2]), Tensor::ones([3, 3, 2, 1]));
    /// let y = x.conv2d(&kernel, None, Conv2dOptions::default().padding(Padding::Same))?;
    /// assert_eq!(y.shape()[..], [1, 7, 7, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn padding(self, padding: Padding) -> Self {
        Conv2dOptions { padding, ..self }
    }

    /// [`Padding::Same`]: with stride 1 the output is as large as the input.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let (x, kernel) = (Tensor::ones([1, 7, 7, 2]), Tensor::ones([3, 3, 2, 1]));
    /// let y = x.conv2d(&kernel, None, Conv2dOptions::default().same())?;
    /// assert_eq!(y.shape()[..], [1, 7, 7, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn same(self) -> Self {
        self.padding(Padding::Same)
    }

    /// Cells from tap to tap.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let (x, kernel) = (Tensor::ones([1, 7, 7, 2]), Tensor::ones([3, 3, 2, 1]));
    /// let y = x.conv2d(&kernel, None, Conv2dOptions::default().dilation(2))?;
    /// assert_eq!(y.shape()[..], [1, 3, 3, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn dilation(self, dilation: usize) -> Self {
        Conv2dOptions { dilation: [dilation; 2], ..self }
    }
}

/// Everything a kernel needs to know about one convolution; `[y, x]` on each axis.
///
/// ```
/// use atrous::ops::Conv2dOptions;
/// use atrous::ops::conv2d::Conv2dGeometry;
///
/// let (images, kernel) = ([2, 224, 224, 3].into(), [7, 7, 3, 64].into());
/// let g = Conv2dGeometry::new(images, kernel, Conv2dOptions::default().stride(2).same())?;
/// assert_eq!(g.output_shape()[..], [2, 112, 112, 64]);
/// assert_eq!(g.pad, [2, 2]); // of 5 cells; the odd one comes after the last pixel
/// assert_eq!(g.flops(), 2.0 * (7 * 7 * 3) as f64 * (2 * 112 * 112 * 64) as f64);
/// # Ok::<(), atrous::Error>(())
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dGeometry {
    /// N, the images.
    pub batch: usize,
    /// [H, W] in pixels, without padding.
    pub input: [usize; 2],
    /// C, which every filter sees all of.
    pub in_channels: usize,
    /// [OH, OW], the windows along each axis.
    pub output: [usize; 2],
    /// F, the filters.
    pub out_channels: usize,
    /// [kh, kw], counted in taps: dilation does not enlarge it.
    pub kernel: [usize; 2],
    /// Input pixels from one window to the next.
    pub stride: [usize; 2],
    /// Input pixels from one tap to the next.
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

    /// `[N, OH, OW, F]`
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

/// A convolution's operands besides its images: conv2d's, or depthwise_conv2d's.
#[derive(Clone, Copy)]
pub(crate) struct Convolution<'a> {
    pub kernel: &'a Tensor,
    pub bias: Option<&'a Tensor>,
    pub options: Conv2dOptions,
    /// Where layouts of the kernel may be kept: its owner's.
    pub prepack: Option<&'a Arc<PrepackCache>>,
}

impl<'a> Convolution<'a> {
    /// Without a place for layouts of the kernel.
    pub(crate) fn new(kernel: &'a Tensor, bias: Option<&'a Tensor>, options: Conv2dOptions) -> Self {
        Convolution { kernel, bias, options, prepack: None }
    }

    /// Where layouts of the kernel are kept: nowhere while it trains, for it changes in each step.
    pub(crate) fn cache(&self) -> Option<(&'a PrepackCache, u64)> {
        let cache = self.prepack.filter(|_| !self.kernel.requires_grad())?;
        Some((cache, self.kernel.version()))
    }

    /// An error where the bias is not of one number a channel of the result.
    pub(crate) fn check_bias(&self, op: &'static str, channels: usize) -> Result<()> {
        match self.bias {
            Some(bias) if bias.shape()[..] != [channels] => {
                Err(Error::shape(op, format!("a bias of [{channels}]"), bias.shape()))
            }
            _ => Ok(()),
        }
    }

    /// Which of x, kernel and bias need a gradient.
    pub(crate) fn needs(&self, x: &Tensor) -> Needs<3> {
        Needs::of([x, self.kernel, self.bias.unwrap_or(self.kernel)])
    }
}

/// Convolves images [N, H, W, C] with a kernel [kh, kw, C, F] and adds a bias `[F]`.
///
/// # Errors
/// Where shapes, types or devices do not fit together.
///
/// See [`Tensor::conv2d`], which has an example.
pub fn conv2d(x: &Tensor, w: &Tensor, b: Option<&Tensor>, options: Conv2dOptions) -> Result<Tensor> {
    let convolution = Convolution::new(w, b, options);
    Ok(conv2d_fused(x, convolution, Epilogue::default())?.y)
}

/// [`conv2d`], and what its epilogue makes of the result: in the kernel's pass where it can.
pub(crate) fn conv2d_fused(
    x: &Tensor,
    convolution: Convolution,
    mut epilogue: Epilogue,
) -> Result<Fused> {
    let Convolution { kernel, bias, options, .. } = convolution;
    let g = Conv2dGeometry::new(x.shape(), kernel.shape(), options)?;
    convolution.check_bias("conv2d", g.out_channels)?;
    let inputs: Vec<&Tensor> = [x, kernel].into_iter().chain(bias).chain(&epilogue.residual).collect();
    let route = route("conv2d", &inputs)?;
    let setting = Setting::new(&route, inputs.iter().any(|input| Needs::of([*input]).any()));
    let in_its_memory = |residual: &mut Tensor| {
        let fits = residual.shape() == g.output_shape() && g.fuses_residual(setting).is_ok();
        fits && residual.is_unique()
    };
    if let Some(residual) = epilogue.residual.take_if(in_its_memory) {
        let y = add_to(residual, &g, x, convolution);
        return Ok(epilogue.apply(y)?.into());
    }
    let activation = epilogue.take_activation();
    if epilogue.only_pools() && g.fuses_pool(setting).is_ok() {
        return Ok(pooled(&g, x, convolution, activation).into());
    }
    let plain = activation == Activation::Linear && epilogue.is_empty();
    let statistics = plain && epilogue.statistics && g.fuses_statistics(setting).is_ok();
    let Fused { y, statistics } = convolve(g, route, x, convolution, activation, statistics)?;
    Ok(Fused { y: epilogue.apply(y)?, statistics })
}

/// What [`conv2d_fused`] makes in its kernel's pass, and why not.
impl Conv2dGeometry {
    /// y + residual, in the residual's memory: the sum of a block that ends with a 1×1 convolution.
    pub(crate) fn fuses_residual(&self, setting: Setting) -> Fusable {
        setting.unrecorded_on_cpu()?;
        match algorithm::is_pointwise(self) {
            true => Ok(()),
            false => Err("only a 1×1 convolution adds to what is there"),
        }
    }

    /// The largest of each 2×2 outputs: the larger image is never written.
    pub(crate) fn fuses_pool(&self, setting: Setting) -> Fusable {
        match cpu::pools(setting.unrecorded_on_cpu()?, self) {
            true => Ok(()),
            false => Err("only Winograd's tiles hold whole squares of outputs"),
        }
    }

    /// Statistics of its result, for the batch norm after it.
    pub(crate) fn fuses_statistics(&self, setting: Setting) -> Fusable {
        match cpu::takes_moments(setting.on_cpu()?, self) {
            true => Ok(()),
            false => Err("its kernel does not make whole rows of pixels, or has too few"),
        }
    }
}

/// The convolution itself; an activation that kernels fuse, and statistics where they take them.
fn convolve(
    g: Conv2dGeometry,
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
        Route::F64 => forward::<f64>(&g, x, w, b, reference::forward),
        Route::Reference => forward::<f32>(&g, x, w, b, reference::forward),
        Route::Fast => {
            let cache = convolution.cache();
            forward::<f32>(&g, x, w, b, |g, x, values, b, y| {
                let weights = WeightView { values, cache };
                cpu::forward(isa(), g, x, weights, b, activation, moments.as_mut(), y)
            })
        }
        Route::Cuda(cuda) => Tensor::from_memory(
            cuda::forward(cuda, &g, [x, w], b, precision(), activation)?,
            g.output_shape(),
        ),
    };
    let needs = convolution.needs(x);
    let has_bias = b.is_some();
    let saved_x = needs.0[1].then(|| x.detach());
    let saved_w = needs.0[0].then(|| w.detach());
    let prepack = convolution.prepack.filter(|_| !w.requires_grad()).cloned();
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
                    let cache = prepack.as_deref().map(|cache| (cache, w.version()));
                    let w = WeightView { values, cache };
                    cpu::input_gradient(isa(), g, dy, w, dx)
                }),
                Route::Cuda(cuda) => {
                    Tensor::from_memory(cuda::input_gradient(cuda, &g, &dy, &w, precision())?, shape)
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
                    Tensor::from_memory(cuda::kernel_gradient(cuda, &g, &dy, &x, precision())?, shape)
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
    Ok(Fused { y: activation.complete(fused, output)?, statistics: moments.map(RunningStats::merge) })
}

/// The pooled convolution, where [`Conv2dGeometry::fuses_pool`].
fn pooled(g: &Conv2dGeometry, x: &Tensor, convolution: Convolution, activation: Activation) -> Tensor {
    let Convolution { kernel: w, bias, .. } = convolution;
    let [height, width] = g.output.map(|side| side / 2);
    let mut y = Buffer::<f32>::new(g.batch * height * width * g.out_channels);
    let weights = WeightView { values: w.values(), cache: convolution.cache() };
    cpu::forward_pooled(isa(), g, x.values(), weights, bias.map(|b| b.values()), activation, &mut y);
    Tensor::from_buffer(y, [g.batch, height, width, g.out_channels])
}

/// `residual` + the convolution, in the memory of the residual, where [`Conv2dGeometry::fuses_residual`].
fn add_to(mut residual: Tensor, g: &Conv2dGeometry, x: &Tensor, convolution: Convolution) -> Tensor {
    let Convolution { kernel: w, bias, .. } = convolution;
    let weights = WeightView { values: w.values(), cache: convolution.cache() };
    let bias = bias.map(|b| b.values());
    cpu::forward_onto(isa(), g, x.values(), weights, bias, residual.values_mut());
    residual.detach()
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

impl Tensor {
    /// [`conv2d`] of `[N, H, W, C]` with a kernel `[kh, kw, C, F]` and a bias `[F]` or `None`: `[N, H', W',
    /// F]`.
    ///
    /// ```
    /// use atrous::{Tensor, ops::Conv2dOptions};
    ///
    /// let (x, w) = (Tensor::ones([1, 4, 4, 1]), Tensor::ones([3, 3, 1, 2]));
    /// let y = x.conv2d(&w, None, Conv2dOptions::default().stride(2).same())?;
    /// assert_eq!(y.shape()[..], [1, 2, 2, 2]);
    /// # Ok::<(), atrous::Error>(())
    /// ```
    pub fn conv2d<'a>(
        &self,
        w: &Tensor,
        b: impl Into<Option<&'a Tensor>>,
        options: Conv2dOptions,
    ) -> Result<Tensor> {
        conv2d(self, w, b.into(), options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::epilogue::POOL;
    use crate::ops::max_pool2d;

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

    fn added(x: &Tensor, convolution: Convolution, residual: Tensor) -> Result<Tensor> {
        let epilogue = Epilogue { residual: Some(residual), ..Epilogue::default() };
        Ok(conv2d_fused(x, convolution, epilogue)?.y)
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
                        let convolution = Convolution::new(&w, b.as_ref(), options);
                        // Held by somebody else, its memory stays as it is.
                        let shared = added(&x, convolution, onto.clone()).unwrap();
                        let alone = added(&x, convolution, onto).unwrap();
                        assert_eq!(shared.values::<f32>(), expected.values::<f32>());
                        assert_eq!(alone.values::<f32>(), expected.values::<f32>());
                    }
                }
            });
        }
        let (x, w) = (noise(&[1, 2, 2, 3]), noise(&[1, 1, 3, 4]).leaf());
        let convolution = Convolution::new(&w, None, Conv2dOptions::default());
        assert!(added(&x, convolution, noise(&[1, 2, 2, 4])).unwrap().requires_grad());
        assert!(added(&x, convolution, noise(&[1, 2, 3, 4])).is_err());
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
                        let options = Conv2dOptions { padding, ..Default::default() };
                        let (x, kernel, b) = (noise(&[2, h, w, c]), noise(&[k, k, c, f]), noise(&[f]));
                        let plain = conv2d(&x, &kernel, Some(&b), options).unwrap();
                        if plain.shape()[1].min(plain.shape()[2]) < 2 {
                            continue;
                        }
                        let expected = max_pool2d(&activation.apply(plain).unwrap(), POOL).unwrap();
                        let convolution = Convolution::new(&kernel, Some(&b), options);
                        let pooled = |x: &Tensor| {
                            let epilogue = Epilogue { activation, pool: true, ..Epilogue::default() };
                            conv2d_fused(x, convolution, epilogue).unwrap().y
                        };
                        let got = pooled(&x);
                        assert_eq!(got.shape(), expected.shape());
                        assert_eq!(got.values::<f32>(), expected.values::<f32>(), "{isa:?} {h} {w} {c}");
                        let leaf = pooled(&x.leaf());
                        assert!(
                            leaf.requires_grad() && leaf.values::<f32>() == expected.values::<f32>()
                        );
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
