// The matrix product on the tiles of product.cuh: rungs 4 and 5.
#pragma once
#include "product.cuh"

namespace {

template <int MATH>
__device__ __forceinline__ void gemm(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int m,
                                     int n, int k) {
    typedef Product<MATH, 128, true, false> P;
    __shared__ __align__(16) float shared[P::FLOATS];
    const int t = threadIdx.x, first_row = blockIdx.y * 128, first_column = blockIdx.x * 128;
    P product;
    run_product(product, shared, ceil_div(k, DEPTH), [&](int step, float* left, float* right) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int row = first_row + t / 4 + i * 64, along = step * DEPTH + t % 4 * 4;
            const int there = row < m ? k - along : 0;
            fetch_four(left + P::A::at(t / 4 + i * 64, t % 4 * 4), there > 0 ? a + (i64)row * k + along : a, there, k % 4 == 0);
            const int piece = t + i * 256, down = step * DEPTH + piece / 32, column = piece % 32 * 4;
            const int across = down < k ? n - first_column - column : 0;
            const float* from = across > 0 ? b + (i64)down * n + first_column + column : b;
            fetch_four(right + P::B::at(column, piece / 32), from, across, n % 4 == 0);
        }
    });
    product.each([&](int row, int column, auto& v) {
        const int N = sizeof(v) / sizeof(float);
        row += first_row, column += first_column;
        if (row < m && column < n) store_row<N>(c + (i64)row * n + column, n - column, n % 4 == 0, v);
    });
}

}  // namespace
