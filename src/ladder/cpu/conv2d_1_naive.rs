//! Convolution, rung 1 of 5: the definition, loop by loop (src/ops/conv2d/reference.rs, in f32).
//!
//! y(n, oy, ox, f) = b(f) + Σ_{ky, kx, c} x(n, iy, ix, c) · w(ky, kx, c, f)
//!
//! Arithmetic should bind: 2·kh·kw·C operations an output, for 4·(x + w + y) bytes that must move; 3×3
//! with 256 channels at 28×28 does several hundred operations a byte. But here each multiply-add of a
//! filter's row reads its sum and its weight and writes the sum back, 12 bytes from the caches for 2
//! operations, and all of w passes by for every output: 2.4 MB that no L1 holds. One thread, and only
//! the vectors that every x86-64 has.
//!
//! Reached: 16 GFLOP/s at 3×3, 256 channels, 28×28 (4 % of what the two cores can do).

use crate::backend::cpu::simd::Isa;
use crate::context::with_isa;
use crate::error::Result;
use crate::ladder::Work;
use crate::tensor::Tensor;

pub fn run(work: &Work, t: &[Tensor]) -> Result<Tensor> {
    with_isa(Isa::Reference, || work.by_operator(t))
}
