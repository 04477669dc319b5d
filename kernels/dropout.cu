// Dropout: see src/ops/dropout.rs. The mask is the CPU's, bit for bit: element i is decided by word i mod 4 of
// block i / 4 of the stream. The backward pass is the same kernel on the gradient, and nothing is saved.
//
// Bytes bind: 8 an element; ten rounds for four elements hide behind them. No hardware has run this yet.

#include "random.cuh"

// A thread a block of four elements. (key, id): the stream.
extern "C" __global__ void dropout_apply(const float* __restrict__ x, float* __restrict__ y, i64 n, float rate,
                                         float scale, unsigned k0, unsigned k1, unsigned id0, unsigned id1) {
    const i64 blocks = (n + 3) / 4, stride = (i64)gridDim.x * blockDim.x;
    for (i64 block = (i64)blockIdx.x * blockDim.x + threadIdx.x; block < blocks; block += stride) {
        const Words words = philox((unsigned)block, (unsigned)(block >> 32), id0, id1, k0, k1);
        for (int k = 0; k < 4 && block * 4 + k < n; k++) {
            y[block * 4 + k] = unit(words.w[k]) >= rate ? x[block * 4 + k] * scale : 0.0f;
        }
    }
}
