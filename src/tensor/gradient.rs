//! Gradients as the tape hands them on. [`Gradient::to_dense`], which needs a kernel, is in
//! `backend/cpu/low_rank.rs`.

use super::{Shape, Tensor};
use std::sync::OnceLock;

/// The gradient of a loss with respect to one tensor, as an operator left it.
/// ([`Gradients::get`](crate::autograd::Gradients::get) gives its elements.)
///
/// ```
/// use atrous::Tensor;
/// use atrous::tensor::Gradient;
///
/// let gradient = Gradient::from(Tensor::from([1.0f32, 2.0])); // what optimizers take
/// assert!(matches!(gradient, Gradient::Dense(_)));
/// assert_eq!(gradient.to_dense().to_string(), "[1. 2.]");
/// assert_eq!(gradient.into_dense().shape()[..], [2]);
/// ```
#[derive(Clone)]
pub enum Gradient {
    /// All elements.
    Dense(Tensor),
    /// In its factors, until somebody asks for its elements. (Boxed: three tensors in each of the tape's
    /// gradients would make the walk over a small graph a third longer.)
    LowRank(Box<LowRankGrad>),
}

impl From<Tensor> for Gradient {
    fn from(tensor: Tensor) -> Self {
        Gradient::Dense(tensor)
    }
}

/// xᵀ·g with x [batch, in] and g [batch, out], both f32 in the CPU's memory: [in, out], a matrix of rank
/// (linearly independent rows, not [`Shape::rank`]) `batch` at most.
///
/// The gradient of a dense layer's weights is one: x is the layer's input and g the gradient of its output,
/// a row a sample. For the 100,352 × 512 weights (205 MB) of this crate's head for ResNet50V2 (7 × 7 × 2048,
/// flattened), a batch of 16 is factors of 6.4 MB and 33 kB. Multiplied out, 205 MB would be written, and
/// read once by the optimizer, beside the weights that it reads and writes anyway. So an optimizer
/// multiplies a few rows at a time, which stay in L2 (`backend/cpu/low_rank.rs`), and anybody else gets all
/// elements when asking for them. In factors are the gradients of at most 28 samples with AVX-512, 12 with
/// AVX2 and 4 without either (`backend::cpu::gemm::is_skinny`); those of larger batches, all in f64, by the
/// reference or on a GPU, and sums of several are [`Gradient::Dense`].
#[derive(Clone)]
pub struct LowRankGrad {
    /// The layer's input, [batch, in].
    pub(crate) x: Tensor,
    /// The gradient of its output, [batch, out].
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
        [self.x.shape().last_length(), self.g.shape().last_length()].into()
    }
}
