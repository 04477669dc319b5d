//! Gradients as the tape hands them on. [`Gradient::to_dense`], which needs a kernel, is in
//! `backend/cpu/low_rank.rs`.

use super::{Shape, Tensor};
use std::sync::OnceLock;

/// The gradient of a loss with respect to one tensor.
#[derive(Clone)]
pub enum Gradient {
    /// All elements.
    Dense(Tensor),
    /// In its factors, until somebody asks for its elements.
    LowRank(LowRankGrad),
}

impl From<Tensor> for Gradient {
    fn from(tensor: Tensor) -> Self {
        Gradient::Dense(tensor)
    }
}

/// xᵀ·g with x [batch, in] and g [batch, out], both f32 in the CPU's memory: [in, out], of rank `batch` at
/// most.
///
/// The gradient of a dense layer's weights is one: x is its input and g the gradient of its output, a row a
/// sample. With a batch of 16, two factors of 16 rows hold what 100352 × 512 numbers (205 MB) would.
/// Multiplied out, those are written once and read once again by the optimizer, beside the weights that it
/// reads and writes anyway. So the gradient stays in its factors: an
/// optimizer multiplies a few rows at a time, which stay in L2 (`backend/cpu/low_rank.rs`), and anybody
/// else gets all of it when they ask for its elements. Larger batches give [`Gradient::Dense`].
#[derive(Clone)]
pub struct LowRankGrad {
    pub(crate) x: Tensor,
    pub(crate) g: Tensor,
    /// All elements, once somebody has asked for them.
    pub(crate) dense: OnceLock<Tensor>,
}

impl LowRankGrad {
    pub(crate) fn new(x: &Tensor, g: &Tensor) -> Self {
        assert_eq!(x.shape()[0], g.shape()[0]);
        LowRankGrad { x: x.detach(), g: g.detach(), dense: OnceLock::new() }
    }

    /// [in, out] of the product.
    pub fn shape(&self) -> Shape {
        [self.x.shape().last_axis(), self.g.shape().last_axis()].into()
    }
}
