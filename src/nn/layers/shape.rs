//! Shapes and costs of layers, without the batch axis.

use super::Layer;
use crate::error::{Error, Result};
use crate::ops::{Padding, padded, span};
use crate::tensor::Shape;

/// A side that is upsampled by a whole factor.
pub(super) fn scaled(side: usize, factor: usize) -> Result<usize> {
    let message = || format!("expected a side that can be counted, got {side} times {factor}");
    side.checked_mul(factor).ok_or_else(|| Error::argument("UpSampling2D", message()))
}

/// A product that is exact, or an error.
fn product(numbers: &[usize]) -> Option<u64> {
    numbers.iter().try_fold(1u64, |all, &n| all.checked_mul(n.try_into().ok()?))
}

impl Layer {
    /// The shape this layer makes of its inputs' shapes; `name` is for the error.
    pub fn output_shape(&self, name: &str, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let wrong = |expected: &str| {
            let got = inputs.iter().map(|shape| format!("{shape:?}")).collect::<Vec<_>>().join(", ");
            Error::shape(self.type_name(), format!("{expected} for layer `{name}`"), got)
        };
        let one = || match inputs {
            [shape] => Ok(*shape),
            _ => Err(wrong("one input")),
        };
        let picture = || match one()? {
            &[h, w, c] => Ok([h, w, c]),
            _ => Err(wrong("pictures [height, width, channels]")),
        };
        let windows = |kernel: [usize; 2], stride: [usize; 2], padding: Padding| {
            let [h, w, _] = picture()?;
            let fit = |n, k, s| {
                padding
                    .resolve(n, k, s)
                    .map(|(out, ..)| out)
                    .map_err(|_| wrong(&format!("pictures of at least {}×{}", kernel[0], kernel[1])))
            };
            Ok::<_, Error>([fit(h, kernel[0], stride[0])?, fit(w, kernel[1], stride[1])?])
        };
        let span = |kernel: [usize; 2], dilation: [usize; 2]| {
            Ok::<_, Error>([span(kernel[0], dilation[0])?, span(kernel[1], dilation[1])?])
        };
        let elements = |shape: &[usize]| Shape::checked(shape).map(|shape| shape.elements());
        let shape = match *self {
            Layer::Input(shape) => shape.to_vec(),
            Layer::Conv2D { filters, kernel, stride, padding, dilation, .. } => {
                let [h, w] = windows(span(kernel, dilation)?, stride, padding)?;
                vec![h, w, filters]
            }
            Layer::DepthwiseConv2D { kernel, stride, padding, dilation, .. } => {
                let [h, w] = windows(span(kernel, dilation)?, stride, padding)?;
                vec![h, w, picture()?[2]]
            }
            Layer::Dense { units, .. } => match one()? {
                [_] => vec![units],
                _ => return Err(wrong("flat vectors")),
            },
            Layer::MaxPooling2D { pool, stride, padding }
            | Layer::AveragePooling2D { pool, stride, padding } => {
                let [h, w] = windows(pool, stride, padding)?;
                vec![h, w, picture()?[2]]
            }
            Layer::GlobalAveragePooling2D | Layer::GlobalMaxPooling2D => vec![picture()?[2]],
            Layer::ZeroPadding2D([y, x]) => {
                let [h, w, c] = picture()?;
                vec![padded(h, y)?, padded(w, x)?, c]
            }
            Layer::UpSampling2D([fy, fx]) => {
                let [h, w, c] = picture()?;
                vec![scaled(h, fy)?, scaled(w, fx)?, c]
            }
            Layer::Flatten => vec![elements(one()?)?],
            Layer::Reshape(shape) => {
                let wanted = elements(&shape)?;
                if elements(one()?)? != wanted {
                    return Err(wrong(&format!("{wanted} elements")));
                }
                shape.to_vec()
            }
            Layer::BatchNormalization { .. } | Layer::Activation(_) | Layer::Dropout(_) => {
                one()?.to_vec()
            }
            Layer::Add => match inputs {
                [first, rest @ ..] if !rest.is_empty() && rest.iter().all(|shape| shape == first) => {
                    first.to_vec()
                }
                _ => return Err(wrong("two or more inputs of one shape")),
            },
            Layer::Concatenate => {
                let agree = |shape: &&[usize]| {
                    shape.len() == inputs[0].len()
                        && shape[..shape.len() - 1] == inputs[0][..shape.len() - 1]
                };
                if inputs.len() < 2 || inputs[0].is_empty() || !inputs.iter().all(agree) {
                    return Err(wrong("two or more inputs that differ in channels alone"));
                }
                let mut shape = inputs[0].to_vec();
                *shape.last_mut().expect("not empty") =
                    inputs.iter().fold(0, |sum, shape| sum.saturating_add(shape[shape.len() - 1]));
                shape
            }
        };
        Shape::checked(&shape)?;
        Ok(shape)
    }

    /// Multiplications and additions for one picture, forward. Element-wise layers count one an
    /// element, pools one a cell of a window, batch norm two an element. None where there are more than can be counted.
    pub fn flops(&self, input: &[usize], output: &[usize]) -> Option<u64> {
        let elements = product(output)?;
        let channels = input.last().copied().unwrap_or(1);
        let of_each = |numbers: &[usize], use_bias: bool| {
            product(numbers)?.checked_add(use_bias.into())?.checked_mul(elements)
        };
        match *self {
            Layer::Input(_)
            | Layer::Flatten
            | Layer::Reshape(_)
            | Layer::ZeroPadding2D(_)
            | Layer::Concatenate => Some(0),
            Layer::Conv2D { kernel: [kh, kw], use_bias, .. } => {
                of_each(&[2, kh, kw, channels], use_bias)
            }
            Layer::DepthwiseConv2D { kernel: [kh, kw], use_bias, .. } => of_each(&[2, kh, kw], use_bias),
            Layer::Dense { use_bias, .. } => of_each(&[2, channels], use_bias),
            Layer::MaxPooling2D { pool, .. } | Layer::AveragePooling2D { pool, .. } => {
                of_each(&pool, false)
            }
            Layer::GlobalAveragePooling2D | Layer::GlobalMaxPooling2D => product(input),
            // Two interpolations along x and one along y, three operations each.
            Layer::UpSampling2D(_) => of_each(&[9], false),
            Layer::BatchNormalization { .. } => of_each(&[2], false),
            Layer::Activation(_) | Layer::Dropout(_) | Layer::Add => Some(elements),
        }
    }
}
