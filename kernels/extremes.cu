// The largest (or smallest) of x as [outer, reduced, inner] over its middle axis, and where it is: see
// src/ops/extremes.rs.
//
// Bytes bind: every element is read once, 4 bytes each. Nothing is rounded, so blocks that share a sum leave
// their parts, and the same kernel runs over those.

#include "common.cuh"

namespace {

// A NaN is ahead of everything, and nothing of it.
__device__ __forceinline__ float pick(float a, float b, int smallest) {
    return (smallest ? b < a : b > a) || b != b ? b : a;
}

}  // namespace

// inner = 1: a block of 256 threads has `length` neighbours of one row. grid: [parts, outer]; y [outer,
// parts].
extern "C" __global__ void __launch_bounds__(256) extremes_rows(
    const float* __restrict__ x, float* __restrict__ y, i64 reduced, i64, i64 length, int smallest) {
    __shared__ float scratch[256];
    const i64 first = (i64)blockIdx.x * length;
    const i64 end = first + length < reduced ? first + length : reduced;
    const float* row = x + (i64)blockIdx.y * reduced;
    float most = row[first];
    for (i64 i = first + threadIdx.x; i < end; i += blockDim.x) most = pick(most, row[i], smallest);
    scratch[threadIdx.x] = most;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) {
            scratch[threadIdx.x] = pick(scratch[threadIdx.x], scratch[threadIdx.x + half], smallest);
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) y[(i64)blockIdx.y * gridDim.x + blockIdx.x] = scratch[0];
}

// inner > 1: a block of 32 columns by 8 rows, each thread every 8th row of `length`. grid: [columns / 32,
// parts, outer]; y [outer, parts, inner].
extern "C" __global__ void __launch_bounds__(256) extremes_columns(
    const float* __restrict__ x, float* __restrict__ y, i64 reduced, i64 inner, i64 length, int smallest) {
    __shared__ float scratch[8][32];
    const i64 column = (i64)blockIdx.x * 32 + threadIdx.x;
    const i64 first = (i64)blockIdx.y * length;
    const i64 end = first + length < reduced ? first + length : reduced;
    float most = 0.0f;
    if (column < inner) {
        const float* at = x + ((i64)blockIdx.z * reduced) * inner + column;
        most = at[first * inner];
        for (i64 row = first + threadIdx.y; row < end; row += 8) most = pick(most, at[row * inner], smallest);
    }
    scratch[threadIdx.y][threadIdx.x] = most;
    __syncthreads();
    if (threadIdx.y == 0 && column < inner) {
        for (int row = 1; row < 8; row++) most = pick(most, scratch[row][threadIdx.x], smallest);
        y[((i64)blockIdx.z * gridDim.y + blockIdx.y) * inner + column] = most;
    }
}

// The first place of the largest: a thread a result.
extern "C" __global__ void extremes_places(
    const float* __restrict__ x, float* __restrict__ y, i64 n, i64 reduced, i64 inner) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        i64 outer = i;
        const i64 column = divmod(outer, inner);
        const float* at = x + outer * reduced * inner + column;
        float most = at[0];
        i64 place = 0;
        for (i64 r = 1; r < reduced; r++) {
            const float next = at[r * inner];
            if (next > most || (next != next && most == most)) most = next, place = r;
        }
        y[i] = (float)place;
    }
}
