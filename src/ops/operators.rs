//! `+ − * /` and the unary minus between tensors, references to them, results of earlier operators, and
//! numbers.
//!
//! An operator's output is a [`Result`], for shapes may not fit together, and a `Result` may stand where a
//! tensor does wherever Rust allows it (one of two operands must be a tensor itself):
//!
//! ```
//! use atrous::Tensor;
//!
//! let (a, b) = (Tensor::from([1.0f32, 2.0]), Tensor::from([3.0f32, 4.0]));
//! let y = (&a * (&b - 1.0) + &a)?;
//! assert_eq!(y.to_string(), "[3. 8.]");
//! assert_eq!((-(2.0 * y)?)?.to_string(), "[ -6. -16.]");
//! assert!((&a + Tensor::zeros([3])).is_err());
//! # Ok::<(), atrous::Error>(())
//! ```
//!
//! A number has the tensor's element type. At the left it is an f64: were an f32 allowed there too, the
//! compiler could not tell what the 2.0 of `(2.0 * y)?` is. What shapes fit together, and the gradients, are
//! the functions' of [`elementwise`](crate::ops::elementwise).

use crate::error::Result;
use crate::ops::{add, div, mul, neg, scale, sub};
use crate::tensor::Tensor;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// What an operator takes at its right: a tensor, a reference to one, the result of an operator, or a number.
///
/// A function that takes what `x + y` takes:
///
/// ```
/// use atrous::ops::operators::Operand;
/// use atrous::prelude::*;
///
/// fn twice_the_sum(x: &Tensor, y: impl Operand) -> Result<Tensor> {
///     2.0 * (x + y)?
/// }
///
/// let x = Tensor::from([1.0f32, 2.0]);
/// assert_eq!(twice_the_sum(&x, 3.0)?.to_string(), "[ 8. 10.]");
/// assert_eq!(twice_the_sum(&x, &x * &x)?.to_string(), "[ 4. 12.]"); // the result of an operator
/// # Ok::<(), Error>(())
/// ```
pub trait Operand {
    /// The tensor or number; the error of a result that is one.
    fn operand(self) -> Result<TensorOrNumber>;
}

/// An [`Operand`], as operators tell them apart.
///
/// ```
/// use atrous::ops::operators::{Operand, TensorOrNumber};
///
/// assert!(matches!(2.0f32.operand()?, TensorOrNumber::Number(2.0)));
/// assert!(matches!(atrous::Tensor::ones([2]).operand()?, TensorOrNumber::Tensor(_)));
/// # Ok::<(), atrous::Error>(())
/// ```
pub enum TensorOrNumber {
    /// Shares its memory with the operand.
    Tensor(Tensor),
    /// Of the element type of the tensor at the other side.
    Number(f64),
}

impl Operand for Tensor {
    fn operand(self) -> Result<TensorOrNumber> {
        Ok(TensorOrNumber::Tensor(self))
    }
}

impl Operand for &Tensor {
    fn operand(self) -> Result<TensorOrNumber> {
        Ok(TensorOrNumber::Tensor(self.clone()))
    }
}

impl Operand for Result<Tensor> {
    fn operand(self) -> Result<TensorOrNumber> {
        self.map(TensorOrNumber::Tensor)
    }
}

impl Operand for f32 {
    fn operand(self) -> Result<TensorOrNumber> {
        Ok(TensorOrNumber::Number(self.into()))
    }
}

impl Operand for f64 {
    fn operand(self) -> Result<TensorOrNumber> {
        Ok(TensorOrNumber::Number(self))
    }
}

/// A number as a tensor of one element, of the type of `other` and on its device.
fn beside(number: f64, other: &Tensor) -> Result<Tensor> {
    Tensor::scalar(number).to_dtype(other.dtype()).to_device(other.device())
}

/// One operator with a tensor at its left, whatever is at its right.
fn apply(
    left: &Tensor,
    right: impl Operand,
    tensors: fn(&Tensor, &Tensor) -> Result<Tensor>,
    number: fn(&Tensor, f64) -> Result<Tensor>,
) -> Result<Tensor> {
    match right.operand()? {
        TensorOrNumber::Tensor(right) => tensors(left, &right),
        TensorOrNumber::Number(right) => number(left, right),
    }
}

