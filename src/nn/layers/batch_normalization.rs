//! Batch normalisation over all axes but the last: [`crate::ops::batch_norm`].

use super::forward::one;
use super::shape::each;
use super::{Forward, Initializer, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::error::{Error, Result};
use crate::ops::batch_norm::{batch_norm_infer_fused, batch_norm_train_fused};
use crate::tensor::Tensor;

/// Settings of a batch normalisation over the last axis; in Keras by default ε 1e-3, momentum 0.99.
///
/// PyTorch's settings; its momentum of 0.1 is what is new, Keras' what stays:
///
/// ```
/// use atrous::nn::layers::BatchNormalization;
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [2, 2, 1]);
/// let layer = BatchNormalization { epsilon: 1e-5, momentum: 0.9 };
/// graph.add(Layer::BatchNormalization(layer), &[graph.input()])?;
/// let x = Tensor::from([[[[1.0f32], [1.0]], [[3.0], [3.0]]]]); // mean 2, variance 1
/// let y = Model::new(graph, 1).run(&x, Mode::train(1, 0))?.output;
/// assert!((y.to_vec_f64()[0] + 1.0 / (1.0f64 + 1e-5).sqrt()).abs() < 1e-6);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNormalization {
    /// Added to variances.
    pub epsilon: f64,
    /// What moving statistics keep of themselves in a step.
    pub momentum: f64,
}

impl LayerType for BatchNormalization {
    fn type_name(&self) -> &'static str {
        "BatchNormalization"
    }

    fn default_name(&self) -> &'static str {
        "batch_normalization"
    }

    fn parameters(&self, input: &[usize]) -> Result<Vec<ParameterSpec>> {
        let channels = input.last().copied().unwrap_or(1);
        let vector = |kind, initializer| ParameterSpec::weight(kind, &[channels], initializer);
        let moving = |kind, initializer| {
            Ok::<_, Error>(ParameterSpec { trainable: false, ..vector(kind, initializer)? })
        };
        Ok(vec![
            vector("gamma", Initializer::Ones)?,
            vector("beta", Initializer::Zeros)?,
            moving("moving_mean", Initializer::Zeros)?,
            moving("moving_variance", Initializer::Ones)?,
        ])
    }

    fn output_shape(&self, inputs: &Shapes) -> Result<Vec<usize>> {
        Ok(inputs.one()?.to_vec())
    }

    fn flops(&self, _: &[usize], output: &[usize]) -> Option<u64> {
        each(output, &[2], false)
    }

    fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        let x = one(inputs, forward.name)?;
        let [gamma, beta, mean, variance] = forward.parameters else {
            let message = format!("layer `{}` has no statistics", forward.name);
            return Err(Error::argument("batch_norm", message));
        };
        let (scale_shift, epsilon, epilogue) = ([gamma, beta], self.epsilon, forward.epilogue);
        if !forward.mode.batch_statistics {
            let statistics = [mean, variance];
            return Ok(batch_norm_infer_fused(&x, scale_shift, statistics, epsilon, epilogue)?.into());
        }
        let normed = batch_norm_train_fused(forward.statistics, &x, scale_shift, epsilon, epilogue)?;
        let moving = Some(normed.moving(mean, variance, self.momentum)?);
        Ok(LayerOutput { moving, ..LayerOutput::from(normed.y) })
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        let BatchNormalization { epsilon, momentum } = self;
        serde_json::json!({"epsilon": epsilon, "momentum": momentum, "axis": [3]})
    }
}
