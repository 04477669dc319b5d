//! The same elements as images of another shape: [`crate::ops::reshape()`].

use super::forward::one;
use super::shape::elements;
use super::{Forward, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::error::Result;
use crate::ops;
use crate::tensor::Tensor;

/// [height, width, channels]
pub(super) struct Reshape(pub [usize; 3]);

impl LayerType for Reshape {
    fn type_name(&self) -> &'static str {
        "Reshape"
    }

    fn default_name(&self) -> &'static str {
        "reshape"
    }

    fn parameters(&self, _: &[usize]) -> Result<Vec<ParameterSpec>> {
        Ok(Vec::new())
    }

    fn output_shape(&self, inputs: &Shapes) -> Result<Vec<usize>> {
        let wanted = elements(&self.0)?;
        match elements(inputs.one()?)? == wanted {
            true => Ok(self.0.to_vec()),
            false => Err(inputs.wrong(&format!("{wanted} elements"))),
        }
    }

    fn flops(&self, _: &[usize], _: &[usize]) -> Option<u64> {
        Some(0)
    }

    fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        let (x, [h, w, c]) = (one(inputs, forward.name)?, self.0);
        Ok(ops::reshape(&x, [x.shape()[0], h, w, c])?.into())
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        serde_json::json!({"target_shape": self.0})
    }
}
