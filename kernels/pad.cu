// Zeros around pictures, and the way back. See src/ops/pad.rs.
//
// Bytes bind: 8 an element. No hardware has run these yet.

#include "common.cuh"

// A picture [height, width] of rows of `channels`, whose corner is at (top, left) of one of
// [outer_height, outer_width].
struct Border {
    int height, width, channels, outer_height, outer_width, top, left;
};

// A thread an element of the larger picture.
extern "C" __global__ void pad_place(const float* __restrict__ x, float* __restrict__ y, Border b, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const int c = (int)(i % b.channels);
        i64 rest = i / b.channels;
        const int column = (int)(rest % b.outer_width) - b.left;
        rest /= b.outer_width;
        const int row = (int)(rest % b.outer_height) - b.top;
        const i64 picture = rest / b.outer_height;
        const bool inside = row >= 0 && row < b.height && column >= 0 && column < b.width;
        y[i] = inside ? x[((picture * b.height + row) * b.width + column) * b.channels + c] : 0.0f;
    }
}

// A thread an element of the smaller picture.
extern "C" __global__ void pad_crop(const float* __restrict__ g, float* __restrict__ d, Border b, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const int c = (int)(i % b.channels);
        i64 rest = i / b.channels;
        const int column = (int)(rest % b.width) + b.left;
        rest /= b.width;
        const int row = (int)(rest % b.height) + b.top;
        const i64 picture = rest / b.height;
        d[i] = g[((picture * b.outer_height + row) * b.outer_width + column) * b.channels + c];
    }
}
