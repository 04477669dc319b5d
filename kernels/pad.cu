// Zeros around pictures, and the way back. See src/ops/pad.rs.
//
// Bytes bind: 8 an element. The names' 4: four channels a thread, where they are a multiple of four.

#include "vector.cuh"

// A picture [height, width] of rows of `channels`, whose corner is at (top, left) of one of
// [outer_height, outer_width].
struct Border {
    int height, width, channels, outer_height, outer_width, top, left;
};

// A thread V elements of the larger picture.
template <int V>
__device__ __forceinline__ void place(const float* __restrict__ x, float* __restrict__ y, const Border& b, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n / V; i += stride) {
        i64 picture = i;
        const int c = (int)divmod(picture, b.channels / V) * V;
        const int column = (int)divmod(picture, b.outer_width) - b.left;
        const int row = (int)divmod(picture, b.outer_height) - b.top;
        Floats<V> v = {};
        if (row >= 0 && row < b.height && column >= 0 && column < b.width) {
            v = load<V>(x + ((picture * b.height + row) * b.width + column) * b.channels + c);
        }
        store<V>(y + i * V, v);
    }
}

// A thread V elements of the smaller picture.
template <int V>
__device__ __forceinline__ void crop(const float* __restrict__ g, float* __restrict__ d, const Border& b, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n / V; i += stride) {
        i64 picture = i;
        const int c = (int)divmod(picture, b.channels / V) * V;
        const int column = (int)divmod(picture, b.width) + b.left, row = (int)divmod(picture, b.height) + b.top;
        const i64 from = ((picture * b.outer_height + row) * b.outer_width + column) * b.channels + c;
        store<V>(d + i * V, load<V>(g + from));
    }
}

extern "C" __global__ void pad_place(const float* x, float* y, Border b, i64 n) { place<1>(x, y, b, n); }
extern "C" __global__ void pad_place_4(const float* x, float* y, Border b, i64 n) { place<4>(x, y, b, n); }
extern "C" __global__ void pad_crop(const float* g, float* d, Border b, i64 n) { crop<1>(g, d, b, n); }
extern "C" __global__ void pad_crop_4(const float* g, float* d, Border b, i64 n) { crop<4>(g, d, b, n); }
