// Activations: see src/ops/activation.rs for formulas and gradients.
//
// Bytes bind: 8 a forward element, 12 a backward one. No hardware has run these yet.

#include "common.cuh"

// Comparisons, not fmaxf: a NaN stays a NaN.
__device__ __forceinline__ float value(int f, float x) {
    switch (f) {
    case RELU: return x <= 0.0f ? 0.0f : x;
    case RELU6: return x <= 0.0f ? 0.0f : x >= 6.0f ? 6.0f : x;
    case SIGMOID: return 1.0f / (1.0f + expf(-x));
    default: return tanhf(x);
    }
}

// dy/dx, from y.
__device__ __forceinline__ float slope(int f, float y) {
    switch (f) {
    case RELU: return y > 0.0f ? 1.0f : 0.0f;
    case RELU6: return y > 0.0f && y < 6.0f ? 1.0f : 0.0f;
    case SIGMOID: return y * (1.0f - y);
    default: return 1.0f - y * y;
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
