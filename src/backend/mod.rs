//! What kernels run on: the CPU's instruction sets, threads and matrix products, and CUDA devices.

pub mod cpu;
pub mod cuda;
