// The matrix product on the tiles of gemm_mainloop.cuh: rungs 4 and 5.
#pragma once
#include "gemm_mainloop.cuh"

namespace {

template <int MATH>
__device__ __forceinline__ void gemm(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int m,
                                     int n, int k) {
    typedef Product<MATH, 128, true, false> P;
    __shared__ __align__(16) float shared[P::FLOATS];
    const int t = threadIdx.x, first_row = blockIdx.y * 128, first_column = blockIdx.x * 128;
    P product;
    run_product(product, shared, ceil_div(k, BK), [&](int step, float* left, float* right) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int row = first_row + t / 4 + i * 64, along = step * BK + t % 4 * 4;
            const int there = row < m ? k - along : 0;
            async_load4(left + P::A::at(t / 4 + i * 64, t % 4 * 4), there > 0 ? a + (i64)row * k + along : a, there, k % 4 == 0);
        }
        fetch_matrix<P>(right, b, step * BK, k, first_column, n);
    });
    store_product(product, c, first_row, m, first_column, n);
}

}  // namespace
