//! The sum of two and more of one shape: [`crate::ops::add`].

use super::shape::product;
use super::{Forward, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::error::{Error, Result};
use crate::ops;
use crate::tensor::Tensor;

pub(super) struct Add;

impl LayerType for Add {
    fn type_name(&self) -> &'static str {
        "Add"
    }

    fn default_name(&self) -> &'static str {
        "add"
    }

    fn parameters(&self, _: &[usize]) -> Result<Vec<ParameterSpec>> {
        Ok(Vec::new())
    }

    fn output_shape(&self, inputs: &Shapes) -> Result<Vec<usize>> {
        match inputs.all {
            [first, rest @ ..] if !rest.is_empty() && rest.iter().all(|shape| shape == first) => {
                Ok(first.to_vec())
            }
            _ => Err(inputs.wrong("two or more inputs of one shape")),
        }
    }

    fn flops(&self, _: &[usize], output: &[usize]) -> Option<u64> {
        product(output)
    }

    fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        let [first, second, rest @ ..] = &inputs[..] else {
            let message =
                format!("expected two or more inputs of `{}`, got {}", forward.name, inputs.len());
            return Err(Error::argument("layer", message));
        };
        let sum = ops::add(first, second)?;
        Ok(rest.iter().try_fold(sum, |sum, input| ops::add(&sum, input))?.into())
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        serde_json::json!({})
    }
}
