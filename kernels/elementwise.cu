// What the tape asks for: see src/backend/accumulate.rs. Functions of one and of two numbers:
// kernels/unary.cu, kernels/binary.cu.

#include "common.cuh"

// out[i] = sum[i] + share[i], where out may be sum: how the tape adds gradients.
extern "C" __global__ void elementwise_accumulate(
    const float* sum, const float* __restrict__ share, float* out, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        out[i] = sum[i] + share[i];
    }
}

extern "C" __global__ void elementwise_fill(float* __restrict__ y, i64 n, float value) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) y[i] = value;
}
