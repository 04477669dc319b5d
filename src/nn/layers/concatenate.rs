//! Channels side by side: [`crate::ops::concat()`].

use super::{Forward, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::error::{Error, Result};
use crate::ops;
use crate::tensor::Tensor;

pub(super) struct Concatenate;

impl LayerType for Concatenate {
    fn type_name(&self) -> &'static str {
        "Concatenate"
    }

    fn default_name(&self) -> &'static str {
        "concatenate"
    }

    fn parameters(&self, _: &[usize]) -> Result<Vec<ParameterSpec>> {
        Ok(Vec::new())
    }

    fn output_shape(&self, inputs: &Shapes) -> Result<Vec<usize>> {
        let expected = "two or more inputs that differ in channels alone";
        let [first, _, ..] = inputs.all else { return Err(inputs.wrong(expected)) };
        let [pixels @ .., _] = first else { return Err(inputs.wrong(expected)) };
        let mut channels = 0usize;
        for shape in inputs.all {
            match shape {
                [same @ .., c] if same == pixels => channels = channels.saturating_add(*c),
                _ => return Err(inputs.wrong(expected)),
            }
        }
        Ok([pixels, &[channels]].concat())
    }

    fn flops(&self, _: &[usize], _: &[usize]) -> Option<u64> {
        Some(0)
    }

    fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        let Some(first) = inputs.first() else {
            return Err(Error::argument("layer", format!("`{}` has no input", forward.name)));
        };
        let axis = first.shape().len() - 1;
        Ok(ops::concat(&inputs.iter().collect::<Vec<&Tensor>>(), axis)?.into())
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        serde_json::json!({"axis": -1})
    }
}
