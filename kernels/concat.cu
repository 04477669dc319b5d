// Side by side: rows of one length laid into (or taken out of) rows of another. See src/ops/concat.rs.
//
// Bytes bind: 8 an element. No hardware has run this yet.

#include "common.cuh"

// to[r * to_row + to_start + i] = from[r * from_row + from_start + i] for i < length, of n = rows * length.
extern "C" __global__ void concat_copy(const float* __restrict__ from, float* __restrict__ to, i64 n, i64 length,
                                       i64 from_row, i64 from_start, i64 to_row, i64 to_start) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const i64 row = i / length, place = i % length;
        to[row * to_row + to_start + place] = from[row * from_row + from_start + place];
    }
}
