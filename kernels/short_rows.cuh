// Short rows (the 21 classes of a pixel), a thread a row: read straight from memory, the lanes of a warp would each
// fetch lines of their own. So a block brings its 256 rows to shared memory together, whole lines at a time, each
// thread works on its row there, and together they bring them back. A row's length is mostly odd, and then 32 lanes
// at one column of their rows are at 32 different banks.
#pragma once
#include "common.cuh"

static const int ROWS = 256;  // a block's, one a thread

// Calls work(row, from, to) for this thread's rows of x, in turns of ROWS a block; `to` is where the result's row
// goes, or null where y is. `tile` is shared memory for ROWS rows, or null where they are too long: then from and to
// are x's and y's own memory. Else they are one and the same.
template <class Work>
__device__ __forceinline__ void each_row(float* tile, const float* x, float* y, i64 rows, int columns, Work work) {
    for (i64 first = (i64)blockIdx.x * ROWS; first < rows; first += (i64)gridDim.x * ROWS) {
        const i64 row = first + threadIdx.x;
        if (tile == nullptr) {
            if (row < rows) work(row, x + row * columns, y == nullptr ? nullptr : y + row * columns);
            continue;
        }
        const int n = (int)(rows - first < ROWS ? rows - first : ROWS) * columns;
        for (int i = threadIdx.x; i < n; i += ROWS) tile[i] = x[first * columns + i];
        __syncthreads();
        float* mine = tile + threadIdx.x * columns;
        if (row < rows) work(row, mine, y == nullptr ? nullptr : mine);
        __syncthreads();
        for (int i = threadIdx.x; y != nullptr && i < n; i += ROWS) y[first * columns + i] = tile[i];
        __syncthreads();
    }
}
