//! What a layer is given to run, and what it gives.

use crate::activation::Activation;
use crate::backend::cpu::prepack::PrepackCache;
use crate::error::{Error, Result};
use crate::ops::batch_norm::Statistics;
use crate::ops::{Convolution, Epilogue};
use crate::tensor::Tensor;
use std::sync::Arc;

/// How a pass through the network behaves.
///
/// ```
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [1, 1, 64]);
/// graph.chain(graph.input(), [Layer::Flatten, Layer::Dropout(0.5)])?;
/// let model = Model::new(graph, 1);
/// let run = |mode| model.run(&Tensor::ones([1, 1, 1, 64]), mode).map(|forward| forward.output.to_vec_f64());
/// assert_eq!(run(Mode::infer())?, [1.0; 64]);
///
/// let dropped = run(Mode::train(7, 0))?; // seed 7, step 0
/// assert!(dropped.contains(&0.0) && dropped.contains(&2.0)); // what is kept makes up for the rest
/// assert_eq!(dropped, run(Mode::train(7, 0))?);
/// assert_ne!(dropped, run(Mode::train(7, 1))?);
/// assert_eq!(run(Mode { dropout: None, ..Mode::train(7, 0) })?, [1.0; 64]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Batch norm uses the batch's own statistics (and moves the moving ones).
    pub batch_statistics: bool,
    /// Trainable parameters are leaves of the tape.
    pub gradients: bool,
    /// Dropout is on, keyed by (seed, step).
    pub dropout: Option<(u64, u64)>,
}

impl Mode {
    /// Moving statistics, no dropout, no gradients by parameters.
    pub fn infer() -> Self {
        Mode { batch_statistics: false, gradients: false, dropout: None }
    }

    /// Batch statistics, gradients, dropout keyed by (seed, step).
    pub fn train(seed: u64, step: u64) -> Self {
        Mode { batch_statistics: true, gradients: true, dropout: Some((seed, step)) }
    }
}

/// What a layer is given besides its inputs.
pub(crate) struct Forward<'a> {
    /// The layer's.
    pub name: &'a str,
    /// In the order of [`super::Layer::parameters`].
    pub parameters: &'a [Tensor],
    /// Where layouts of the first of them are kept.
    pub prepack: Option<&'a Arc<PrepackCache>>,
    pub mode: Mode,
    /// What the layer makes in its own pass, which layers after it would.
    pub epilogue: Epilogue,
    /// The depthwise convolution that a 1×1 convolution makes before itself, and the activation between them.
    pub depthwise: Option<(Convolution<'a>, Activation)>,
    /// Of a batch norm's input, where the convolution before it told them.
    pub statistics: Option<Statistics>,
}

/// What a layer gives.
pub(crate) struct LayerOutput {
    pub output: Tensor,
    /// What a sigmoid or softmax was applied to.
    pub logits: Option<Tensor>,
    /// New values of the layer's moving mean and variance.
    pub moving: Option<(Tensor, Tensor)>,
    /// Of a convolution's output.
    pub statistics: Option<Statistics>,
}

impl From<Tensor> for LayerOutput {
    fn from(output: Tensor) -> Self {
        LayerOutput { output, logits: None, moving: None, statistics: None }
    }
}

impl LayerOutput {
    /// An activation of y; what makes probabilities keeps what it makes them of.
    pub fn activated(y: Tensor, activation: Activation) -> Result<Self> {
        let probabilities = matches!(activation, Activation::Sigmoid | Activation::Softmax);
        let logits = probabilities.then(|| y.clone());
        Ok(LayerOutput { logits, ..LayerOutput::from(activation.apply(y)?) })
    }
}

/// The input of a layer that has one.
pub(super) fn one(inputs: Vec<Tensor>, name: &str) -> Result<Tensor> {
    let count = inputs.len();
    let mut inputs = inputs.into_iter();
    match (inputs.next(), count) {
        (Some(x), 1) => Ok(x),
        _ => Err(Error::argument("layer", format!("expected one input of `{name}`, got {count}"))),
    }
}
