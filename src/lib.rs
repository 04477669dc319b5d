//! A deep-learning engine written from scratch, small enough to be read.
//!
//! In the order to read it: [`tensor`] (a shape and shared memory), [`autograd`] (the tape),
//! [`ops`] (one room an operator: formula, reference, fast kernel, gradient, cases), [`cpu`] (what
//! the fast kernels share), [`graph`] and [`models`] (networks as named layers), [`losses`],
//! [`optimizers`], [`data`], `train`, `weights`, [`predict`], [`submission`], [`attack`].

pub mod attack;
pub mod autograd;
#[cfg(feature = "checkpoint")]
pub mod bench;
pub mod cases;
pub mod controls;
pub mod cpu;
pub mod cuda;
pub mod data;
pub mod device;
pub mod error;
pub mod files;
pub mod graph;
pub mod ladder;
pub mod layers;
pub mod linear;
pub mod losses;
pub mod metrics;
pub mod models;
pub mod ops;
pub mod optimizers;
pub mod pool;
pub mod predict;
pub mod random;
pub mod refine;
#[cfg(feature = "report")]
pub mod report;
pub mod submission;
pub mod tensor;
pub mod thresholds;
#[cfg(feature = "checkpoint")]
pub mod train;
#[cfg(feature = "weights")]
pub mod weights;

pub use device::Device;
pub use error::{Error, Result};
pub use tensor::{DType, Shape, Tensor};

/// The book's examples compile and run.
#[cfg(doctest)]
#[doc = include_str!("../docs/01-the-core.md")]
struct Book;
