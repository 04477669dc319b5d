//! Sums and means over all elements. ∂(Σx)/∂x = 1; ∂(mean x)/∂x = 1/n.

use crate::autograd::record;
use crate::cases::{Case, Input, Size};
use crate::error::Result;
use crate::ops::common_dtype;
use crate::tensor::{DType, Tensor};

/// The sum of all elements: a scalar.
pub fn sum(x: &Tensor) -> Result<Tensor> {
    let dtype = common_dtype("sum", &[x])?;
    let total: f64 = x.to_vec_f64().iter().sum();
    let output = Tensor::scalar(total).to_dtype(dtype);
    let shape = x.shape();
    Ok(record("sum", [x], output, move |g| {
        let value = g.item()?;
        Ok([Some(match dtype {
            DType::F64 => Tensor::from_slice(&vec![value; shape.elements()], shape)?,
            _ => Tensor::full(shape, value as f32),
        })])
    }))
}

pub fn cases() -> Vec<Case> {
    vec![Case::new("sum", "all", Size::Tiny, vec![Input::new("x", [2, 3, 5, 7])], |t| sum(&t[0]))]
}

/// Sums over leading axes: [C] for `0..rank-1`.
pub(crate) fn sum_axes(x: &Tensor, axes: std::ops::Range<usize>) -> Result<Tensor> {
    let columns: usize = x.shape()[axes.end..].iter().product();
    let mut sums = vec![0.0; columns];
    for row in x.to_vec_f64().chunks(columns) {
        sums.iter_mut().zip(row).for_each(|(s, v)| *s += v);
    }
    Ok(Tensor::from_slice(&sums, [columns])?.to_dtype(x.dtype()))
}
