// Optimizers: see src/optimizers.rs for the rules. One pass over a parameter, its gradient and its state: each
// read once, and what changes written once.
//
// Bytes bind: 12 an element for SGD, 28 for Adam. No hardware has run these yet.

#include "common.cuh"

extern "C" __global__ void optimizers_sgd(float* __restrict__ w, const float* __restrict__ g, i64 n, float rate) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) w[i] -= rate * g[i];
}

extern "C" __global__ void optimizers_sgd_momentum(float* __restrict__ w, float* __restrict__ m,
                                                   const float* __restrict__ g, i64 n, float rate, float momentum) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        m[i] = momentum * m[i] - rate * g[i];
        w[i] += m[i];
    }
}

// epsilon is inside the root or outside it; the other of the two is 0. m may be null: no momentum.
extern "C" __global__ void optimizers_rmsprop(float* __restrict__ w, float* __restrict__ v, float* __restrict__ m,
                                              const float* __restrict__ g, i64 n, float rate, float rho, float left,
                                              float momentum, float inside, float outside) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        v[i] = rho * v[i] + left * g[i] * g[i];
        float change = rate * g[i] / (sqrtf(v[i] + inside) + outside);
        if (m != nullptr) {
            change = momentum * m[i] + change;
            m[i] = change;
        }
        w[i] -= change;
    }
}

// `rate` is corrected for the step already; first = 1 - beta_1, second = 1 - beta_2.
extern "C" __global__ void optimizers_adam(float* __restrict__ w, float* __restrict__ m, float* __restrict__ v,
                                           const float* __restrict__ g, i64 n, float rate, float first,
                                           float second, float epsilon) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        m[i] += first * (g[i] - m[i]);
        v[i] += second * (g[i] * g[i] - v[i]);
        w[i] -= rate * m[i] / (sqrtf(v[i]) + epsilon);
    }
}
