// Convolution, rung 1 of 5: a thread an output, straight from the definition (src/ops/conv2d/mod.rs).
//
// Arithmetic should bind: 2*kh*kw*C operations an output; a 3x3 with 256 channels at 56x56 does some 500 operations
// for each byte of picture, kernel and result, and an H100 SXM needs 20. But here each multiply-add reads two floats,
// which L1 and L2 must serve: 0.25 operations a byte.
// Measured on an H100: 3.6 TFLOP/s of 3x3, 256 to 256, at 28x28.

#include "conv2d.cuh"

// Neighbouring threads make neighbouring filters: they read the same pixel, and neighbouring weights.
extern "C" __global__ void conv2d_1_direct(const float* __restrict__ x, const float* __restrict__ w,
                                           const float* __restrict__ bias, float* __restrict__ y, Conv2d g) {
    const i64 n = (i64)g.batch * g.out_height * g.out_width * g.filters, stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const int f = (int)(i % g.filters);
        i64 rest = i / g.filters;
        const int ox = (int)(rest % g.out_width);
        rest /= g.out_width;
        const int oy = (int)(rest % g.out_height);
        const i64 picture = rest / g.out_height * g.height;
        float sum = bias == nullptr ? 0.0f : bias[f];
        for (int ky = 0; ky < g.kernel_height; ky++) {
            const int iy = oy * g.stride_y + ky * g.dilation_y - g.pad_y;
            if (iy < 0 || iy >= g.height) continue;
            for (int kx = 0; kx < g.kernel_width; kx++) {
                const int ix = ox * g.stride_x + kx * g.dilation_x - g.pad_x;
                if (ix < 0 || ix >= g.width) continue;
                const float* pixel = x + ((picture + iy) * g.width + ix) * g.channels;
                const float* weights = w + (i64)(ky * g.kernel_width + kx) * g.channels * g.filters + f;
                for (int c = 0; c < g.channels; c++) sum = fmaf(pixel[c], weights[(i64)c * g.filters], sum);
            }
        }
        y[i] = sum;
    }
}
