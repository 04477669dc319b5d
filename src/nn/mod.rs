//! Networks: [`layers`], and graphs of them that run, train and are rewritten.

mod finite;
mod graph;
pub mod layers;
mod model;
mod network;
mod parameters;
mod plan;
mod rewrite;
mod summary;
#[cfg(test)]
mod tests;
mod training_graph;

pub use finite::not_finite;
pub use graph::{Cost, Graph, Id, Node};
pub use layers::Mode;
pub use model::Model;
pub use network::ForwardOutput;
pub use parameters::Parameter;
pub use plan::{ChosenAlgorithm, PassCost, PlanTable, PlannedStep, Purpose, StepCost, UnfusedLayer};
pub use rewrite::{
    classify_before_upsampling, fold_batch_norm, fold_frozen_batch_norm, for_inference,
    pad_within_convolutions,
};
pub use summary::{Row, Summary};
pub use training_graph::TrainingGraph;
