//! A model's graph as a training step runs it.

use super::graph::Graph;
use super::layers::Mode;
use super::model::Model;
use super::network::{ForwardOutput, Network};
use super::parameters::Bindings;
use super::plan::PlanCache;
use super::rewrite::Rewrite;
use crate::context::on_threads;
use crate::error::Result;
use crate::tensor::Tensor;

/// The rewritten graph of a model for training: see [`super::fold_frozen_batch_norm`],
/// [`super::classify_before_upsampling`] and [`super::pad_within_convolutions`]. It runs on the model's own
/// parameters; constants with frozen batch norms in them are all that it holds itself. It is of the model as
/// it was made: when other layers train, or frozen ones have other values, there must be a new one
/// ([`TrainingGraph::is_current`]).
///
/// ```
/// use atrous::nn::TrainingGraph;
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// let layers = [Layer::conv2d(4, 3), Layer::batch_normalization()];
/// graph.chain(graph.input(), layers.into_iter().chain([Layer::GlobalAveragePooling2D, Layer::dense(2)]))?;
/// let mut model = Model::new(graph, 1);
/// model.freeze_first(3); // the convolution and its batch norm become one
/// let training = TrainingGraph::new(&model)?;
///
/// let x = Tensor::rand([5, 8, 8, 3], 7);
/// let forward = training.run(&model, &x, Mode::train(1, 0))?;
/// let expected = model.run(&x, Mode::train(1, 0))?.output;
/// assert!((&forward.output - &expected)?.abs()?.max()?.item()? < 1e-5);
///
/// let gradients = forward.output.sum()?.backward()?;
/// let bias = &forward.leaves[7]; // a place among the model's parameters: the last one
/// assert_eq!(gradients.get(bias).unwrap().to_vec_f64(), [5.0; 2]); // each image counts once
/// model.freeze_first(0);
/// assert!(!training.is_current(&model)); // other layers train now
/// # Ok::<(), Error>(())
/// ```
pub struct TrainingGraph {
    graph: Graph,
    bindings: Bindings,
    plans: PlanCache,
    /// By parameter: the version of a frozen layer's, None of a layer that trains.
    frozen: Vec<Option<u64>>,
}

/// What a training graph depends on besides the parameters that train.
fn frozen(model: &Model) -> impl Iterator<Item = Option<u64>> {
    (0..model.graph.nodes().len()).flat_map(|layer| {
        let frozen = model.is_frozen(layer);
        model.layer_parameters(layer).map(move |parameter| frozen.then(|| parameter.value.version()))
    })
}

impl TrainingGraph {
    /// Rewrites the model's graph for the layers that train at present; folds its frozen batch norms at once.
    pub fn new(model: &Model) -> Result<Self> {
        let rewrite = Rewrite::for_training(&model.graph, |layer| model.is_frozen(layer))?;
        let bindings = rewrite.bind(model)?;
        let (plans, frozen) = (PlanCache::default(), frozen(model).collect());
        Ok(TrainingGraph { graph: rewrite.graph, bindings, plans, frozen })
    }

    /// Whether the same layers train as when it was made, and frozen ones have the values they had.
    pub fn is_current(&self, model: &Model) -> bool {
        frozen(model).eq(self.frozen.iter().copied())
    }

    /// Runs the model it was made for: leaves and moving statistics of the pass are numbered as the model's
    /// parameters are.
    pub fn run(&self, model: &Model, x: &Tensor, mode: Mode) -> Result<ForwardOutput> {
        let TrainingGraph { graph, bindings, plans, .. } = self;
        let network = Network { graph, bindings, store: &model.parameters, plans };
        on_threads(x.device(), || network.run(x, mode, None))
    }
}
