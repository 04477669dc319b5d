//! A larger image, by bilinear interpolation: [`crate::ops::resize()`].

use super::forward::one;
use super::shape::each;
use super::{Forward, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::error::{Error, Result};
use crate::ops::{self, Method};
use crate::tensor::Tensor;

/// Factors [y, x].
pub(super) struct UpSampling2D(pub [usize; 2]);

/// A side that is upsampled by a whole factor.
fn scaled(side: usize, factor: usize) -> Result<usize> {
    let message = || format!("expected a side that can be counted, got {side} times {factor}");
    side.checked_mul(factor).ok_or_else(|| Error::argument("UpSampling2D", message()))
}

impl LayerType for UpSampling2D {
    fn type_name(&self) -> &'static str {
        "UpSampling2D"
    }

    fn default_name(&self) -> &'static str {
        "up_sampling2d"
    }

    fn parameters(&self, _: &[usize]) -> Result<Vec<ParameterSpec>> {
        Ok(Vec::new())
    }

    fn output_shape(&self, inputs: &Shapes) -> Result<Vec<usize>> {
        let ([h, w, c], [y, x]) = (inputs.image()?, self.0);
        Ok(vec![scaled(h, y)?, scaled(w, x)?, c])
    }

    fn flops(&self, _: &[usize], output: &[usize]) -> Option<u64> {
        // Two interpolations along x and one along y, three operations each.
        each(output, &[9], false)
    }

    fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        let (x, [fy, fx]) = (one(inputs, forward.name)?, self.0);
        let (h, w) = (scaled(x.shape()[1], fy)?, scaled(x.shape()[2], fx)?);
        Ok(ops::resize(&x, h, w, Method::Bilinear)?.into())
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        serde_json::json!({"size": self.0, "interpolation": "bilinear"})
    }
}
