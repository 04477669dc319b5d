// Kernels with planted mistakes, and good ones: what the emulator and the sanitizers must find, and what they
// must leave alone. run.sh compiles them; they are in no module of the engine.

#include "mma.cuh"

// ---- good ----

// The sum of x, in two barriers and a few shuffles. One block.
extern "C" __global__ void good_sum(const float* x, float* out, int n) {
    __shared__ float scratch[32];
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) out[0] = sum;
}

// Turns a block's values round through dynamic shared memory.
extern "C" __global__ void good_reverse(const float* x, float* y) {
    DYNAMIC_SHARED(float, tile);
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

// Does anybody have a number above the limit?
extern "C" __global__ void good_any(const float* x, int* out, float limit) {
    const int any = __syncthreads_or(x[threadIdx.x] > limit);
    const int none = !__syncthreads_or(x[threadIdx.x] > 1e9f);
    out[threadIdx.x] = any && none;
}

// One warp: 16×8 of A [16, k] times B [k, 8] by tensor cores, A staged with cp.async.
extern "C" __global__ void good_mma(const float* a, const float* b, float* c, int depth) {
    __shared__ __align__(16) float stage[16 * 8];
    const int lane = threadIdx.x, group = lane / 4, quad = lane % 4;
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int k = 0; k < depth; k += 8) {
        cp_async_16(&stage[lane * 4], a + lane / 2 * depth + k + lane % 2 * 4);
        cp_async_commit();
        cp_async_wait<0>();
        __syncwarp();
        const u32 left[4] = {to_tf32(stage[group * 8 + quad]), to_tf32(stage[(group + 8) * 8 + quad]),
                             to_tf32(stage[group * 8 + quad + 4]), to_tf32(stage[(group + 8) * 8 + quad + 4])};
        const u32 right[2] = {to_tf32(b[(k + quad) * 8 + group]), to_tf32(b[(k + quad + 4) * 8 + group])};
        mma_tf32_m16n8k8(sum, left, right);
        __syncwarp();
    }
    c[group * 8 + quad * 2] = sum[0];
    c[group * 8 + quad * 2 + 1] = sum[1];
    c[(group + 8) * 8 + quad * 2] = sum[2];
    c[(group + 8) * 8 + quad * 2 + 1] = sum[3];
}

// ---- planted ----

// One element past the end of x.
extern "C" __global__ void bad_global_read(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x + 1]; }

// One element past the end of a shared array.
extern "C" __global__ void bad_shared_read(float* y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x + 1];
}

// Reads a neighbour's value without waiting for it.
extern "C" __global__ void bad_missing_barrier(const float* x, float* y) {
    __shared__ float tile[64];
    tile[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = tile[63 - threadIdx.x];
}

// A barrier that not everybody comes to.
extern "C" __global__ void bad_divergent_barrier(float* y) {
    if (threadIdx.x < 7) __syncthreads();
    y[threadIdx.x] = 1.0f;
    if (threadIdx.x >= 7) __syncthreads();
}

// Shared memory that nobody wrote.
extern "C" __global__ void bad_unwritten(float* y) {
    __shared__ float tile[64];
    if (threadIdx.x < 32) tile[threadIdx.x] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];
}

// Adds to one place from all threads, without an atomic.
extern "C" __global__ void bad_race(float* y) { y[0] += 1.0f; }
