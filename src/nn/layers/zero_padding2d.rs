//! Zeros around an image: [`crate::ops::zero_pad2d`].

use super::forward::one;
use super::{Forward, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::error::Result;
use crate::ops::{self, padded};
use crate::tensor::Tensor;

/// [[top, bottom], [left, right]]
pub(super) struct ZeroPadding2D(pub [[usize; 2]; 2]);

impl LayerType for ZeroPadding2D {
    fn type_name(&self) -> &'static str {
        "ZeroPadding2D"
    }

    fn default_name(&self) -> &'static str {
        "zero_padding2d"
    }

    fn parameters(&self, _: &[usize]) -> Result<Vec<ParameterSpec>> {
        Ok(Vec::new())
    }

    fn output_shape(&self, inputs: &Shapes) -> Result<Vec<usize>> {
        let ([h, w, c], [y, x]) = (inputs.image()?, self.0);
        Ok(vec![padded(h, y)?, padded(w, x)?, c])
    }

    fn flops(&self, _: &[usize], _: &[usize]) -> Option<u64> {
        Some(0)
    }

    fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        Ok(ops::zero_pad2d(&one(inputs, forward.name)?, self.0)?.into())
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        serde_json::json!({"padding": self.0})
    }
}
