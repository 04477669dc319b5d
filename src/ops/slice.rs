//! A part of a tensor: a range along each axis. The gradient is g in its place, and zeros around it.

use crate::autograd::record;
use crate::cases::{Case, Input, Size};
use crate::error::{Error, Result};
use crate::ops::strided::{Box4, strides};
use crate::tensor::{MAX_RANK, Shape, Tensor};
use std::ops::Range;

/// The elements whose place along axis i is in `ranges[i]`; axes without a range stay whole. An error where a
/// range is not within its axis.
///
/// See [`Tensor::slice`], which has an example.
pub fn slice(x: &Tensor, ranges: impl AsRef<[Range<usize>]>) -> Result<Tensor> {
    let (shape, ranges) = (x.shape(), ranges.as_ref());
    let fits =
        |(range, &length): (&Range<usize>, &usize)| range.start <= range.end && range.end <= length;
    if ranges.len() > shape.len() || !ranges.iter().zip(&shape[..]).all(fits) {
        return Err(Error::shape("slice", format!("ranges within {shape}"), format!("{ranges:?}")));
    }
    let (mut sizes, strides) = strides(&shape);
    let first = MAX_RANK - shape.len();
    let mut part = Box4 { sizes, strides, start: 0 };
    for (axis, range) in ranges.iter().enumerate() {
        sizes[first + axis] = range.len();
        part.start += range.start * strides[first + axis];
    }
    part.sizes = sizes;
    let output = part.gather("slice", x, Shape::of(&sizes[first..]))?;
    Ok(record("slice", [x], output, move |g| Ok([Some(part.scatter("slice", &g, shape)?)])))
}

impl Tensor {
    /// The elements whose place along axis i is in `ranges[i]`; axes without a range stay whole:
    /// `x.slice([0..2, 1..3])`. An error where a range is not within its axis.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// assert_eq!(x.slice([0..2, 1..3])?.to_string(), "[[2. 3.]\n [5. 6.]]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn slice(&self, ranges: impl AsRef<[Range<usize>]>) -> Result<Tensor> {
        slice(self, ranges)
    }
}

pub(crate) fn cases() -> Vec<Case> {
    type Ranges = &'static [Range<usize>];
    let case = |name: &'static str, size, shape: &[usize], ranges: Ranges| {
        Case::new("slice", name, size, vec![Input::new("x", shape)], move |t| slice(&t[0], ranges))
    };
    vec![
        case("middle", Size::Tiny, &[3, 5, 7, 4], &[0..3, 1..4, 2..6, 1..3]),
        case("batch", Size::Tiny, &[5, 3, 7], &[1..3]),
        case("last_length", Size::Tiny, &[5, 3, 12], &[0..5, 0..3, 4..8]),
        case("in_fours", Size::Tiny, &[2, 6, 5, 8], &[0..2, 2..4]),
        case("one", Size::Tiny, &[9], &[4..5]),
        case("nothing", Size::Tiny, &[3, 4], &[1..1]),
        case("pieces", Size::Tiny, &[2, 70007], &[0..2, 3..70001]),
        case("many_rows", Size::Tiny, &[9001, 9], &[1..9000, 2..8]),
        case("crop_16x112x112x64", Size::Real, &[16, 112, 112, 64], &[0..16, 8..104, 8..104]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_where_it_was_and_its_gradient_has_zeros_around_it() {
        let x = Tensor::from_slice(&[0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0], [2, 3]).unwrap().leaf();
        let y = x.slice([1..2, 0..2]).unwrap();
        assert_eq!((y.shape()[..].to_vec(), y.to_vec_f64()), (vec![1, 2], vec![3.0, 4.0]));
        let g = y.backward_from(Tensor::full([1, 2], 7.0)).unwrap();
        assert_eq!(g.get(&x).unwrap().to_vec_f64(), [0.0, 0.0, 0.0, 7.0, 7.0, 0.0]);
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges)]
    fn ranges_beyond_an_axis_are_refused() {
        let x = Tensor::zeros([2, 3]);
        let error = x.slice([0..2, 1..4]).unwrap_err().to_string();
        assert_eq!(error, "slice: expected ranges within [2×3], got [0..2, 1..4]");
        assert!(x.slice([0..1, 0..1, 0..1]).is_err() && x.slice([2..1]).is_err());
        assert_eq!(x.slice([2..2, 3..3]).unwrap().shape()[..], [0, 0]);
    }
}
