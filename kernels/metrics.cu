// Accuracies, so that a training step brings back two numbers and no picture: see src/eval/metrics/labels.rs.
//
// Bytes bind: each score is read once.

#include "common.cuh"

namespace {

// The first of the largest.
__device__ __forceinline__ int arg_max(const float* row, int columns) {
    int best = 0;
    for (int i = 1; i < columns; i++) best = row[i] > row[best] ? i : best;
    return best;
}

}  // namespace

// counts[block] = {rows that count, rows whose largest score is right}. Labels: a row of flags, of which the first of
// the largest is the truth (classes = columns), or the class itself (classes = 1), where rows of class `ignore` do
// not count. A thread a row, several rows a thread.
extern "C" __global__ void __launch_bounds__(256) metrics_accuracy_parts(const float* __restrict__ labels,
                                                                         const float* __restrict__ scores,
                                                                         u64* __restrict__ counts, i64 rows, int columns,
                                                                         int classes, float ignore) {
    __shared__ double scratch[32];
    u64 all = 0, right = 0;
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 row = (i64)blockIdx.x * blockDim.x + threadIdx.x; row < rows; row += stride) {
        const float* label = labels + row * classes;
        if (classes == 1 && *label == ignore) continue;
        const float truth = classes == 1 ? *label : (float)arg_max(label, classes);
        all += 1;
        right += (float)arg_max(scores + row * columns, columns) == truth;
    }
    // Counts are below 2^53: a double holds them exactly.
    const u64 of_block = (u64)block_sum((double)all, scratch), right_of_block = (u64)block_sum((double)right, scratch);
    if (threadIdx.x == 0) {
        counts[2 * blockIdx.x] = of_block;
        counts[2 * blockIdx.x + 1] = right_of_block;
    }
}

// The share that is right; 0 where no row counts. One thread.
extern "C" __global__ void metrics_accuracy(const u64* __restrict__ counts, float* __restrict__ accuracy, int blocks) {
    u64 all = 0, right = 0;
    for (int i = 0; i < blocks; i++) {
        all += counts[2 * i];
        right += counts[2 * i + 1];
    }
    *accuracy = all == 0 ? 0.0f : (float)((double)right / (double)all);
}
