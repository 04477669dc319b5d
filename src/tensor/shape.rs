//! Lengths of axes: [`Shape`], and what can become one.

use crate::error::{Error, Result};
use std::fmt;
use std::ops::Deref;

/// The most axes a shape can have.
///
/// ```
/// use atrous::Shape;
/// use atrous::tensor::MAX_RANK;
///
/// assert!(Shape::checked(&[2; MAX_RANK]).is_ok() && Shape::checked(&[2; MAX_RANK + 1]).is_err());
/// ```
pub const MAX_RANK: usize = 4;

/// The most elements a shape can have: as f64 they fill the longest slice (`isize::MAX` bytes).
const MAX_ELEMENTS: usize = isize::MAX as usize / size_of::<f64>();

/// Lengths of at most [`MAX_RANK`] axes. Their product, zeros counted as ones, is at most `isize::MAX`
/// bytes of f64, so no product of some of them overflows, and kernels multiply lengths unchecked.
///
/// ```
/// use atrous::Shape;
///
/// let shape = Shape::from([8, 224, 224, 3]);
/// assert_eq!((shape.rank(), shape.elements(), shape.last_length()), (4, 8 * 224 * 224 * 3, 3));
/// assert_eq!(shape[1..3], [224, 224]); // what a slice can, a shape can
/// assert_eq!(shape.to_string(), "[8×224×224×3]");
/// assert!(Shape::checked(&[1; 5]).is_err()); // lengths that a user or a file gives
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// From `rank` on all 1, so that the derived comparison and hash hold.
    axes: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    /// An error where there are too many axes, or too many elements: for lengths that come from a user or a
    /// file.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Shape::checked(&[2, 3])?.elements(), 6);
    /// assert!(Shape::checked(&[1; 5]).is_err()); // at most four axes
    /// # Ok::<(), Error>(())
    /// ```
    pub fn checked(axes: &[usize]) -> Result<Self> {
        if axes.len() > MAX_RANK {
            return Err(Error::shape("shape", format!("at most {MAX_RANK} axes"), format!("{axes:?}")));
        }
        let mut shape = Shape { axes: [1; MAX_RANK], rank: axes.len() };
        shape.axes[..axes.len()].copy_from_slice(axes);
        let elements = axes.iter().try_fold(1usize, |all, &length| all.checked_mul(length.max(1)));
        if elements.is_some_and(|all| all <= MAX_ELEMENTS) {
            Ok(shape)
        } else {
            Err(Error::shape("shape", format!("at most {MAX_ELEMENTS} elements"), shape))
        }
    }

    /// The same for lengths that a program made of those of other shapes.
    ///
    /// # Panics
    /// Where [`Shape::checked`] has an error.
    pub(crate) fn of(axes: &[usize]) -> Self {
        Shape::checked(axes).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Number of axes; 0 for a scalar.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Shape::from([2, 3]).rank(), 2);
    /// ```
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of elements; 1 for a scalar (no axes).
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Shape::from([2, 3]).elements(), 6);
    /// assert_eq!(Shape::from([]).elements(), 1); // a scalar
    /// ```
    pub fn elements(&self) -> usize {
        self.iter().product()
    }

    /// The length of the last axis (channels, classes, features); 1 for a scalar.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Shape::from([1, 8, 8, 16]).last_length(), 16);
    /// ```
    pub fn last_length(&self) -> usize {
        self.last().copied().unwrap_or(1)
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.axes[..self.rank]
    }
}

/// What can be a shape, or an error (see [`Shape::checked`]): a [`Shape`], an array, slice or vector of
/// lengths, or one length for one axis.
///
/// ```
/// use atrous::tensor::IntoShape;
///
/// assert_eq!([2, 3].into_shape()?.elements(), 6);
/// assert_eq!(vec![2, 3].into_shape()?, [2, 3].into_shape()?);
/// assert_eq!(6.into_shape()?, [6].into_shape()?);
/// assert!([1usize; 5][..].into_shape().is_err());
/// # Ok::<(), atrous::Error>(())
/// ```
pub trait IntoShape {
    /// An error where [`Shape::checked`] has one.
    fn into_shape(self) -> Result<Shape>;
}

impl IntoShape for Shape {
    fn into_shape(self) -> Result<Shape> {
        Ok(self)
    }
}

impl IntoShape for usize {
    fn into_shape(self) -> Result<Shape> {
        Shape::checked(&[self])
    }
}

impl IntoShape for &[usize] {
    fn into_shape(self) -> Result<Shape> {
        Shape::checked(self)
    }
}

impl IntoShape for &Vec<usize> {
    fn into_shape(self) -> Result<Shape> {
        Shape::checked(self)
    }
}

impl IntoShape for Vec<usize> {
    fn into_shape(self) -> Result<Shape> {
        Shape::checked(&self)
    }
}

// Arrays of as many lengths as a shape has axes at most: a fifth axis is an error of the compiler.
macro_rules! from_array {
    ($($axes:literal)*) => {$(
        /// # Panics
        /// Where [`Shape::checked`] has an error: lengths of a user or a file go through that.
        impl From<[usize; $axes]> for Shape {
            fn from(axes: [usize; $axes]) -> Self {
                Shape::of(&axes)
            }
        }

        impl IntoShape for [usize; $axes] {
            fn into_shape(self) -> Result<Shape> {
                Shape::checked(&self)
            }
        }
    )*};
}
from_array!(0 1 2 3 4);

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<String> = self.iter().map(usize::to_string).collect();
        write!(f, "[{}]", axes.join("×"))
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_fifth_axis_and_more_elements_than_addresses_are_errors_that_say_so() {
        let error = |axes: &[usize]| Shape::checked(axes).unwrap_err().to_string();
        assert_eq!(error(&[1; 5]), "shape: expected at most 4 axes, got [1, 1, 1, 1, 1]");
        let most = format!("shape: expected at most {MAX_ELEMENTS} elements, got ");
        assert_eq!(error(&[MAX_ELEMENTS + 1]), format!("{most}[{}]", MAX_ELEMENTS + 1));
        // A product that wraps to 0, and one that is 0.
        for axes in [[1, 1 << 32, 1 << 32, 1], [0, 1 << 32, 1 << 32, 1], [usize::MAX; 4]] {
            assert!(error(&axes).starts_with(&most), "{}", error(&axes));
        }
        let long = Shape::checked(&[MAX_ELEMENTS, 1]).unwrap();
        assert_eq!((long.elements(), long.rank(), long.last_length()), (MAX_ELEMENTS, 2, 1));
        assert_eq!(Shape::checked(&[MAX_ELEMENTS, 0]).unwrap().elements(), 0);
    }

    proptest! {
        #[test]
        fn no_part_of_a_shape_has_a_product_that_wraps(
            axes in proptest::collection::vec(crate::cases::any_size(), 0..6),
        ) {
            if let Ok(shape) = Shape::checked(&axes) {
                prop_assert_eq!(&shape[..], &axes[..]);
                for chosen in 0..1 << axes.len() {
                    let part = axes.iter().enumerate().filter(|(i, _)| chosen >> i & 1 == 1);
                    let exact: u128 = part.map(|(_, &length)| length as u128).product();
                    prop_assert!(exact <= MAX_ELEMENTS as u128);
                }
            }
        }
    }
}
