//! How good predictions are: scores ([`metrics`]), and what a score must beat to mean something
//! ([`baselines`]).

pub mod baselines;
mod logistic_regression;
pub mod metrics;
