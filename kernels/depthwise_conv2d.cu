// Depthwise convolution: see src/ops/depthwise_conv2d.rs for the formulas.
//
// Bytes bind: 2*kh*kw operations for each 4 bytes read and written. Threads run along the channels, so
// that neighbours read neighbours; a picture's rows stay in L1 and L2 between the taps. No hardware has
// run these yet.

#include "common.cuh"

// Everything about one depthwise convolution, as src/ops/depthwise_conv2d.rs has it.
struct Depthwise {
    int batch, height, width;
    int out_height, out_width;
    int channels;
    int kernel_height, kernel_width;
    int stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x;
};

// A thread an output; `bias` may be null.
extern "C" __global__ void depthwise_forward(const float* __restrict__ x, const float* __restrict__ w,
                                             const float* __restrict__ bias, float* __restrict__ y,
                                             Depthwise g, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const int c = (int)(i % g.channels);
        i64 rest = i / g.channels;
        const int ox = (int)(rest % g.out_width);
        rest /= g.out_width;
        const int oy = (int)(rest % g.out_height);
        const i64 picture = rest / g.out_height * g.height;
        float sum = 0.0f;
        for (int ky = 0; ky < g.kernel_height; ky++) {
            const int iy = oy * g.stride_y + ky * g.dilation_y - g.pad_y;
            if (iy < 0 || iy >= g.height) continue;
            for (int kx = 0; kx < g.kernel_width; kx++) {
                const int ix = ox * g.stride_x + kx * g.dilation_x - g.pad_x;
                if (ix < 0 || ix >= g.width) continue;
                sum = fmaf(x[((picture + iy) * g.width + ix) * g.channels + c],
                           w[(ky * g.kernel_width + kx) * g.channels + c], sum);
            }
        }
        y[i] = bias == nullptr ? sum : sum + bias[c];
    }
}

// A thread an input: it gathers from the outputs that read it, so nobody adds to another's memory.
extern "C" __global__ void depthwise_data(const float* __restrict__ dy, const float* __restrict__ w,
                                          float* __restrict__ dx, Depthwise g, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const int c = (int)(i % g.channels);
        i64 rest = i / g.channels;
        const int ix = (int)(rest % g.width);
        rest /= g.width;
        const int iy = (int)(rest % g.height);
        const i64 picture = rest / g.height * g.out_height;
        float sum = 0.0f;
        for (int ky = 0; ky < g.kernel_height; ky++) {
            const int y = iy + g.pad_y - ky * g.dilation_y, oy = y / g.stride_y;
            if (y < 0 || y % g.stride_y || oy >= g.out_height) continue;
            for (int kx = 0; kx < g.kernel_width; kx++) {
                const int x = ix + g.pad_x - kx * g.dilation_x, ox = x / g.stride_x;
                if (x < 0 || x % g.stride_x || ox >= g.out_width) continue;
                sum = fmaf(dy[((picture + oy) * g.out_width + ox) * g.channels + c],
                           w[(ky * g.kernel_width + kx) * g.channels + c], sum);
            }
        }
        dx[i] = sum;
    }
}

// A block of 32 channels by 8 lanes adds one tap over `length` outputs, in double; the parts are added by
// `reduce_parts`. grid: [channels / 32, parts, taps]; partial [taps, parts, channels].
extern "C" __global__ void __launch_bounds__(256) depthwise_weight(const float* __restrict__ x,
                                                                   const float* __restrict__ dy,
                                                                   double* __restrict__ partial, Depthwise g,
                                                                   i64 length) {
    __shared__ double sums[8][32];
    const int c = blockIdx.x * 32 + threadIdx.x;
    const int ky = blockIdx.z / g.kernel_width, kx = blockIdx.z % g.kernel_width;
    const i64 outputs = (i64)g.batch * g.out_height * g.out_width;
    const i64 first = (i64)blockIdx.y * length;
    const i64 end = first + length < outputs ? first + length : outputs;
    double sum = 0.0;
    if (c < g.channels) {
        for (i64 o = first + threadIdx.y; o < end; o += 8) {
            const int ox = (int)(o % g.out_width), oy = (int)(o / g.out_width % g.out_height);
            const i64 n = o / g.out_width / g.out_height;
            const int iy = oy * g.stride_y + ky * g.dilation_y - g.pad_y;
            const int ix = ox * g.stride_x + kx * g.dilation_x - g.pad_x;
            if (iy < 0 || iy >= g.height || ix < 0 || ix >= g.width) continue;
            sum += (double)(x[((n * g.height + iy) * g.width + ix) * g.channels + c] * dy[o * g.channels + c]);
        }
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && c < g.channels) {
        for (int lane = 1; lane < 8; lane++) sum += sums[lane][threadIdx.x];
        partial[((i64)blockIdx.z * gridDim.y + blockIdx.y) * g.channels + c] = sum;
    }
}
