//! What most programs begin with: `use atrous::prelude::*;`.
//!
//! Tensors and their operators' options, gradients, networks of layers, losses and optimizers. (`Result` is
//! this crate's, with [`Error`] where no other error is named.)

pub use crate::activation::Activation;
pub use crate::autograd::{Function, Gradients, check_gradients, no_grad};
pub use crate::device::Device;
pub use crate::error::{Error, Result};
pub use crate::losses::Loss;
pub use crate::nn::layers::Layer;
pub use crate::nn::{Graph, Mode, Model};
pub use crate::ops::{Conv2dOptions, Padding, PoolOptions};
pub use crate::optimizers::{Optimizer, OptimizerKind};
pub use crate::tensor::{DType, IntoShape, Shape, Tensor};
