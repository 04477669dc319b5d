// Copies between a box within a tensor and as many elements one after the other: see src/ops/strided.rs.
//
// Bytes bind: 8 an element.

#include "vector.cuh"

// Lengths of axes, and elements from one place along them to the next: 1 along the last.
struct Box {
    i64 size[4], step[4];
};

namespace {

// V neighbours a thread; `back`: into the box.
template <int V>
__device__ __forceinline__ void copy(
    const float* __restrict__ from, float* __restrict__ to, i64 n, const Box& box, i64 start, int back) {
    const i64 stride = (i64)gridDim.x * blockDim.x * V;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * V; i < n; i += stride) {
        i64 rest = i, at = start;
#pragma unroll
        for (int axis = 3; axis >= 0; axis--) at += divmod(rest, box.size[axis]) * box.step[axis];
        store<V>(to + (back ? at : i), load<V>(from + (back ? i : at)));
    }
}

}  // namespace

extern "C" __global__ void strided_copy(const float* from, float* to, i64 n, Box box, i64 start, int back) {
    copy<1>(from, to, n, box, start, back);
}

// Where the start, the rows and all steps between them are multiples of four.
extern "C" __global__ void strided_copy_4(const float* from, float* to, i64 n, Box box, i64 start, int back) {
    copy<4>(from, to, n, box, start, back);
}
