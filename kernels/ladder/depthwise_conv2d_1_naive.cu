// Depthwise convolution, rung 1 of 3: a thread an output.
//
// Bytes bind: 2*kh*kw operations for each 4 bytes read and written, and at 3x3 an output reads nine pixels and nine
// weights, which L1 must serve: 72 bytes an output from L1, where 8 must come and go.
// Measured on an H100: 367 GB/s of 3x3, 32 channels, at 112x112.

#include "depthwise_conv2d.cuh"

// Neighbouring threads make neighbouring channels, so that reads are whole lines. `bias` may be null.
extern "C" __global__ void depthwise_conv2d_1_naive(const float* __restrict__ x, const float* __restrict__ w,
                                                    const float* __restrict__ bias, float* __restrict__ y, Depthwise g) {
    const i64 n = (i64)g.batch * g.out_height * g.out_width * g.channels, stride = (i64)gridDim.x * blockDim.x;
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
