//! A layer that was told what it cannot be: `Layer::Flatten.with_activation(Relu)`.

use super::{Forward, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Which layer, and what it does not have.
///
/// ```
/// use atrous::prelude::*;
///
/// let layer = Layer::Flatten.with_stride(2); // what a program writes in one expression is no error yet
/// assert!(matches!(layer, Layer::Refused(_)));
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// let error = graph.add(layer, &[graph.input()]).unwrap_err().to_string();
/// assert!(error.contains("expected a layer with a stride, got a Flatten"), "{error}");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refused {
    /// Keras' class name of the layer: `Flatten`.
    pub layer: &'static str,
    /// What it was to have, with its article, for the error message: `an activation`.
    pub setting: &'static str,
}

impl Refused {
    fn error(&self, name: &str) -> Error {
        let Refused { layer, setting } = self;
        Error::argument("layer", format!("expected a layer with {setting}, got a {layer} (`{name}`)"))
    }
}

impl LayerType for Refused {
    fn type_name(&self) -> &'static str {
        self.layer
    }

    fn default_name(&self) -> &'static str {
        "refused"
    }

    fn parameters(&self, _: &[usize]) -> Result<Vec<ParameterSpec>> {
        Err(self.error(self.default_name()))
    }

    fn output_shape(&self, inputs: &Shapes) -> Result<Vec<usize>> {
        Err(self.error(inputs.name))
    }

    fn flops(&self, _: &[usize], _: &[usize]) -> Option<u64> {
        None
    }

    fn forward(&self, _: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        Err(self.error(forward.name))
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        serde_json::json!({})
    }
}
