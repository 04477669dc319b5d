//! The mean of each channel of an image: [`crate::ops::global_average_pool`].

use super::forward::one;
use super::shape::product;
use super::{Forward, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::error::Result;
use crate::ops;
use crate::tensor::Tensor;

pub(super) struct GlobalAveragePooling2D;

impl LayerType for GlobalAveragePooling2D {
    fn type_name(&self) -> &'static str {
        "GlobalAveragePooling2D"
    }

    fn default_name(&self) -> &'static str {
        "global_average_pooling2d"
    }

    fn parameters(&self, _: &[usize]) -> Result<Vec<ParameterSpec>> {
        Ok(Vec::new())
    }

    fn output_shape(&self, inputs: &Shapes) -> Result<Vec<usize>> {
        Ok(vec![inputs.image()?[2]])
    }

    fn flops(&self, input: &[usize], _: &[usize]) -> Option<u64> {
        product(input)
    }

    fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        Ok(ops::global_average_pool(&one(inputs, forward.name)?)?.into())
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        serde_json::json!({})
    }
}
