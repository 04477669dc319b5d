//! The same elements under another shape, sharing memory. The gradient is g under the old shape.

use crate::autograd::record;
use crate::cases::{Case, Input, Size};
use crate::error::{Error, Result};
use crate::tensor::{IntoShape, Tensor};

/// `x` under another shape of as many elements.
///
/// See [`Tensor::reshape`], which has an example.
pub fn reshape(x: &Tensor, shape: impl IntoShape) -> Result<Tensor> {
    let (from, to) = (x.shape(), shape.into_shape()?);
    if from.elements() != to.elements() {
        return Err(Error::shape("reshape", format!("{} elements, for {to}", to.elements()), from));
    }
    Ok(record("reshape", [x], x.with_shape(to), move |g| Ok([Some(g.with_shape(from))])))
}

/// [N, …] → [N, product of the rest], row-major: H, W, C for images.
///
/// See [`Tensor::flatten`], which has an example.
pub fn flatten(x: &Tensor) -> Result<Tensor> {
    match x.shape().split_first() {
        Some((&n, rest)) => reshape(x, [n, rest.iter().product()]),
        None => Err(Error::shape("flatten", "at least one axis", "a scalar")),
    }
}

impl Tensor {
    /// The same elements, row-major, under another shape of as many; the memory is shared. An error for
    /// another number.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::arange(0.0, 6.0, 1.0)?.reshape([2, 3])?;
    /// assert_eq!(x.to_string(), "[[0. 1. 2.]\n [3. 4. 5.]]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn reshape(&self, shape: impl IntoShape) -> Result<Tensor> {
        reshape(self, shape)
    }

    /// [N, …] → [N, product of the rest]. An error for a scalar.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::zeros([2, 4, 4, 3]).flatten()?.shape()[..], [2, 48]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn flatten(&self) -> Result<Tensor> {
        flatten(self)
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let x = |shape: [usize; 4]| vec![Input::new("x", shape)];
    vec![
        Case::new("reshape", "to_rows", Size::Tiny, x([2, 3, 5, 7]), |t| reshape(&t[0], [6, 35])),
        Case::new("flatten", "pictures", Size::Tiny, x([2, 3, 5, 7]), |t| flatten(&t[0])),
        Case::new("flatten", "vgg16", Size::Real, x([16, 7, 7, 512]), |t| flatten(&t[0])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshaping_copies_nothing_and_flatten_keeps_the_batch() {
        let x = Tensor::zeros([2, 3, 4]);
        let y = flatten(&x).unwrap();
        assert_eq!(*y.shape(), [2, 12]);
        assert_eq!(x.values::<f32>().as_ptr(), y.values::<f32>().as_ptr());
        assert_eq!(*flatten(&Tensor::zeros([3])).unwrap().shape(), [3, 1]);
    }

    #[test]
    fn another_number_of_elements_is_refused() {
        let error = reshape(&Tensor::zeros([2, 3]), [7]).unwrap_err().to_string();
        assert_eq!(error, "reshape: expected 7 elements, for [7], got [2×3]");
        assert!(flatten(&Tensor::scalar(1.0f32)).is_err());
    }
}
