// What the convolutions share: kernels/conv2d.cu and the rungs below it in kernels/ladder.
#pragma once
#include "common.cuh"

// Everything about one convolution, as src/ops/conv2d/cuda.rs has it.
struct Conv2d {
    int batch, height, width, channels;
    int out_height, out_width, filters;
    int kernel_height, kernel_width;
    int stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x;
};

// A place in a map: picture, row, column.
struct Place {
    int n, y, x;
};

__device__ __forceinline__ Place place(int index, int height, int width) {
    Place p;
    p.x = index % width;
    p.y = index / width % height;
    p.n = index / width / height;
    return p;
}

// The pixel that tap (ky, kx) of the window at output `o` reads: its index, or -1 for padding.
__device__ __forceinline__ int pixel_read(const Conv2d& g, Place o, int ky, int kx) {
    const int y = o.y * g.stride_y + ky * g.dilation_y - g.pad_y;
    const int x = o.x * g.stride_x + kx * g.dilation_x - g.pad_x;
    if (y < 0 || y >= g.height || x < 0 || x >= g.width) return -1;
    return (o.n * g.height + y) * g.width + x;
}

// The output whose tap (ky, kx) reads input `i`: its index, or -1 if there is none.
__device__ __forceinline__ int output_read(const Conv2d& g, Place i, int ky, int kx) {
    const int y = i.y + g.pad_y - ky * g.dilation_y, x = i.x + g.pad_x - kx * g.dilation_x;
    if (y < 0 || x < 0 || y % g.stride_y || x % g.stride_x) return -1;
    const int oy = y / g.stride_y, ox = x / g.stride_x;
    if (oy >= g.out_height || ox >= g.out_width) return -1;
    return (i.n * g.out_height + oy) * g.out_width + ox;
}
