// Softmax over the last axis: see src/ops/softmax.rs.
//
// Bytes bind: 8 an element forward, 12 backward. A thread a row (kernels/short_rows.cuh); rows of more than 47 elements want
// a warp each, which is a later rung.

#include "short_rows.cuh"

// Dynamic shared memory: ROWS rows, if `staged`.
extern "C" __global__ void __launch_bounds__(256) softmax_forward(
    const float* x, float* y, i64 rows, int columns, int staged) {
    DYNAMIC_SHARED(float, tile);
    each_row(staged ? tile : nullptr, x, y, rows, columns, [=](i64, const float* z, float* p) {
        float largest = z[0], total = 0.0f;
        for (int j = 1; j < columns; j++) largest = z[j] > largest ? z[j] : largest;
        for (int j = 0; j < columns; j++) {
            p[j] = expf(z[j] - largest);
            total += p[j];
        }
        const float scale = 1.0f / total;
        for (int j = 0; j < columns; j++) p[j] *= scale;
    });
}

// d = y * (g - sum g y)
extern "C" __global__ void softmax_backward(const float* __restrict__ y, const float* __restrict__ g,
                                            float* __restrict__ d, i64 rows, int columns) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 row = (i64)blockIdx.x * blockDim.x + threadIdx.x; row < rows; row += stride) {
        const i64 first = row * columns;
        float dot = 0.0f;
        for (int j = 0; j < columns; j++) dot += y[first + j] * g[first + j];
        for (int j = 0; j < columns; j++) d[first + j] = y[first + j] * (g[first + j] - dot);
    }
}
