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

mod cases;
pub(crate) mod cpu;
pub(crate) mod device;
mod first_layer;
mod reference;
mod sparse;

pub use cases::cases;
pub use device::with_tile;

use crate::autograd::{Needs, record_all};
use crate::cpu::kept::Weights;
use crate::cpu::simd::isa;
use crate::error::{Error, Result};
use crate::ops::{Padding, Route, Then, precision, route};
use crate::pool::Buffer;
use crate::tensor::{Real, Shape, Tensor};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    pub stride: [usize; 2],
    pub padding: Padding,
    pub dilation: [usize; 2],
    /// The activation of the result.
    pub then: Then,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Conv2dOptions { stride: [1, 1], padding: Padding::Valid, dilation: [1, 1], then: Then::Nothing }
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
            if kernel[axis] == 0 || options.dilation[axis] == 0 {
                let got = format!("kernel {kernel:?} and dilation {:?}", options.dilation);
                return Err(Error::argument("conv2d", format!("expected sizes above 0, got {got}")));
            }
            let span = (kernel[axis] - 1) * options.dilation[axis] + 1;
            (output[axis], pad[axis], _) =
                options.padding.resolve(input[axis], span, options.stride[axis])?;
        }
        Ok(Windows { output, pad })
    }
}

/// Convolves pictures [N, H, W, C] with a kernel [kh, kw, C, F] and adds a bias `[F]`; then the options'
/// activation.
pub fn conv2d(x: &Tensor, w: &Tensor, b: Option<&Tensor>, options: Conv2dOptions) -> Result<Tensor> {
    let g = Conv2dGeometry::new(x.shape(), w.shape(), options)?;
    if let Some(b) = b
        && b.shape()[..] != [g.out_channels]
    {
        return Err(Error::shape("conv2d", format!("a bias of [{}]", g.out_channels), b.shape()));
    }
    let inputs: Vec<&Tensor> = [x, w].into_iter().chain(b).collect();
    let (precision, then) = (precision(), options.then);
    let route_taken = route("conv2d", &inputs)?;
    let fused = route_taken.fuses();
    let output = match route_taken {
        Route::F64 => forward::<f64>(&g, x, w, b, reference::forward),
        Route::Reference => forward::<f32>(&g, x, w, b, reference::forward),
        Route::Fast => {
            let kept = (!w.needs_grad()).then(|| w.kept());
            forward::<f32>(&g, x, w, b, |g, x, values, b, y| {
                cpu::forward(isa(), g, x, Weights { values, kept }, b, then, y)
            })
        }
        Route::Cuda(cuda) => {
            Tensor::from_memory(device::forward(cuda, &g, [x, w], b, precision, then)?, g.output_shape())
        }
    };
    let needs = Needs::of([x, w, b.unwrap_or(w)]);
    let has_bias = b.is_some();
    let saved_x = needs.0[1].then(|| x.detach());
    let saved_w = needs.0[0].then(|| w.detach());
    let constant = !w.needs_grad();
    let kernel_shape = w.shape();
    let made = then.made(fused, &output, &needs);
    let output = record_all("conv2d", &inputs, output, move |dy| {
        let dy = then.through(made.as_ref(), dy)?;
        let dx = saved_w.map(|w| {
            let shape = g.input_shape();
            Ok(match route("conv2d", &[&dy, &w])? {
                Route::F64 => gradient::<f64>(shape, &dy, &w, &g, reference::input_gradient),
                Route::Reference => gradient::<f32>(shape, &dy, &w, &g, reference::input_gradient),
                Route::Fast => gradient::<f32>(shape, &dy, &w, &g, |g, dy, values, dx| {
                    let kept = constant.then(|| w.kept());
                    cpu::input_gradient(isa(), g, dy, Weights { values, kept }, dx)
                }),
                Route::Cuda(cuda) => {
                    Tensor::from_memory(device::input_gradient(cuda, &g, &dy, &w, precision)?, shape)
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
                    Tensor::from_memory(device::kernel_gradient(cuda, &g, &dy, &x, precision)?, shape)
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
    then.complete(fused, output)
}

fn forward<T: Real>(
    g: &Conv2dGeometry,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    kernel: impl Fn(&Conv2dGeometry, &[T], &[T], Option<&[T]>, &mut [T]),
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
    fn a_constant_input_costs_no_gradient() {
        let x = Tensor::full([1, 4, 4, 2], 1.0);
        let w = Tensor::full([3, 3, 2, 3], 0.5).leaf();
        let y = conv2d(&x, &w, None, Conv2dOptions::default()).unwrap();
        let gradients = y.backward_from(Tensor::full(y.shape(), 1.0)).unwrap();
        assert!(gradients.get(&x).is_none());
        assert!(gradients.get(&w).unwrap().to_vec_f64().iter().all(|&g| g == 4.0));
    }
}
