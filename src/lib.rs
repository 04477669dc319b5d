//! A deep-learning engine written from scratch, small enough to be read.
//!
//! In the order to read it: [`tensor`] (a shape and shared memory), [`autograd`] (the tape),
//! [`ops`] (one module an operator: formula, reference, fast kernel, gradient, cases), [`backend`] (what
//! the kernels share), [`nn`] and [`models`] (networks as named layers), [`losses`], [`optimizers`], [`data`],
//! `train`, `weights`, [`predict`], [`eval`], [`attack`].

pub mod activation;
pub mod attack;
pub mod autograd;
pub mod backend;
#[cfg(feature = "checkpoint")]
pub mod bench;
pub mod cases;
pub mod context;
pub mod data;
pub mod device;
pub mod error;
pub mod eval;
pub mod files;
pub mod ladder;
pub mod losses;
pub mod models;
pub mod nn;
pub mod ops;
pub mod optimizers;
pub mod pool;
pub mod predict;
pub mod random;
#[cfg(feature = "report")]
pub mod report;
pub mod tensor;
#[cfg(feature = "checkpoint")]
pub mod train;
#[cfg(feature = "weights")]
pub mod weights;

pub use activation::Activation;
pub use device::Device;
pub use error::{Error, Result};
pub use tensor::{DType, Shape, Tensor};

/// The book's examples compile and run.
#[cfg(doctest)]
#[doc = include_str!("../docs/01-the-core.md")]
struct Book;
