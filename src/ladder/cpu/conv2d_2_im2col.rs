//! Convolution, rung 2 of 5: all patches copied into one matrix (im2col), then a matrix product.
//!
//!   y [N·OH·OW, F] = patches(x) [N·OH·OW, kh·kw·C] · w [kh·kw·C, F] + b
//!
//! Adds: the product of gemm_4_registers.rs, with all its reuse of registers and caches, and all
//! threads. It costs a matrix kh·kw times as large as the image, which goes to memory and comes back:
//! 8·kh·kw bytes for every 4 of x. With few filters these bytes bind: F/4 operations for each byte of
//! the matrix, 16 with 64 filters, where the definition has hundreds. A 1×1 kernel pays a copy of the
//! image, for nothing.
//!
//! Reached: 164 GFLOP/s at 3×3 with 64 channels and filters, 250 with 256.

use crate::activation::Activation;
use crate::backend::cpu::gemm::{BOperand, Dense, Init, Matrix, PackedB, product};
use crate::backend::cpu::threads;
use crate::context::isa;
use crate::error::Result;
use crate::ladder::Work;
use crate::ops::conv2d::Conv2dGeometry;
use crate::pool::Buffer;
use crate::tensor::Tensor;

pub fn run(work: &Work, t: &[Tensor]) -> Result<Tensor> {
    let g = work.conv2d_geometry()?;
    let [x, w, b] = [0, 1, 2].map(|i| t[i].values::<f32>());
    let patches = im2col(&g, x);
    let depth = g.kernel[0] * g.kernel[1] * g.in_channels;
    let rows = Matrix::new(&patches, patches.len() / depth, depth);
    let right = PackedB::new(isa(), &BOperand::matrix(w, depth, g.out_channels));
    let mut y = Buffer::<f32>::new(work.output.elements());
    // SAFETY: dense rows, one an output pixel.
    unsafe { product(&rows, &right, Init::Bias(b), Activation::Linear, &Dense(g.out_channels), &mut y) };
    Ok(Tensor::from_buffer(y, work.output))
}

/// A row an output pixel: what its window sees, tap by tap, zeros outside the image.
fn im2col(g: &Conv2dGeometry, x: &[f32]) -> Buffer<f32> {
    let c = g.in_channels;
    let depth = g.kernel[0] * g.kernel[1] * c;
    let mut patches = Buffer::<f32>::new(g.batch * g.output[0] * g.output[1] * depth);
    // A row of outputs a piece.
    threads::for_each_chunk(&mut patches, (g.output[1] * depth).max(1), |row, out| {
        let (n, oy) = (row / g.output[0], row % g.output[0]);
        for (ox, out) in out.chunks_exact_mut(depth).enumerate() {
            for (tap, out) in out.chunks_exact_mut(c).enumerate() {
                let at = |axis: usize, o: usize, k: usize| {
                    let i = (o * g.stride[axis] + k * g.dilation[axis]).checked_sub(g.pad[axis])?;
                    (i < g.input[axis]).then_some(i)
                };
                match (at(0, oy, tap / g.kernel[1]), at(1, ox, tap % g.kernel[1])) {
                    (Some(iy), Some(ix)) => {
                        let pixel = (n * g.input[0] + iy) * g.input[1] + ix;
                        out.copy_from_slice(&x[pixel * c..][..c]);
                    }
                    _ => out.fill(0.0),
                }
            }
        }
    });
    patches
}
