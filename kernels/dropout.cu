// Dropout: see src/ops/dropout.rs. The mask is the CPU's, bit for bit: element i is decided by word i mod 4 of
// block i / 4 of the stream. The backward pass is the same kernel on the gradient, and nothing is saved.
//
// Bytes bind: 8 an element; ten rounds for four elements hide behind them.

#include "random.cuh"

// A label folded into a stream's id, as src/random.rs does it (splitmix64).
__device__ __forceinline__ u64 mix(u64 x) {
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

// A thread a block of four elements. The stream is that of (seed, labels …, step, layer): `before` is the id after the
// labels before the step. Where `step_at` is not null the step is there: a captured graph finds another one each time.
extern "C" __global__ void dropout_apply(const float* __restrict__ x, float* __restrict__ y, i64 n, float rate,
                                         float scale, u64 seed, u64 before, u64 step, const u64* __restrict__ step_at,
                                         u64 layer) {
    const u64 id = mix(mix(before ^ mix(step_at == nullptr ? step : *step_at)) ^ mix(layer));
    const unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32), id0 = (unsigned)id, id1 = (unsigned)(id >> 32);
    const i64 blocks = (n + 3) / 4, stride = (i64)gridDim.x * blockDim.x;
    for (i64 block = (i64)blockIdx.x * blockDim.x + threadIdx.x; block < blocks; block += stride) {
        const Words words = philox((unsigned)block, (unsigned)(block >> 32), id0, id1, k0, k1);
        for (int k = 0; k < 4 && block * 4 + k < n; k++) {
            y[block * 4 + k] = unit(words.w[k]) >= rate ? x[block * 4 + k] * scale : 0.0f;
        }
    }
}
