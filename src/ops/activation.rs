//! Activations. With y = f(x) and g = ∂L/∂y, every slope is a function of the output alone, so
//! that is all a node keeps:
//!
//! | op      | y                  | ∂L/∂x               |
//! |---------|--------------------|---------------------|
//! | relu    | max(x, 0)          | g where y > 0       |
//! | relu6   | min(max(x, 0), 6)  | g where 0 < y < 6   |
//! | sigmoid | 1 / (1 + e⁻ˣ)      | g · y · (1 − y)     |
//! | tanh    | tanh x             | g · (1 − y²)        |
//!
//! At the kinks the slope is 0, as TensorFlow has it. All else is the scaffold's (`crate::ops::unary`).

use crate::activation::Activation;
use crate::autograd::Needs;
use crate::backend::cpu::math;
use crate::cases::{Case, Fill};
use crate::error::Result;
use crate::ops::softmax;
use crate::ops::unary::{self, Saves, Unary};
use crate::tensor::{Real, Tensor};

/// max(x, 0) of each element. Its gradient: the table above.
///
/// See [`Tensor::relu`], which has an example.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    unary::apply(x, Relu)
}

/// min(max(x, 0), 6) of each element. Its gradient: the table above.
///
/// See [`Tensor::relu6`], which has an example.
pub fn relu6(x: &Tensor) -> Result<Tensor> {
    unary::apply(x, Relu6)
}

/// 1 / (1 + e⁻ˣ) of each element. Its gradient: the table above.
///
/// See [`Tensor::sigmoid`], which has an example.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    unary::apply(x, Sigmoid)
}

/// tanh x of each element. Its gradient: the table above.
///
/// See [`Tensor::tanh`], which has an example.
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    unary::apply(x, Tanh)
}

impl Tensor {
    /// max(x, 0) of each element.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([-1.0f32, 0.0, 8.0]).relu()?.to_string(), "[0. 0. 8.]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn relu(&self) -> Result<Tensor> {
        relu(self)
    }

    /// min(max(x, 0), 6) of each element.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([-1.0f32, 0.0, 8.0]).relu6()?.to_string(), "[0. 0. 6.]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn relu6(&self) -> Result<Tensor> {
        relu6(self)
    }

    /// 1 / (1 + e⁻ˣ) of each element.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([-2.0f32, 0.0, 2.0]).sigmoid()?.to_string(), "[0.1192 0.5    0.8808]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sigmoid(&self) -> Result<Tensor> {
        sigmoid(self)
    }

    /// tanh x of each element.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([-1.0f32, 0.0, 1.0]).tanh()?.to_string(), "[-0.7616  0.      0.7616]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn tanh(&self) -> Result<Tensor> {
        tanh(self)
    }
}

impl Activation {
    /// As an operator of its own.
    pub(crate) fn apply(self, x: Tensor) -> Result<Tensor> {
        match self {
            Activation::Linear => Ok(x),
            Activation::Relu => unary::apply_owned(x, Relu),
            Activation::Relu6 => unary::apply_owned(x, Relu6),
            Activation::Sigmoid => unary::apply_owned(x, Sigmoid),
            Activation::Tanh => unary::apply_owned(x, Tanh),
            Activation::Softmax => softmax(&x),
        }
    }

    /// What is left to do for the operator's result: nothing where its kernel made the activation in its
    /// pass.
    pub(crate) fn complete(self, fused: bool, y: Tensor) -> Result<Tensor> {
        match fused {
            true => Ok(y),
            false => self.apply(y),
        }
    }

    /// The result, where the operator's kernel made the activation in its pass and a gradient will have to
    /// know of it ([`Activation::through`]).
    pub(crate) fn made<const N: usize>(
        self,
        fused: bool,
        y: &Tensor,
        needs: &Needs<N>,
    ) -> Option<Tensor> {
        (self != Activation::Linear && needs.any() && fused).then(|| y.detach())
    }

    /// What of the gradient g comes through to the operator.
    pub(crate) fn through(self, made: Option<&Tensor>, g: Tensor) -> Result<Tensor> {
        match (self, made) {
            (Activation::Relu, Some(y)) => unary::backward(Some(y), g, Relu),
            (Activation::Relu6, Some(y)) => unary::backward(Some(y), g, Relu6),
            _ => Ok(g),
        }
    }
}

#[derive(Clone, Copy)]
struct Relu;
impl Unary for Relu {
    const NAME: &'static str = "relu";
    const CODE: i32 = Activation::Relu as i32;
    const SAVES: Saves = Saves::Output;
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        // A comparison, not `max`: a NaN stays a NaN.
        if x <= T::ZERO { T::ZERO } else { x }
    }
    #[inline(always)]
    fn slope<T: Real>(self, y: T) -> T {
        if y > T::ZERO { T::ONE } else { T::ZERO }
    }
}