/// `operator!(Trait::method, tensor ∘ tensor, tensor ∘ number, number ∘ tensor)`
macro_rules! operator {
    ($trait:ident::$method:ident, $tensors:expr, $right:expr, $left:expr) => {
        impl<R: Operand> $trait<R> for Tensor {
            type Output = Result<Tensor>;

            fn $method(self, right: R) -> Result<Tensor> {
                apply(&self, right, $tensors, $right)
            }
        }

        impl<R: Operand> $trait<R> for &Tensor {
            type Output = Result<Tensor>;

            fn $method(self, right: R) -> Result<Tensor> {
                apply(self, right, $tensors, $right)
            }
        }

        operator!(@left $trait::$method, $tensors, $left, Tensor);
        operator!(@left $trait::$method, $tensors, $left, &Tensor);
    };
    (@left $trait:ident::$method:ident, $tensors:expr, $left:expr, $right:ty) => {
        impl $trait<$right> for Result<Tensor> {
            type Output = Result<Tensor>;

            fn $method(self, right: $right) -> Result<Tensor> {
                $tensors(&self?, std::borrow::Borrow::<Tensor>::borrow(&right))
            }
        }

        impl $trait<$right> for f64 {
            type Output = Result<Tensor>;

            fn $method(self, right: $right) -> Result<Tensor> {
                $left(self, std::borrow::Borrow::<Tensor>::borrow(&right))
            }
        }
    };
}

operator!(Add::add, add, |x, c| add(x, &beside(c, x)?), |c, x: &Tensor| add(x, &beside(c, x)?));
operator!(Sub::sub, sub, |x, c| sub(x, &beside(c, x)?), |c, x: &Tensor| sub(&beside(c, x)?, x));
operator!(Mul::mul, mul, scale, |c, x: &Tensor| scale(x, c));
operator!(Div::div, div, |x, c| div(x, &beside(c, x)?), |c, x: &Tensor| div(&beside(c, x)?, x));

impl Neg for Tensor {
    type Output = Result<Tensor>;

    fn neg(self) -> Result<Tensor> {
        neg(&self)
    }
}

impl Neg for &Tensor {
    type Output = Result<Tensor>;

