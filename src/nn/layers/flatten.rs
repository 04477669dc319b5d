//! All of an image in one axis: [`crate::ops::flatten`].

use super::forward::one;
use super::shape::elements;
use super::{Forward, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::error::Result;
use crate::ops;
use crate::tensor::Tensor;

pub(super) struct Flatten;

impl LayerType for Flatten {
    fn type_name(&self) -> &'static str {
        "Flatten"
    }

    fn default_name(&self) -> &'static str {
        "flatten"
    }

    fn parameters(&self, _: &[usize]) -> Result<Vec<ParameterSpec>> {
        Ok(Vec::new())
    }

    fn output_shape(&self, inputs: &Shapes) -> Result<Vec<usize>> {
        Ok(vec![elements(inputs.one()?)?])
    }

    fn flops(&self, _: &[usize], _: &[usize]) -> Option<u64> {
        Some(0)
    }

    fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        Ok(ops::flatten(&one(inputs, forward.name)?)?.into())
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        serde_json::json!({})
    }
}
