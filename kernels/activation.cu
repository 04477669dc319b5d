// Activations: see src/ops/activation.rs for formulas and gradients.
//
// Bytes bind: 8 a forward element, 12 a backward one.

#include "common.cuh"

__device__ __forceinline__ float value(int f, float x) {
    switch (f) {
    case SIGMOID: return 1.0f / (1.0f + expf(-x));
    case TANH: return tanhf(x);
    default: return activated(f, x);
    }
}

// dy/dx, from y.
__device__ __forceinline__ float slope(int f, float y) {
    switch (f) {
    case SIGMOID: return y * (1.0f - y);
    case TANH: return 1.0f - y * y;
    default: return through(f, y, 1.0f);
    }
}

// y may be x.
extern "C" __global__ void activation_forward(const float* x, float* y, i64 n, int f) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) y[i] = value(f, x[i]);
}

// d may be g.
extern "C" __global__ void activation_backward(const float* __restrict__ y, const float* g, float* d, i64 n,
                                               int f) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) d[i] = g[i] * slope(f, y[i]);
}
