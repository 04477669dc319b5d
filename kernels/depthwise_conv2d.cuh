// What the depthwise convolutions share: kernels/depthwise_conv2d.cu and the rungs below it in kernels/ladder.
#pragma once
#include "common.cuh"

// Everything about one depthwise convolution, as src/ops/depthwise_conv2d/device.rs has it.
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

__device__ __forceinline__ float4 activated(int after, float4 v) {
    return make_float4(activated(after, v.x), activated(after, v.y), activated(after, v.z), activated(after, v.w));
}
