//! The largest of each window: [`crate::ops::max_pool2d`].

use super::forward::one;
use super::shape::each;
use super::{Forward, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::error::Result;
use crate::ops::{self, PoolOptions};
use crate::tensor::Tensor;

pub(super) struct MaxPooling2D(pub PoolOptions);

impl LayerType for MaxPooling2D {
    fn type_name(&self) -> &'static str {
        "MaxPooling2D"
    }

    fn default_name(&self) -> &'static str {
        "max_pooling2d"
    }

    fn parameters(&self, _: &[usize]) -> Result<Vec<ParameterSpec>> {
        Ok(Vec::new())
    }

    fn output_shape(&self, inputs: &Shapes) -> Result<Vec<usize>> {
        let [h, w] = inputs.windows(self.0)?;
        Ok(vec![h, w, inputs.image()?[2]])
    }

    fn flops(&self, _: &[usize], output: &[usize]) -> Option<u64> {
        each(output, &self.0.pool, false)
    }

    fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        Ok(ops::max_pool2d(&one(inputs, forward.name)?, self.0)?.into())
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        let PoolOptions { pool, stride, padding } = self.0;
        let padding = super::shape::keras_padding(padding);
        serde_json::json!({"pool_size": pool, "strides": stride, "padding": padding})
    }
}
