// What the depthwise convolutions share: kernels/depthwise_conv2d.cu and the rungs below it in kernels/ladder.
#pragma once
#include "common.cuh"

// Everything about one depthwise convolution, as src/ops/depthwise_conv2d/cuda.rs has it.
struct Depthwise {
    int batch, height, width;
    int out_height, out_width;
    int channels;
    int kernel_height, kernel_width;
    int stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x;
};

__device__ __forceinline__ float4 operator+(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

// a * b + c, channel by channel.
__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ float4 multiply_add(float4 a, float4 b, float4 c) {
    return make_float4(fmaf(a.x, b.x, c.x), fmaf(a.y, b.y, c.y), fmaf(a.z, b.z, c.z), fmaf(a.w, b.w, c.w));
}

template <class V> __device__ __forceinline__ V zero();
template <> __device__ __forceinline__ float zero<float>() { return 0.0f; }
template <> __device__ __forceinline__ float4 zero<float4>() { return make_float4(0.0f, 0.0f, 0.0f, 0.0f); }

__device__ __forceinline__ float4 act_forward(int after, float4 v) {
    return make_float4(act_forward(after, v.x), act_forward(after, v.y), act_forward(after, v.z), act_forward(after, v.w));
}

// Any window: a thread an output, or four neighbouring channels of one (V is float4). `bias` may be null.
template <class V>
__device__ __forceinline__ void gather(const V* __restrict__ x, const V* __restrict__ w, const V* __restrict__ bias,
                                       V* __restrict__ y, const Depthwise& g, int after) {
    const int channels = g.channels * (int)sizeof(float) / (int)sizeof(V);
    const i64 n = (i64)g.batch * g.out_height * g.out_width * channels, stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        i64 picture = i;
        const int c = (int)divmod(picture, channels), ox = (int)divmod(picture, g.out_width);
        const int oy = (int)divmod(picture, g.out_height);
        picture *= g.height;
        V sum = bias == nullptr ? zero<V>() : bias[c];
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
        y[i] = act_forward(after, sum);
    }
}
