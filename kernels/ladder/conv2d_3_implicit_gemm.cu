// Convolution, rung 3 of 5: a matrix product whose left factor is never stored.
//
//   y [N*OH*OW, F] = patches(x) [N*OH*OW, kh*kw*C] * w [kh*kw*C, F] + b
//
// Adds: the tiles and the registers of kernels/ladder/gemm_3_registers.cu; the elements of the matrix of patches are
// read from the picture where the product needs them. A block of 256 threads makes a 64x64 tile of the result, 4x4
// a thread, 16 deep a step: 16 operations a byte from L2 or beyond, 1 a byte of shared memory. What is left: the
// block waits for each tile, and each element of a patch costs an index of its own.
// Measured on an H100: 15.3 TFLOP/s of 3x3, 256 to 256, at 28x28.

#include "conv2d.cuh"

static const int TILE = 64, BK = 16;

// grid: [outputs / 64, filters / 64].
extern "C" __global__ void __launch_bounds__(256) conv2d_3_implicit_gemm(
    const float* __restrict__ x, const float* __restrict__ w,
                                                                         const float* __restrict__ bias,
                                                                         float* __restrict__ y, Conv2d g) {
    __shared__ __align__(16) float left[BK][TILE], right[BK][TILE];
    const int t = threadIdx.x, tx = t % 16, ty = t / 16;
    const int rows = g.batch * g.out_height * g.out_width, depth = g.kernel_height * g.kernel_width * g.channels;
    const int first_row = blockIdx.x * TILE, first_column = blockIdx.y * TILE;
    const int row = first_row + t / 4;
    const Place at = place(row < rows ? row : 0, g.out_height, g.out_width);
    float sum[4][4] = {};
    for (int k0 = 0; k0 < depth; k0 += BK) {
        for (int i = 0; i < 4; i++) {
            const int k = k0 + t % 4 * 4 + i, tap = k / g.channels;
            int index = -1;
            if (row < rows && k < depth) index = pixel_read(g, at, tap / g.kernel_width, tap % g.kernel_width);
            left[t % 4 * 4 + i][t / 4] = index < 0 ? 0.0f : x[(i64)index * g.channels + k % g.channels];
            const int down = k0 + t / 16, column = first_column + tx * 4 + i;
            right[t / 16][tx * 4 + i] = down < depth && column < g.filters ? w[(i64)down * g.filters + column] : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < BK; k++) {
            const float4 p = *reinterpret_cast<const float4*>(&left[k][ty * 4]);
            const float4 q = *reinterpret_cast<const float4*>(&right[k][tx * 4]);
            const float down[4] = {p.x, p.y, p.z, p.w}, across[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) sum[i][j] = fmaf(down[i], across[j], sum[i][j]);
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) {
            const int r = first_row + ty * 4 + i, c = first_column + tx * 4 + j;
            if (r < rows && c < g.filters) y[(i64)r * g.filters + c] = sum[i][j] + (bias == nullptr ? 0.0f : bias[c]);
        }
    }
}
