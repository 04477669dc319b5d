//! Dense (fully connected): `y [N, O] = x [N, I] · w [I, O] + b [O]`.
//!
//! With g = ∂L/∂y: ∂x = g·wᵀ, ∂w = xᵀ·g, ∂b = Σ_n g.
//!
//! At the batch sizes of training the bytes of w bind, not the arithmetic.

use crate::activation::Activation;
use crate::autograd::{Needs, record_gradients};
use crate::backend::cpu::gemm::{BOperand, Matrix, gemm_tn, is_skinny, multiply, skinny_gemm};
use crate::backend::cpu::skinny_gradients::times_transpose;
use crate::cases::{Case, Input, Size};
use crate::context::{isa, precision};
use crate::error::{Error, Result};
use crate::ops::conv2d::{self, Conv2dGeometry};
use crate::ops::{Route, route};
use crate::pool::Buffer;
use crate::tensor::{Gradient, LowRankGrad, Real, Shape, Tensor};

/// Sizes of the matrix product `[N, I] · [I, O]`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct DenseGeometry {
    /// N, the rows of x and y.
    pub batch: usize,
    /// I, the columns of x, the rows of w.
    pub inputs: usize,
    /// O, the columns of w and y, and the bias' length.
    pub outputs: usize,
}

impl DenseGeometry {
    /// The same as a convolution of images of one pixel.
    fn as_conv2d(self) -> Conv2dGeometry {
        Conv2dGeometry {
            batch: self.batch,
            input: [1; 2],
            in_channels: self.inputs,
            output: [1; 2],
            out_channels: self.outputs,
            kernel: [1; 2],
            stride: [1; 2],
            dilation: [1; 2],
            pad: [0; 2],
        }
    }
}

/// `x [N, I] · w [I, O] + b [O]` → `[N, O]`; an error where the shapes are not so.
///
/// See [`Tensor::dense`], which has an example.
pub fn dense(x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let (xs, ws) = (x.shape(), w.shape());
    let g = match (&xs[..], &ws[..]) {
        (&[batch, inputs], &[rows, outputs]) if rows == inputs => {
            DenseGeometry { batch, inputs, outputs }
        }
        _ => return Err(Error::shape("dense", "x [N, I] and w [I, O]", format!("{xs} and {ws}"))),
    };
    Shape::checked(&[g.batch, g.outputs])?;
    if let Some(b) = b
        && b.shape()[..] != [g.outputs]
    {
        return Err(Error::shape("dense", format!("a bias of [{}]", g.outputs), b.shape()));
    }
    let inputs: Vec<&Tensor> = [x, w].into_iter().chain(b).collect();
    let bias = b.map(Tensor::detach);
    let precision = precision();
    let output = match route("dense", &inputs)? {
        Route::F64 => reference::forward::<f64>(g, x, w, bias.as_ref()),
        Route::Reference => reference::forward::<f32>(g, x, w, bias.as_ref()),
        Route::Fast => cpu::forward(g, x, w, bias.as_ref()),
        Route::Cuda(cuda) => {
            let y =
                conv2d::cuda::forward(cuda, &g.as_conv2d(), [x, w], b, precision, Activation::Linear)?;
            Tensor::from_memory(y, [g.batch, g.outputs])
        }
    };
    let needs = Needs::of([x, w, b.unwrap_or(w)]);
    let has_bias = b.is_some();
    let saved_x = needs.0[1].then(|| x.detach());
    let saved_w = needs.0[0].then(|| w.detach());
    Ok(record_gradients("dense", &inputs, output, move |dy| {
        let dx = saved_w.map(|w| {
            Ok(match route("dense", &[&dy, &w])? {
                Route::F64 => reference::input_gradient::<f64>(g, &dy, &w),
                Route::Reference => reference::input_gradient::<f32>(g, &dy, &w),
                Route::Fast => cpu::input_gradient(g, &dy, &w),
                Route::Cuda(cuda) => {
                    let dx = conv2d::cuda::input_gradient(cuda, &g.as_conv2d(), &dy, &w, precision)?;
                    Tensor::from_memory(dx, [g.batch, g.inputs])
                }
            })
        });
        let dw = saved_x.map(|x| {
            Ok(match route("dense", &[&dy, &x])? {
                Route::F64 => reference::kernel_gradient::<f64>(g, &dy, &x).into(),
                Route::Reference => reference::kernel_gradient::<f32>(g, &dy, &x).into(),
                Route::Fast => cpu::kernel_gradient(g, &dy, &x),
                Route::Cuda(cuda) => {
                    let dw = conv2d::cuda::kernel_gradient(cuda, &g.as_conv2d(), &dy, &x, precision)?;
                    Tensor::from_memory(dw, [g.inputs, g.outputs]).into()
                }
            })
        });
        let (dx, dw): (Option<Tensor>, Option<Gradient>) = (dx.transpose()?, dw.transpose()?);
        let mut all = vec![dx.map(Gradient::Dense), dw];
        if has_bias {
            let db = needs.0[2].then(|| crate::ops::reduce::sum_axes(&dy, 0..1)).transpose()?;
            all.push(db.map(Gradient::Dense));
        }
        Ok(all)
    }))
}

