// Side by side: rows of one length laid into (or taken out of) rows of another. See src/ops/concat.rs.
//
// Bytes bind: 8 an element. The name's 4: all lengths and starts are multiples of four, and given in fours.

#include "common.cuh"

// to[r * to_row + to_start + i] = from[r * from_row + from_start + i] for i < length, of n = rows * length.
template <class T>
__device__ __forceinline__ void copy(const T* __restrict__ from, T* __restrict__ to, i64 n, i64 length, i64 from_row,
                                     i64 from_start, i64 to_row, i64 to_start) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        i64 row = i;
        const i64 at = divmod(row, length);
        to[row * to_row + to_start + at] = from[row * from_row + from_start + at];
    }
}

extern "C" __global__ void concat_copy(const float* from, float* to, i64 n, i64 length, i64 from_row, i64 from_start,
                                       i64 to_row, i64 to_start) {
    copy(from, to, n, length, from_row, from_start, to_row, to_start);
}
extern "C" __global__ void concat_copy_4(const float4* from, float4* to, i64 n, i64 length, i64 from_row, i64 from_start,
                                         i64 to_row, i64 to_start) {
    copy(from, to, n, length, from_row, from_start, to_row, to_start);
}
