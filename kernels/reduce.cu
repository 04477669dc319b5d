// Sums of x as [outer, reduced, inner] over its middle axis: see src/ops/reduce.rs. `reduce_rows` is rung 4 of the
// ladder; below it kernels/ladder/reduce_*.cu, over which it adds parts: many blocks share a row, and a second kernel
// adds what they have; and 128-bit loads.
//
// Bytes bind: every element is read once, 4 bytes each. Two stages, both in a fixed order and in double,
// so that the same bits come out in every run whatever the blocks' order: first each block adds a part
// of the reduced axis, then one thread an output adds the parts.

#include "common.cuh"

// inner = 1: a block of 256 threads adds `length` neighbours of one row. grid: [parts, outer].
extern "C" __global__ void __launch_bounds__(256) reduce_rows(const float* __restrict__ x,
                                                              double* __restrict__ partial, i64 reduced,
                                                              i64 length) {
    __shared__ double scratch[32];
    const i64 first = (i64)blockIdx.x * length;
    const i64 end = first + length < reduced ? first + length : reduced;
    const float* row = x + (i64)blockIdx.y * reduced;
    double sum = 0.0;
    if (reduced % 4 == 0 && length % 4 == 0) {  // whatever the row and the part, four neighbours are 16 aligned bytes
        for (i64 i = first + 4 * threadIdx.x; i < end; i += 4 * blockDim.x) {
            const float4 v = *reinterpret_cast<const float4*>(row + i);
            sum += ((double)v.x + (double)v.y) + ((double)v.z + (double)v.w);
        }
    } else {
        for (i64 i = first + threadIdx.x; i < end; i += blockDim.x) sum += (double)row[i];
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[(i64)blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

// inner > 1: a block of 32 columns by 8 rows, each thread every 8th row of `length`; neighbouring threads
// read neighbouring columns. grid: [columns / 32, parts, outer].
extern "C" __global__ void __launch_bounds__(256) reduce_columns(const float* __restrict__ x,
                                                                 double* __restrict__ partial, i64 reduced,
                                                                 i64 inner, i64 length) {
    __shared__ double sums[8][32];
    const i64 column = (i64)blockIdx.x * 32 + threadIdx.x;
    const i64 first = (i64)blockIdx.y * length;
    const i64 end = first + length < reduced ? first + length : reduced;
    double sum = 0.0;
    if (column < inner) {
        const float* at = x + ((i64)blockIdx.z * reduced) * inner + column;
        for (i64 row = first + threadIdx.y; row < end; row += 8) sum += (double)at[row * inner];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < inner) {
        for (int row = 1; row < 8; row++) sum += sums[row][threadIdx.x];
        partial[((i64)blockIdx.z * gridDim.y + blockIdx.y) * inner + column] = sum;
    }
}

// The second stage: out[o, i] = factor * the sum over parts of partial[o, part, i].
extern "C" __global__ void reduce_parts(const double* __restrict__ partial, float* __restrict__ out, i64 n,
                                        i64 parts, i64 inner, double factor) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const double* at = partial + i / inner * parts * inner + i % inner;
        double sum = 0.0;
#pragma unroll 8  // loads under way at a time: their latency binds
        for (i64 part = 0; part < parts; part++) sum += at[part * inner];
        out[i] = (float)(sum * factor);
    }
}

// The backward pass: every g to all the elements that were summed.
extern "C" __global__ void reduce_spread(const float* __restrict__ g, float* __restrict__ d, i64 n, i64 reduced,
                                         i64 inner, float factor) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        d[i] = g[i / (reduced * inner) * inner + i % inner] * factor;
    }
}
