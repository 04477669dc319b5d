//! Networks: [`layers`], and graphs of them that run, train and are rewritten.

mod finite;
mod graph;
pub mod layers;
mod model;
mod passes;
mod rewrite;
mod summary;
#[cfg(test)]
mod tests;

pub use finite::not_finite;
pub use graph::{Cost, Graph, Id, Node};
pub use layers::Run;
pub use model::{Model, Parameter, Pass};
pub use rewrite::{
    Live, classify_before_upsampling, fold_batch_norm, fold_frozen_batch_norm, for_inference,
    pad_within_convolutions,
};
pub use summary::{Row, Summary};
