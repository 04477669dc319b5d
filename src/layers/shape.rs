//! Shapes and costs of layers, without the batch axis.

use super::Layer;
use crate::error::{Error, Result};
use crate::ops::Padding;

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
            [(kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1]
        };
        Ok(match *self {
            Layer::Input(shape) => shape.to_vec(),
            Layer::Conv2D { filters, kernel, stride, padding, dilation, .. } => {
                let [h, w] = windows(span(kernel, dilation), stride, padding)?;
                vec![h, w, filters]
            }
            Layer::DepthwiseConv2D { kernel, stride, padding, dilation, .. } => {
                let [h, w] = windows(span(kernel, dilation), stride, padding)?;
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
            Layer::ZeroPadding2D([[top, bottom], [left, right]]) => {
                let [h, w, c] = picture()?;
                vec![h + top + bottom, w + left + right, c]
            }
            Layer::UpSampling2D([fy, fx]) => {
                let [h, w, c] = picture()?;
                vec![h * fy, w * fx, c]
            }
            Layer::Flatten => vec![one()?.iter().product()],
            Layer::Reshape(shape) => {
                let elements = shape.iter().product::<usize>();
                if one()?.iter().product::<usize>() != elements {
                    return Err(wrong(&format!("{elements} elements")));
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
                    inputs.iter().map(|shape| shape[shape.len() - 1]).sum();
                shape
            }
        })
    }

    /// Multiplications and additions for one picture, forward. Element-wise layers count one an
    /// element, pools one a cell of a window, batch norm two an element.
    pub fn flops(&self, input: &[usize], output: &[usize]) -> u64 {
        let elements = output.iter().product::<usize>();
        let channels = input.last().copied().unwrap_or(1);
        let flops = match *self {
            Layer::Input(_)
            | Layer::Flatten
            | Layer::Reshape(_)
            | Layer::ZeroPadding2D(_)
            | Layer::Concatenate => 0,
            Layer::Conv2D { kernel, use_bias, .. } => {
                elements * (2 * kernel[0] * kernel[1] * channels + use_bias as usize)
            }
            Layer::DepthwiseConv2D { kernel, use_bias, .. } => {
                elements * (2 * kernel[0] * kernel[1] + use_bias as usize)
            }
            Layer::Dense { use_bias, .. } => elements * (2 * channels + use_bias as usize),
            Layer::MaxPooling2D { pool, .. } | Layer::AveragePooling2D { pool, .. } => {
                elements * pool[0] * pool[1]
            }
            Layer::GlobalAveragePooling2D | Layer::GlobalMaxPooling2D => input.iter().product(),
            // Two interpolations along x and one along y, three operations each.
            Layer::UpSampling2D(_) => 9 * elements,
            Layer::BatchNormalization { .. } => 2 * elements,
            Layer::Activation(_) | Layer::Dropout(_) | Layer::Add => elements,
        };
        flops as u64
    }
}
