// Depthwise convolution, rung 2 of 3: four channels a thread.
//
// Adds: 128-bit loads and stores, a quarter of the instructions and of the index arithmetic. L1 still serves nine
// reads an output. No hardware has run this yet.

#include "depthwise_conv2d.cuh"

// Channels are a multiple of four. `bias` may be null.
extern "C" __global__ void depthwise_conv2d_2_vectors(const float4* __restrict__ x, const float4* __restrict__ w,
                                                      const float4* __restrict__ bias, float4* __restrict__ y, Depthwise g) {
    const int channels = g.channels / 4;
    const i64 n = (i64)g.batch * g.out_height * g.out_width * channels, stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const int c = (int)(i % channels);
        i64 rest = i / channels;
        const int ox = (int)(rest % g.out_width);
        rest /= g.out_width;
        const int oy = (int)(rest % g.out_height);
        const i64 picture = rest / g.out_height * g.height;
        float4 sum = bias == nullptr ? zero<float4>() : bias[c];
        for (int ky = 0; ky < g.kernel_height; ky++) {
            const int iy = oy * g.stride_y + ky * g.dilation_y - g.pad_y;
            if (iy < 0 || iy >= g.height) continue;
            for (int kx = 0; kx < g.kernel_width; kx++) {
                const int ix = ox * g.stride_x + kx * g.dilation_x - g.pad_x;
                if (ix < 0 || ix >= g.width) continue;
                sum = multiply_add(x[((picture + iy) * g.width + ix) * channels + c],
                                   w[(ky * g.kernel_width + kx) * channels + c], sum);
            }
        }
        y[i] = sum;
    }
}