mod reference {
    use super::*;

    pub fn forward<T: Real>(g: DenseGeometry, x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Tensor {
        let (x, w) = (x.values::<T>(), w.values::<T>());
        let mut y = Buffer::<T>::filled(g.batch * g.outputs, T::ZERO);
        for n in 0..g.batch {
            let y = &mut y[n * g.outputs..][..g.outputs];
            if let Some(b) = b {
                y.copy_from_slice(b.values());
            }
            for i in 0..g.inputs {
                let value = x[n * g.inputs + i];
                let row = &w[i * g.outputs..][..g.outputs];
                y.iter_mut().zip(row).for_each(|(y, &w)| *y += value * w);
            }
        }
        Tensor::from_buffer(y, [g.batch, g.outputs])
    }

    pub fn input_gradient<T: Real>(g: DenseGeometry, dy: &Tensor, w: &Tensor) -> Tensor {
        let (dy, w) = (dy.values::<T>(), w.values::<T>());
        let mut dx = Buffer::<T>::new(g.batch * g.inputs);
        for (at, dx) in dx.iter_mut().enumerate() {
            let (n, i) = (at / g.inputs, at % g.inputs);
            let (dy, w) = (&dy[n * g.outputs..][..g.outputs], &w[i * g.outputs..][..g.outputs]);
            *dx = dy.iter().zip(w).map(|(&dy, &w)| dy * w).sum();
        }
        Tensor::from_buffer(dx, [g.batch, g.inputs])
    }

    pub fn kernel_gradient<T: Real>(g: DenseGeometry, dy: &Tensor, x: &Tensor) -> Tensor {
        let (dy, x) = (dy.values::<T>(), x.values::<T>());
        let mut dw = Buffer::<T>::filled(g.inputs * g.outputs, T::ZERO);
        for n in 0..g.batch {
            let dy = &dy[n * g.outputs..][..g.outputs];
            for i in 0..g.inputs {
                let value = x[n * g.inputs + i];
                let row = &mut dw[i * g.outputs..][..g.outputs];
                row.iter_mut().zip(dy).for_each(|(w, &dy)| *w += value * dy);
            }
        }
        Tensor::from_buffer(dw, [g.inputs, g.outputs])
    }
}

mod cpu {
    use super::*;

