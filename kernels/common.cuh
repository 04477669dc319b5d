// What every kernel includes.
#pragma once
#ifndef __CUDACC__
#include "emulator/emulator.h"
#endif
typedef long long i64;

// The sum of a warp's values, in a fixed order; the same in all lanes.
template <class T> __device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}

// The sum of a block's values (whole warps, at most 32) in a fixed order, valid in the first warp.
template <class T> __device__ __forceinline__ T block_sum(T value, T* scratch) {
    value = warp_sum(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x < 32) {
        value = threadIdx.x < blockDim.x / 32 ? scratch[threadIdx.x] : T(0);
        value = warp_sum(value);
    }
    return value;
}
