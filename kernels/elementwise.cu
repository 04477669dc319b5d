// Element by element: see src/ops/elementwise.rs for formulas and gradients.
//
// Bytes bind: 12 an element for two operands, 8 for one. On an H100 (3.35 TB/s) a pass over 10 M
// elements with two operands is 36 us at best.

#include "common.cuh"

enum Binary { ADD, SUB, MUL };

__device__ __forceinline__ float apply(int op, float a, float b) {
    return op == ADD ? a + b : op == SUB ? a - b : a * b;
}

// y[i] = a[i] op b[i % period]. `op` is the same for all threads: no warp diverges over it.
extern "C" __global__ void elementwise_binary(const float* __restrict__ a, const float* __restrict__ b,
                                              float* __restrict__ y, i64 n, i64 period, int op) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        y[i] = apply(op, a[i], b[period == n ? i : i % period]);
    }
}

// The same where both operands are n elements, four of them at a time (128-bit accesses).
extern "C" __global__ void elementwise_binary_same(const float4* __restrict__ a, const float4* __restrict__ b,
                                                   float4* __restrict__ y, i64 n4, int op) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n4; i += stride) {
        const float4 p = a[i], q = b[i];
        y[i] = make_float4(apply(op, p.x, q.x), apply(op, p.y, q.y), apply(op, p.z, q.z), apply(op, p.w, q.w));
    }
}

// out[i] = sum[i] + share[i], where out may be sum: how the tape adds gradients.
extern "C" __global__ void elementwise_accumulate(const float* sum, const float* __restrict__ share, float* out,
                                                  i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        out[i] = sum[i] + share[i];
    }
}

extern "C" __global__ void elementwise_fill(float* __restrict__ y, i64 n, float value) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) y[i] = value;
}
