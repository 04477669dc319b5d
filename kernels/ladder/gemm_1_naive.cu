// Matrix product, rung 1 of 5: a thread an element of the result, straight from the definition.
//
//   c [m, n] = a [m, k] * b [k, n]
//
// Arithmetic should bind: 2*m*n*k operations on (m*k + k*n + m*n) * 4 bytes; for 4096 cubed that is 137 GFLOP on
// 201 MB, 683 operations a byte, and an H100 SXM does 67 TFLOP/s of f32 and 3.35 TB/s: 20 operations a byte are
// enough. But here every operation reads two floats from L1 or L2: 0.25 operations a byte, and loads bind.
// Measured on an H100: 6.0 TFLOP/s of a product of 4096^3.

#include "common.cuh"

// Neighbouring threads make neighbouring columns, so that reads of b and writes of c are whole lines.
// Block: 32 columns by 8 rows; grid: [n / 32, m / 8].
extern "C" __global__ void __launch_bounds__(256) gemm_1_naive(const float* __restrict__ a, const float* __restrict__ b,
                                                               float* __restrict__ c, int m, int n, int k) {
    const int column = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 8 + threadIdx.y;
    if (row >= m || column >= n) return;
    float sum = 0.0f;
    for (int i = 0; i < k; i++) sum = fmaf(a[(i64)row * k + i], b[(i64)i * n + column], sum);
    c[(i64)row * n + column] = sum;
}
