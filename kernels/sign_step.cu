// The step of an attack: see src/ops/sign_step.rs.
//
// Bytes bind: 16 an element.

#include "common.cuh"

// Along the sign of the gradient, back into the ball around the origin, back into the range of pictures.
extern "C" __global__ void sign_step(const float* __restrict__ x, const float* __restrict__ g,
                                                 const float* __restrict__ origin, float* __restrict__ y, i64 n, float step,
                                                 float epsilon, float low, float high) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const float s = g[i] > 0.0f ? 1.0f : g[i] < 0.0f ? -1.0f : g[i] * 0.0f, o = origin[i];
        float v = x[i] + step * s;
        v = v < o - epsilon ? o - epsilon : v > o + epsilon ? o + epsilon : v;
        y[i] = v < low ? low : v > high ? high : v;
    }
}
