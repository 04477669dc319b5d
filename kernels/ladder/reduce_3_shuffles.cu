// Sums of the rows of x [rows, columns], rung 3 of 4: shuffles instead of the tree.
//
// Adds: the 32 lanes of a warp add up through registers, and one barrier joins the warps. It matters for short rows;
// a long one is bound by its bytes, and a single one still keeps a single block busy.
// Measured on an H100: 2368 GB/s of 4096x4096, 21 GB/s of one long row.

#include "common.cuh"

// grid: [rows]; block: 256.
extern "C" __global__ void __launch_bounds__(256) reduce_3_shuffles(
    const float* __restrict__ x, float* __restrict__ y, i64 columns) {
    __shared__ double scratch[32];
    const float* row = x + (i64)blockIdx.x * columns;
    double sum = 0.0;
    for (i64 i = threadIdx.x; i < columns; i += 256) sum += (double)row[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) y[blockIdx.x] = (float)sum;
}
