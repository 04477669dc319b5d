//! An activation by itself: [`crate::ops::activation`].

use super::forward::one;
use super::shape::product;
use super::{Forward, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::activation::Activation;
use crate::error::Result;
use crate::tensor::Tensor;

impl LayerType for Activation {
    fn type_name(&self) -> &'static str {
        match self {
            Activation::Relu6 => "ReLU",
            _ => "Activation",
        }
    }

    fn default_name(&self) -> &'static str {
        match self {
            Activation::Relu6 => "re_lu",
            _ => "activation",
        }
    }

    fn parameters(&self, _: &[usize]) -> Result<Vec<ParameterSpec>> {
        Ok(Vec::new())
    }

    fn output_shape(&self, inputs: &Shapes) -> Result<Vec<usize>> {
        Ok(inputs.one()?.to_vec())
    }

    fn flops(&self, _: &[usize], output: &[usize]) -> Option<u64> {
        product(output)
    }

    fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        LayerOutput::activated(one(inputs, forward.name)?, *self)
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        match self {
            Activation::Relu6 => serde_json::json!({"max_value": 6.0}),
            _ => serde_json::json!({"activation": self.name()}),
        }
    }
}