    pub fn forward(g: DenseGeometry, x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Tensor {
        let mut y = Buffer::<f32>::new(g.batch * g.outputs);
        if is_skinny(isa(), g.batch) {
            let bias = b.map(|b| b.values::<f32>());
            skinny_gemm(isa(), x.values(), g.inputs, w.values(), g.outputs, bias, &mut y);
            return Tensor::from_buffer(y, [g.batch, g.outputs]);
        }
        let right = BOperand::matrix(w.values(), g.inputs, g.outputs);
        multiply(isa(), x.values(), &right, b.map(|b| b.values()), &mut y);
        Tensor::from_buffer(y, [g.batch, g.outputs])
    }

    pub fn input_gradient(g: DenseGeometry, dy: &Tensor, w: &Tensor) -> Tensor {
        let mut dx = Buffer::<f32>::new(g.batch * g.inputs);
        if is_skinny(isa(), g.batch) {
            times_transpose(isa(), dy.values(), g.outputs, w.values(), &mut dx);
            return Tensor::from_buffer(dx, [g.batch, g.inputs]);
        }
        let right = BOperand::transpose(w.values(), g.outputs, g.inputs);
        multiply(isa(), dy.values(), &right, None, &mut dx);
        Tensor::from_buffer(dx, [g.batch, g.inputs])
    }

    pub fn kernel_gradient(g: DenseGeometry, dy: &Tensor, x: &Tensor) -> Gradient {
        if is_skinny(isa(), g.batch) {
            return Gradient::LowRank(Box::new(LowRankGrad::new(x, dy)));
        }
        let mut dw = Buffer::<f32>::new(g.inputs * g.outputs);
        let rows = Matrix::new(x.values(), g.batch, g.inputs);
        gemm_tn(isa(), &rows, dy.values(), g.outputs, &mut dw);
        Tensor::from_buffer(dw, [g.inputs, g.outputs]).into()
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &str, size, n: usize, i: usize, o: usize| {
        let inputs = vec![Input::new("x", [n, i]), Input::new("w", [i, o]), Input::new("b", [o])];
        Case::new("dense", name, size, inputs, |t| dense(&t[0], &t[1], Some(&t[2])))
            .flops(2.0 * (n * i * o) as f64)
    };
    let bare = vec![Input::new("x", [3, 11]), Input::new("w", [11, 7])];
    vec![
        case("3x11x7", Size::Tiny, 3, 11, 7),
        case("1x1x1", Size::Tiny, 1, 1, 1),
        case("17x300x65", Size::Tiny, 17, 300, 65),
        case("40x90x65", Size::Tiny, 40, 90, 65),
        Case::new("dense", "no_bias", Size::Tiny, bare, |t| dense(&t[0], &t[1], None)),
        case("10x25088x512", Size::Real, 10, 25088, 512).peer("dense", "[10] 25088->512"),
        case("16x100352x512", Size::Real, 16, 100352, 512).peer("dense", "[16] 100352->512"),
        case("1024x1024x1024", Size::Real, 1024, 1024, 1024).peer("matmul", "1024x1024x1024"),
        case("16x512x64", Size::Real, 16, 512, 64),
    ]
}

impl Tensor {
    /// [`dense`]: x·w + b of `[N, inputs]` with weights `[inputs, outputs]` and a bias `[outputs]` or `None`:
    /// `[N, outputs]`.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let (x, w) = (Tensor::from([[1.0f32, 2.0]]), Tensor::from([[1.0f32], [10.0]]));
    /// assert_eq!(x.dense(&w, &Tensor::from([0.5f32]))?.item()?, 21.5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn dense<'a>(&self, w: &Tensor, b: impl Into<Option<&'a Tensor>>) -> Result<Tensor> {
        dense(self, w, b.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_do_not_fit_are_refused_by_name() {
        let x = Tensor::zeros([2, 3]);
        assert!(dense(&x, &Tensor::zeros([4, 5]), None).is_err());
        assert!(dense(&x, &Tensor::zeros([3, 5]), Some(&Tensor::zeros([4]))).is_err());
        assert!(dense(&Tensor::zeros([2, 1, 3]), &Tensor::zeros([3, 5]), None).is_err());
    }
}