    fn neg(self) -> Result<Tensor> {
        neg(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn values(result: Result<Tensor>) -> Vec<f64> {
        result.unwrap().to_vec_f64()
    }

    fn pair() -> [Tensor; 2] {
        [Tensor::from([1.0f32, 2.0]), Tensor::from([10.0f32, 20.0])]
    }

    #[test]
    fn tensors_references_results_and_numbers_mix() {
        let [a, b] = pair();
        for sum in [&a + &b, &a + b.clone(), a.clone() + &b, a.clone() + b.clone()] {
            assert_eq!(values(sum), [11.0, 22.0]);
        }
        assert_eq!(values(&b - (&a + &a)), [8.0, 16.0]);
        assert_eq!(values((&a + &a) * &b), [20.0, 80.0]);
        assert_eq!(values((&b - &a) - b.clone()), [-1.0, -2.0]);
        assert_eq!(values(&a + 1.0f32), [2.0, 3.0]);
        assert_eq!(values(1.0 - &a), [0.0, -1.0]);
        assert_eq!(values(2.0 * a.clone()), [2.0, 4.0]);
        assert_eq!(values(&b / &a), [10.0, 10.0]);
        assert_eq!(values(((&b + &a).unwrap() / 2.0).unwrap() - 0.5), [5.0, 10.5]);
        assert_eq!(values(2.0 / &a), [2.0, 1.0]);
        assert_eq!(values(-&a), values(-a));
    }

    #[test]
    fn a_number_has_the_type_of_the_tensor_beside_it() {
        let x = Tensor::from([1.0f64]);
        let y = (0.1 + (&x * 0.5).unwrap()).unwrap();
        assert_eq!((y.dtype(), y.to_vec_f64()), (DType::F64, vec![0.1 + 0.5]));
        let y = (Tensor::from([1.0f32]) - 0.1).unwrap();
        assert_eq!((y.dtype(), y.to_vec_f64()), (DType::F32, vec![(1.0f32 - 0.1) as f64]));
    }

    #[test]
    fn gradients_flow_through_every_operator_and_both_sides_of_it() {
        let [a, b] = pair().map(|x| x.leaf());
        let y = (2.0 - ((&a * &b - &a) * &b).unwrap() + (8.0 / &a).unwrap()).unwrap();
        let gradients = y.backward_from(Tensor::ones([2])).unwrap();
        // y = 2 − ab² + ab + 8/a
        assert_eq!(gradients.get(&a).unwrap().to_vec_f64(), [-100.0 + 10.0 - 8.0, -400.0 + 20.0 - 2.0]);
        assert_eq!(gradients.get(&b).unwrap().to_vec_f64(), [-20.0 + 1.0, -80.0 + 2.0]);
    }

    #[test]
    fn what_does_not_fit_is_an_error_wherever_it_stands() {
        let [a, b] = pair();
        let wrong = || &a + Tensor::zeros([3]);
        let expected = wrong().unwrap_err().to_string();
        assert!(expected.starts_with("add: expected"), "{expected}");
        for error in [&b * wrong(), wrong() * &b, a.clone() - wrong(), wrong() - b.clone()] {
            assert_eq!(error.unwrap_err().to_string(), expected);
        }
        assert!((Tensor::from_u8(&[1], [1]).unwrap() + 1.0).is_err());
    }

    #[test]
    fn methods_compute_what_their_functions_do() {
        use crate::activation::Activation;
        use crate::ops::{self, Conv2dOptions, Method, PoolOptions};
        let same = |by_method: Result<Tensor>, by_function: Result<Tensor>| {
            let (a, b) = (by_method.unwrap(), by_function.unwrap());
            assert_eq!((a.shape(), a.to_vec_f64()), (b.shape(), b.to_vec_f64()));
        };
        let (x, c) = (Tensor::randn([2, 6, 5, 3], 1), Tensor::randn([3], 2));
        let options = Conv2dOptions::default().stride(2).same();
        let w = Tensor::randn([3, 3, 3, 3], 3);
        same(x.conv2d(&w, &c, options), ops::conv2d(&x, &w, Some(&c), options));
        same(x.conv2d(&w, None, options), ops::conv2d(&x, &w, None, options));
        let w = Tensor::randn([3, 3, 3, 1], 4);
        same(x.depthwise_conv2d(&w, &c, options), ops::depthwise_conv2d(&x, &w, Some(&c), options));
        let pool = PoolOptions::new(2);
        same(x.max_pool2d(pool), ops::max_pool2d(&x, pool));
        same(x.average_pool2d(pool), ops::average_pool2d(&x, pool));
        same(x.global_max_pool(), ops::global_max_pool(&x));
        same(x.global_average_pool(), ops::global_average_pool(&x));
        same(x.resize(3, 9, Method::Nearest), ops::resize(&x, 3, 9, Method::Nearest));
        let turns = [[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]; 2];
        same(x.affine(&turns), ops::affine(&x, &turns));
        same(x.dropout(0.5, 7), ops::dropout(&x, 0.5, 7, 0, 0));
        let (linear, one) = (Activation::Linear, Tensor::ones([3]));
        same(
            x.batch_norm_train(&one, &c, 1e-3).map(|norm| norm.y),
            ops::batch_norm_train(&x, &one, &c, 1e-3, linear).map(|norm| norm.y),
        );
        same(
            x.batch_norm_infer(&one, &c, [&c, &one], 1e-3),
            ops::batch_norm_infer(&x, &one, &c, &c, &one, 1e-3, linear),
        );
        let (rows, w) = (Tensor::randn([2, 4], 5), Tensor::randn([4, 3], 6));
        same(rows.dense(&w, &c), ops::dense(&rows, &w, Some(&c)));
        let flags = Tensor::from([[0.0f32, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]);
        let numbers = Tensor::from([1.0f32, 3.0]);
        same(
            rows.binary_cross_entropy_with_logits(&flags),
            ops::binary_cross_entropy(&rows, &flags, None),
        );
        same(rows.softmax_cross_entropy(&flags), rows.sparse_softmax_cross_entropy(&numbers));
    }
}
