//! Convolution, rung 4 of 5: Winograd's F(2×2, 3×3), for 3×3 windows of stride 1
//! ([`crate::backend::cpu::winograd`]).
//!
//! Adds: windows of 4×4 pixels and the kernels are transformed (sums and halves alone) so that 2×2
//! outputs cost 16 multiplications a channel and filter instead of 36. GFLOP/s below are the
//! definition's, so they may pass 100 % of the machine's multiply-adds: the bound is 225 %, less what
//! the transforms cost, which C and F share: some 32 additions a window and channel, some 24 an output
//! tile and filter, for 32·F and 32·C operations of products. With fewer than 16 channels they do not
//! pay, and the operator takes rung 3 or a kernel for first layers.
//!
//! Reached: 482 GFLOP/s of the definition's with 64 channels and filters, 501 with 256 (117 %).

use crate::backend::cpu::winograd::{self, Finish};
use crate::context::isa;
use crate::error::{Error, Result};
use crate::ladder::Work;
use crate::pool::Buffer;
use crate::tensor::Tensor;

pub fn run(work: &Work, t: &[Tensor]) -> Result<Tensor> {
    let g = work.conv2d_geometry()?;
    if (g.kernel, g.stride, g.dilation) != ([3, 3], [1, 1], [1, 1]) {
        let [k, s, d] = [g.kernel, g.stride, g.dilation].map(|[y, x]| format!("{y}×{x}"));
        let message =
            format!("does not apply: it is for 3×3 of stride 1, got {k} of stride {s}, dilation {d}");
        return Err(Error::argument("winograd", message));
    }
    let g = winograd::Geometry {
        batch: g.batch,
        input: g.input,
        channels: g.in_channels,
        output: g.output,
        filters: g.out_channels,
        kernel: 3,
        pad: g.pad,
        tile: 2,
    };
    let [x, w, b] = [0, 1, 2].map(|i| t[i].values::<f32>());
    let mut y = Buffer::<f32>::new(work.output.elements());
    let u = winograd::transform_kernels(isa(), &g, w);
    winograd::convolve(isa(), &g, x, &u, Finish { bias: Some(b), ..Finish::default() }, &mut y);
    Ok(Tensor::from_buffer(y, work.output))
}
