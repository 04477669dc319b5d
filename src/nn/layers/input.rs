//! What a network is fed: images [height, width, channels].

use super::forward::one;
use super::{Forward, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::error::Result;
use crate::tensor::Tensor;

pub(super) struct Input(pub [usize; 3]);

impl LayerType for Input {
    fn type_name(&self) -> &'static str {
        "InputLayer"
    }

    fn default_name(&self) -> &'static str {
        "input"
    }

    fn parameters(&self, _: &[usize]) -> Result<Vec<ParameterSpec>> {
        Ok(Vec::new())
    }

    fn output_shape(&self, _: &Shapes) -> Result<Vec<usize>> {
        Ok(self.0.to_vec())
    }

    fn flops(&self, _: &[usize], _: &[usize]) -> Option<u64> {
        Some(0)
    }

    fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        Ok(one(inputs, forward.name)?.into())
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        serde_json::json!({})
    }
}