#[derive(Clone, Copy)]
struct Relu6;
impl Unary for Relu6 {
    const NAME: &'static str = "relu6";
    const CODE: i32 = Activation::Relu6 as i32;
    const SAVES: Saves = Saves::Output;
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        let six = T::from_f64(6.0);
        let x = if x <= T::ZERO { T::ZERO } else { x };
        if x >= six { six } else { x }
    }
    #[inline(always)]
    fn slope<T: Real>(self, y: T) -> T {
        if y > T::ZERO && y < T::from_f64(6.0) { T::ONE } else { T::ZERO }
    }
}

#[derive(Clone, Copy)]
struct Sigmoid;
impl Unary for Sigmoid {
    const NAME: &'static str = "sigmoid";
    const CODE: i32 = Activation::Sigmoid as i32;
    const SAVES: Saves = Saves::Output;
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        T::ONE / (T::ONE + (-x).exp())
    }
    #[inline(always)]
    fn fast(self, x: f32) -> f32 {
        math::sigmoid(x)
    }
    #[inline(always)]
    fn slope<T: Real>(self, y: T) -> T {
        y * (T::ONE - y)
    }
}

#[derive(Clone, Copy)]
struct Tanh;
impl Unary for Tanh {
    const NAME: &'static str = "tanh";
    const CODE: i32 = Activation::Tanh as i32;
    const SAVES: Saves = Saves::Output;
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x.tanh()
    }
    #[inline(always)]
    fn fast(self, x: f32) -> f32 {
        math::tanh(x)
    }
    #[inline(always)]
    fn slope<T: Real>(self, y: T) -> T {
        T::ONE - y * y
    }
}

pub(crate) fn cases() -> Vec<Case> {
    type Op = fn(&Tensor) -> Result<Tensor>;
    let all: [(&str, Op, &[f32]); 4] = [
        ("relu", relu, &[0.0]),
        ("relu6", relu6, &[0.0, 6.0]),
        ("sigmoid", sigmoid, &[]),
        ("tanh", tanh, &[]),
    ];
    let of = |(op, f, points)| {
        unary::cases(op, Fill::Avoiding { low: -9.0, high: 9.0, points, margin: 0.01 }, f)
    };
    all.into_iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_kernel_makes_in_its_pass_is_made_after_it() {
        use crate::ops::conv2d::{Convolution, conv2d_fused};
        use crate::ops::depthwise_conv2d::depthwise_conv2d_fused;
        use crate::ops::{Conv2dOptions, batch_norm_infer};
        let fill = |shape: &[usize]| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i| (i as f32 * 0.7).sin()).collect();
            Tensor::from_slice(&values, shape).unwrap()
        };
        let (x, w, d, c) = (fill(&[1, 4, 4, 3]), fill(&[3, 3, 3, 3]), fill(&[3, 3, 3, 1]), fill(&[3]));
        let made = |activation: Activation| {
            let options = Conv2dOptions::default();
            let by = |kernel| Convolution::new(kernel, None, options);
            let variance = Tensor::full([3], 1.0);
            [
                conv2d_fused(&x, by(&w), activation.into()).unwrap().y,
                depthwise_conv2d_fused(&x, by(&d), activation.into()).unwrap().y,
                batch_norm_infer(&x, &c, &c, &c, &variance, 1e-3, activation).unwrap(),
            ]
        };
        let alone: [fn(&Tensor) -> Result<Tensor>; 3] = [sigmoid, tanh, softmax];
        for (activation, alone) in
            [Activation::Sigmoid, Activation::Tanh, Activation::Softmax].into_iter().zip(alone)
        {
            for (y, plain) in made(activation).iter().zip(made(Activation::Linear)) {
                assert_eq!(y.to_vec_f64(), alone(&plain).unwrap().to_vec_f64(), "{activation:?}");
            }
        }
    }

    #[test]
    fn the_slope_at_a_kink_is_zero() {
        let x = Tensor::from_slice(&[-0.0f32, 0.0, 6.0, 7.0, 3.0], [5]).unwrap().leaf();
        let gradient = |y: Tensor| {
            let mut gradients = y.backward_from(Tensor::full([5], 2.0)).unwrap();
            gradients.take(&x).unwrap().to_vec_f64()
        };
        assert_eq!(gradient(relu(&x).unwrap()), [0.0, 0.0, 2.0, 2.0, 2.0]);
        assert_eq!(gradient(relu6(&x).unwrap()), [0.0, 0.0, 0.0, 0.0, 2.0]);
    }

    #[test]
    fn a_nan_stays_a_nan() {
        let x = Tensor::full([20], f32::NAN);
        for f in [relu, relu6, sigmoid, tanh] {
            assert!(f(&x).unwrap().to_vec_f64().iter().all(|y| y.is_nan()));
        }
    }

    #[test]
    fn images_are_refused() {
        let error = relu(&Tensor::from_u8(&[1], [1]).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("relu: expected element type"), "{error}");
    }
}
