//! From a graph to the steps that compute it.
//!
//! A layer of a graph is an idea; a step is a pass over memory. A convolution that is followed by an
//! activation alone writes the activation's result; so it is with a max pooling of 2×2, and with a sum of
//! two, of which it makes one. A 1×1 convolution makes the depthwise one before it, if nobody else reads
//! that. A convolution in front of a batch norm takes the statistics of its result while that is in cache.
//! What is left out between is never written.
//!
//! A [`Plan`] is made once for a device, a shape of images and what is asked for ([`Target`]), and kept. It
//! says of each step which layers it computes, what it reads, what nobody reads after it, and of each layer
//! that one step more is needed for why that is so: `atrous summary NET --plan` prints it. Where somebody
//! looks at every layer's output, each is a step.

mod cost;
mod planner;
mod table;

pub use cost::{PassCost, StepCost};
pub use table::{ChosenAlgorithm, PlanTable, PlannedStep, Purpose, UnfusedLayer};

use super::graph::{Graph, Id, Node};
use super::layers::Layer;
use crate::activation::Activation;
use crate::ops::conv2d::Conv2dGeometry;
use crate::ops::depthwise_conv2d::DepthwiseGeometry;
use crate::ops::epilogue::Kernels;
use crate::tensor::Shape;
use planner::Planner;
use std::sync::{Arc, Mutex, PoisonError};

/// What a plan is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub kernels: Kernels,
    /// Images [N, H, W, C].
    pub input: Shape,
    /// Whether a gradient by the images is asked for.
    pub input_gradient: bool,
    /// Whether gradients by what trains are.
    pub gradients: bool,
    /// Whether batch norms that train use the batch's own statistics.
    pub batch_statistics: bool,
    /// For each layer, whether it has parameters that train.
    pub trains: Vec<bool>,
    /// Whether each layer is a step of its own: somebody looks at all outputs.
    pub observed: bool,
}

impl Target {
    /// Whether a layer normalises by the batch's own statistics.
    pub fn batch_statistics_of(&self, layer: usize) -> bool {
        self.batch_statistics && self.trains[layer]
    }

    /// For each layer, whether a gradient comes back to its output.
    pub fn recorded(&self, graph: &Graph) -> Vec<bool> {
        let mut recorded: Vec<bool> = Vec::with_capacity(graph.nodes().len());
        for (i, node) in graph.nodes().iter().enumerate() {
            let by_input = match node.layer {
                Layer::Input(_) => self.input_gradient,
                _ => node.inputs.iter().any(|id| recorded[id.0]),
            };
            recorded.push(by_input || (self.gradients && self.trains[i]));
        }
        recorded
    }
}

/// The steps in the order in which they run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub steps: Vec<Step>,
}

/// One operator, and what it makes along with its result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    /// The layer whose operator it is.
    pub layer: Id,
    /// What it reads.
    pub inputs: Vec<Id>,
    pub fusion: Fusion,
    /// The layer whose output it makes: the last of those it computes.
    pub output: Id,
    /// Whose outputs nobody reads after it.
    pub frees: Vec<Id>,
    /// Layers around it that are steps of their own, and why.
    pub unfused: Vec<Unfused>,
    /// Of a batch norm: whether it normalises by the batch's own statistics.
    pub batch_statistics: bool,
}

/// What an operator makes in its pass besides its own result: a plan's epilogue, in terms of layers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fusion {
    /// The depthwise convolution in front of a 1×1 convolution, and the activation between them.
    pub depthwise: Option<(Id, Activation)>,
    /// The output that its result is added to.
    pub residual: Option<Id>,
    pub activation: Activation,
    /// Whether its result is max pooled, 2×2.
    pub pool: bool,
    /// The batch norm that its result's statistics are for.
    pub statistics: Option<Id>,
    /// All layers besides its own that it computes.
    pub layers: Vec<Id>,
}

/// A layer that might have been made in a step's pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfused {
    pub layer: Id,
    /// In which way.
    pub part: &'static str,
    pub why: &'static str,
}

impl Step {
    /// The layers it computes, in the graph's order.
    pub fn layers(&self) -> Vec<Id> {
        let mut all = self.fusion.layers.clone();
        all.push(self.layer);
        all.sort_by_key(|id| id.0);
        all
    }

    fn reads(&self) -> impl Iterator<Item = Id> {
        self.inputs.iter().copied().chain(self.fusion.residual)
    }
}

impl Plan {
    pub fn new(graph: &Graph, target: &Target) -> Self {
        Plan { steps: Planner::new(graph, target).steps() }
    }
}

/// Plans that were made, by what they are for. A copy of a network makes its own.
#[derive(Default)]
pub(crate) struct PlanCache(Mutex<Vec<(Target, Arc<Plan>)>>);

impl Clone for PlanCache {
    fn clone(&self) -> Self {
        PlanCache::default()
    }
}

impl PlanCache {
    /// The plan of this graph, which is always the same one.
    pub fn get(&self, graph: &Graph, target: Target) -> Arc<Plan> {
        /// A training run has few shapes of batches; what is attacked or predicted one.
        const MOST: usize = 8;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = all.iter().find(|(known, _)| *known == target) {
            return plan.clone();
        }
        let plan = Arc::new(Plan::new(graph, &target));
        if all.len() == MOST {
            all.remove(0);
        }
        all.push((target, plan.clone()));
        plan
    }
}

/// Where a convolution layer's windows lie, for so many images.
fn geometry(graph: &Graph, batch: usize, i: usize) -> Option<Conv2dGeometry> {
    let node = &graph.nodes()[i];
    let Layer::Conv2D(layer) = node.layer else { return None };
    let kernel = node.parameters.first()?.shape;
    Conv2dGeometry::new(input_shape(graph, batch, node)?, kernel, layer.options()).ok()
}

/// The same of a depthwise one.
fn depthwise_geometry(graph: &Graph, batch: usize, i: usize) -> Option<DepthwiseGeometry> {
    let node = &graph.nodes()[i];
    let Layer::DepthwiseConv2D(layer) = node.layer else { return None };
    let kernel = node.parameters.first()?.shape;
    DepthwiseGeometry::new(input_shape(graph, batch, node)?, kernel, layer.options()).ok()
}

fn input_shape(graph: &Graph, batch: usize, node: &Node) -> Option<Shape> {
    let input = graph.node(*node.inputs.first()?);
    Shape::checked(&[&[batch], &input.output_shape[..]].concat()).ok()
}
