// Convolution, rung 2 of 5: the part of the picture that a block sees lies in shared memory.
//
// Adds: a block makes an 8x8 patch of outputs for 32 filters. The pixels under its windows are read once for four
// channels at a time and used by all filters and overlapping windows; a thread makes the eight outputs of one row for
// one filter, so that each weight it reads is used eight times: 16 operations for 36 bytes (rung 1 has 16 for 64),
// and the 32 of them that are pixels are one broadcast to the whole warp. The patch grows with stride and dilation.
// Measured on an H100: 6.3 TFLOP/s of 3x3, 256 to 256, at 28x28.

#include "conv2d.cuh"

static const int SIDE = 8, CHANNELS = 4;

// Block: 32 filters by 8 rows; grid: [patches of a picture, filters / 32, batch]. Dynamic shared memory: the
// patch, ((SIDE - 1) * stride + (k - 1) * dilation + 1) on each axis, times CHANNELS floats.
extern "C" __global__ void __launch_bounds__(256, 3) conv2d_2_tiled(
    const float* __restrict__ x, const float* __restrict__ w,
                                                                 const float* __restrict__ bias, float* __restrict__ y,
                                                                 Conv2d g) {
    DYNAMIC_SHARED(float, patch);
    const int high = (SIDE - 1) * g.stride_y + (g.kernel_height - 1) * g.dilation_y + 1;
    const int wide = (SIDE - 1) * g.stride_x + (g.kernel_width - 1) * g.dilation_x + 1;
    const int across = ceil_div(g.out_width, SIDE);
    const int oy0 = blockIdx.x / across * SIDE, ox0 = blockIdx.x % across * SIDE;
    const int f = blockIdx.y * 32 + threadIdx.x, t = threadIdx.y * 32 + threadIdx.x;
    const float* picture = x + (i64)blockIdx.z * g.height * g.width * g.channels;
    float sum[SIDE] = {};
    for (int c0 = 0; c0 < g.channels; c0 += CHANNELS) {
        __syncthreads();
        for (int i = t; i < high * wide * CHANNELS; i += 256) {
            const int c = c0 + i % CHANNELS;
            const int iy = oy0 * g.stride_y - g.pad_y + i / CHANNELS / wide;
            const int ix = ox0 * g.stride_x - g.pad_x + i / CHANNELS % wide;
            const bool inside = c < g.channels && iy >= 0 && iy < g.height && ix >= 0 && ix < g.width;
            patch[i] = inside ? picture[((i64)iy * g.width + ix) * g.channels + c] : 0.0f;
        }
        __syncthreads();
        for (int tap = 0; f < g.filters && tap < g.kernel_height * g.kernel_width; tap++) {
            const int ky = tap / g.kernel_width * g.dilation_y, kx = tap % g.kernel_width * g.dilation_x;
            const float* row = patch + ((threadIdx.y * g.stride_y + ky) * wide + kx) * CHANNELS;
            for (int c = 0; c < CHANNELS && c0 + c < g.channels; c++) {
                const float weight = w[((i64)tap * g.channels + c0 + c) * g.filters + f];
#pragma unroll
                for (int i = 0; i < SIDE; i++) sum[i] = fmaf(row[i * g.stride_x * CHANNELS + c], weight, sum[i]);
            }
        }
    }
    const int oy = oy0 + threadIdx.y;
    if (f >= g.filters || oy >= g.out_height) return;
    const i64 output = ((i64)blockIdx.z * g.out_height + oy) * g.out_width + ox0;
#pragma unroll
    for (int i = 0; i < SIDE; i++) {
        if (ox0 + i < g.out_width) y[(output + i) * g.filters + f] = bias == nullptr ? sum[i] : sum[i] + bias[f];
    }
}
