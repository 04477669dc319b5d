//! The CPU's kernels. Vectors run along the channels, threads over rows.
//!
//! 3×3 windows of stride 1 and 2 go a block of pixels at a time: a block's windows overlap, so that 4 outputs of
//! stride 1 need 18 pixels of x instead of 36, and its 9 weights are loaded once. With AVX-512 that is 27 loads
//! for 36 multiply-adds: the multipliers bind, at about the speed of memory, and no longer the loads.
//!
//! Both gradients are one pass. ∂x at pixel i is Σₖ wₖ·g(i − k), and pixel i's share of ∂wₖ is x(i)·g(i − k): the same
//! gradients, read once for both.
//!
//! Other windows, and pixels at the edges, go tap by tap.

mod forward;
mod gradients;

pub use forward::forward;
pub use gradients::gradients;

use super::DepthwiseGeometry;

/// Outputs, or pixels of ∂x, a block. With the 9 weights (and, backward, 9 sums) they fit AVX-512's registers.
const BLOCK: usize = 4;

/// Whether a convolution goes block by block.
fn blocked(g: &DepthwiseGeometry) -> bool {
    g.kernel == [3, 3] && g.dilation == [1, 1] && g.stride[0] == g.stride[1] && g.stride[0] <= 2
}
