//! A fully connected layer: [`crate::ops::dense()`].

use super::forward::one;
use super::shape::each;
use super::{Forward, Initializer, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::activation::Activation;
use crate::error::Result;
use crate::ops;
use crate::tensor::Tensor;

/// A layer of weights `[I, units]` on flat inputs `[N, I]`, which start as Glorot's initializer has them.
///
/// ```
/// use atrous::nn::layers::Dense;
/// use atrous::prelude::*;
///
/// let layer = Layer::Dense(Dense { units: 10, use_bias: false, activation: Activation::Softmax });
/// assert_eq!(layer, Layer::dense(10).with_bias(false).with_activation(Activation::Softmax));
/// assert_eq!(layer.parameters(&[128])?.len(), 1); // the kernel alone
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dense {
    /// Outputs: in a network's last layer, classes.
    pub units: usize,
    /// Whether a number, at first 0, is added to each output; in Keras by default.
    pub use_bias: bool,
    /// Applied to the result; kept apart from it where it makes probabilities of logits.
    pub activation: Activation,
}

impl LayerType for Dense {
    fn type_name(&self) -> &'static str {
        "Dense"
    }

    fn default_name(&self) -> &'static str {
        "dense"
    }

    fn parameters(&self, input: &[usize]) -> Result<Vec<ParameterSpec>> {
        let shape = [input.last().copied().unwrap_or(1), self.units];
        let kernel = ParameterSpec::weight("kernel", &shape, Initializer::GlorotUniform);
        ParameterSpec::kernel_and_bias(kernel, self.use_bias, self.units)
    }

    fn output_shape(&self, inputs: &Shapes) -> Result<Vec<usize>> {
        match inputs.one()? {
            [_] => Ok(vec![self.units]),
            _ => Err(inputs.wrong("flat vectors")),
        }
    }

    fn flops(&self, input: &[usize], output: &[usize]) -> Option<u64> {
        each(output, &[2, input.last().copied().unwrap_or(1)], self.use_bias)
    }

    fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        let (x, parameters) = (one(inputs, forward.name)?, forward.parameters);
        LayerOutput::activated(ops::dense(&x, &parameters[0], parameters.get(1))?, self.activation)
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        let Dense { units, use_bias, activation } = self;
        serde_json::json!({"units": units, "use_bias": use_bias, "activation": activation.name()})
    }
}
