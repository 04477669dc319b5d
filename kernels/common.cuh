// The header of every kernel. It is read by NVRTC (which has no standard headers), by nvcc, and by g++ for the
// emulator.
#pragma once
#ifndef __CUDACC__
#include "emulator/emulator.h"
#endif

typedef long long i64;
typedef unsigned long long u64;
typedef int i32;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

// DYNAMIC_SHARED(float, tile); declares `float* tile`: the shared memory whose size the launch gives.
#ifdef __CUDACC__
#define DYNAMIC_SHARED(T, name)                                          \
    extern __shared__ __align__(128) unsigned char atrous_shared_bytes[]; \
    T* name = reinterpret_cast<T*>(atrous_shared_bytes)
#else
#define DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(::emulator::current_block->shared)
#endif

template <class T> __host__ __device__ constexpr T ceil_div(T a, T b) { return (a + b - 1) / b; }

// Takes an index apart, the innermost axis first: gives the place along an axis of this size, and leaves the index of what
// is around it. A 64-bit division is some hundred instructions, which a pass over memory does not hide; 32 bits do nearly
// always.
__device__ __forceinline__ i64 divmod(i64& index, i64 size) {
    const i64 all = index;
    index = (all | size) >> 32 == 0 ? (i64)((u32)all / (u32)size) : all / size;
    return all - index * size;
}

// The sum over a warp, in every lane. All 32 lanes must call it. The order is fixed, so the result is always the same.
template <class T> __device__ __forceinline__ T warp_sum(T value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

// The sum over a block, in every thread, in fixed order; T is float or double. All threads must call it, the block
// must be whole warps. `scratch`: shared memory for 32 values, free again on return.
template <class T> __device__ __forceinline__ T block_sum(T value, T* scratch) {
    int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    int warps = blockDim.x * blockDim.y * blockDim.z / 32;
    value = warp_sum(value);
    if (thread % 32 == 0) scratch[thread / 32] = value;
    __syncthreads();
    T total = scratch[0];
    for (int warp = 1; warp < warps; warp++) total += scratch[warp];
    __syncthreads();
    return total;
}

// Activations, as src/activation.rs numbers them; the first three an operator can make in its own pass, on its
// result.
enum Activation { LINEAR, RELU, RELU6, SIGMOID, TANH };

// Comparisons, not fmaxf: a NaN stays a NaN.
__device__ __forceinline__ float act_forward(int after, float v) {
    return after == LINEAR ? v : v <= 0.0f ? 0.0f : after == RELU6 && v >= 6.0f ? 6.0f : v;
}

// The share of the gradient that comes through.
__device__ __forceinline__ float act_backward(int after, float v, float g) {
    return after == LINEAR || (v > 0.0f && (after == RELU || v < 6.0f)) ? g : 0.0f;
}
