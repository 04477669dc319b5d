// Batches of matrix products: see src/ops/matmul.rs. (A product of two matrices alone is a dense layer:
// kernels/conv2d.cu.)
//
// The ladder's rungs 4 (f32) and 5 (tf32, bf16) on tiles of 64 x 64 (kernels/gemm_mainloop.cuh): matrices of
// a batch are small, and there are many.

#include "gemm_mainloop.cuh"

// Elements from one matrix to the next along two batch axes, the inner one of this length.
struct Batch {
    i64 a_step[2], b_step[2], inner;
};

namespace {

// Brings a step of a factor to its tile T, ROWS rows by BK: matrix [rows, depths], or [depths, rows] where
// its memory runs across the depth (!K_MAJOR); zeros beyond either end.
template <class T, int ROWS, bool K_MAJOR>
__device__ __forceinline__ void fetch(
    float* tile, const float* __restrict__ matrix, int first_row, int rows, int k0, int depths) {
    const int FOURS = K_MAJOR ? BK / 4 : ROWS / 4;  // of a line
    for (int piece = threadIdx.x; piece < ROWS * BK / 4; piece += 2 * ROWS) {
        const int line = piece / FOURS, four = piece % FOURS * 4;
        const int row = first_row + (K_MAJOR ? line : four), k = k0 + (K_MAJOR ? four : line);
        const int there = K_MAJOR ? (row < rows ? depths - k : 0) : (k < depths ? rows - row : 0);
        const int length = K_MAJOR ? depths : rows;
        const float* from = there > 0 ? matrix + (i64)(K_MAJOR ? row : k) * length + (K_MAJOR ? k : row) : matrix;
        async_load4(tile + T::at(row - first_row, k - k0), from, there, length % 4 == 0);
    }
}

template <int MATH, bool A_K_MAJOR, bool B_K_MAJOR>
__device__ __forceinline__ void products(
    const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int rows, int columns,
    int depth, int batch, const Batch& of) {
    const int SIZE = 64;
    typedef Product<MATH, SIZE, A_K_MAJOR, B_K_MAJOR> P;
    __shared__ __align__(16) float shared[P::FLOATS];
    const int first_row = blockIdx.x * SIZE, first_column = blockIdx.y * SIZE;
    for (int i = blockIdx.z; i < batch; i += gridDim.z) {
        i64 outer = i;
        const i64 inner = divmod(outer, of.inner);
        const float* left = a + outer * of.a_step[0] + inner * of.a_step[1];
        const float* right = b + outer * of.b_step[0] + inner * of.b_step[1];
        P product;
        run_product(product, shared, ceil_div(depth, BK), [&](int step, float* to_a, float* to_b) {
            fetch<typename P::A, SIZE, A_K_MAJOR>(to_a, left, first_row, rows, step * BK, depth);
            fetch<typename P::B, SIZE, B_K_MAJOR>(to_b, right, first_column, columns, step * BK, depth);
        });
        store_product(product, c + (i64)i * rows * columns, first_row, rows, first_column, columns);
        __syncthreads();  // the tiles are free for the next of the batch
    }
}

}  // namespace

// Block: 128 threads; grid: [rows / 64, columns / 64, batch]. n: a matrix as it is; t: its transpose is what
// lies in memory.
#define BOUNDS __launch_bounds__(128, 3)
#define KERNEL(name, precision, a_along, b_along)                                                          \
    extern "C" __global__ void BOUNDS name(                                                                \
        const float* a, const float* b, float* c, int rows, int columns, int depth, int batch, Batch of) { \
        products<precision, a_along, b_along>(a, b, c, rows, columns, depth, batch, of);                   \
    }
KERNEL(matmul_nn_f32, F32, true, false)
KERNEL(matmul_nn_tf32, TF32, true, false)
KERNEL(matmul_nn_bf16, BF16, true, false)
KERNEL(matmul_nt_f32, F32, true, true)
KERNEL(matmul_nt_tf32, TF32, true, true)
KERNEL(matmul_nt_bf16, BF16, true, true)
KERNEL(matmul_tn_f32, F32, false, false)
KERNEL(matmul_tn_tf32, TF32, false, false)
KERNEL(matmul_tn_bf16, BF16, false, false)
