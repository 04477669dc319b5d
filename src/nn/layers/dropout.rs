//! Drops elements at random in training: [`crate::ops::dropout()`].

use super::forward::one;
use super::shape::product;
use super::{Forward, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::error::Result;
use crate::ops;
use crate::random::hash_name;
use crate::tensor::Tensor;

/// The share that is dropped.
pub(super) struct Dropout(pub f32);

impl LayerType for Dropout {
    fn type_name(&self) -> &'static str {
        "Dropout"
    }

    fn default_name(&self) -> &'static str {
        "dropout"
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
        let (x, rate) = (one(inputs, forward.name)?, self.0);
        Ok(match forward.mode.dropout {
            Some((seed, step)) if rate > 0.0 => {
                ops::dropout(&x, rate, seed, step, hash_name(forward.name))?.into()
            }
            _ => x.into(),
        })
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        serde_json::json!({"rate": self.0})
    }
}
