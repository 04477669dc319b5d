//! Shapes and costs of layers, without the batch axis.

use crate::error::{Error, Result};
use crate::ops::{Padding, PoolOptions, span};
use crate::tensor::Shape;

/// The shapes of a layer's inputs, and who asks: for errors that name the layer.
pub(crate) struct Shapes<'a> {
    /// Its type.
    pub layer: &'static str,
    pub name: &'a str,
    pub all: &'a [&'a [usize]],
}

impl<'a> Shapes<'a> {
    pub fn wrong(&self, expected: &str) -> Error {
        let got = self.all.iter().map(|shape| format!("{shape:?}")).collect::<Vec<_>>().join(", ");
        Error::shape(self.layer, format!("{expected} for layer `{}`", self.name), got)
    }

    pub fn one(&self) -> Result<&'a [usize]> {
        match self.all {
            [shape] => Ok(shape),
            _ => Err(self.wrong("one input")),
        }
    }

    /// One input, of images [height, width, channels].
    pub fn image(&self) -> Result<[usize; 3]> {
        match self.one()? {
            &[h, w, c] => Ok([h, w, c]),
            _ => Err(self.wrong("pictures [height, width, channels]")),
        }
    }

    /// [height, width] of the windows that there are in an image.
    pub fn windows(&self, PoolOptions { pool, stride, padding }: PoolOptions) -> Result<[usize; 2]> {
        let [h, w, _] = self.image()?;
        let fit = |n, k, s| {
            let expected = format!("pictures of at least {}×{}", pool[0], pool[1]);
            padding.resolve(n, k, s).map(|(out, ..)| out).map_err(|_| self.wrong(&expected))
        };
        Ok([fit(h, pool[0], stride[0])?, fit(w, pool[1], stride[1])?])
    }

    /// The same of a convolution, whose taps may be apart.
    pub fn dilated_windows(
        &self,
        kernel: [usize; 2],
        dilation: [usize; 2],
        stride: [usize; 2],
        padding: Padding,
    ) -> Result<[usize; 2]> {
        let pool = [span(kernel[0], dilation[0])?, span(kernel[1], dilation[1])?];
        self.windows(PoolOptions { pool, stride, padding })
    }
}

/// The number of elements; an error where there is no such shape.
pub(super) fn elements(shape: &[usize]) -> Result<usize> {
    Ok(Shape::checked(shape)?.elements())
}

/// A product that is exact, or None.
pub(super) fn product(numbers: &[usize]) -> Option<u64> {
    numbers.iter().try_fold(1u64, |all, &n| all.checked_mul(n.try_into().ok()?))
}

/// So many operations an element of the output, and one more for a bias.
pub(super) fn each(output: &[usize], operations: &[usize], bias: bool) -> Option<u64> {
    product(operations)?.checked_add(bias.into())?.checked_mul(product(output)?)
}

/// What Keras calls a padding.
#[cfg(feature = "checkpoint")]
pub(super) fn keras_padding(padding: Padding) -> &'static str {
    match padding {
        Padding::Same => "same",
        Padding::Valid => "valid",
        Padding::Cells(_) => "explicit",
    }
}
