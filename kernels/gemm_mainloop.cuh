// A block's share of a matrix product: tiles of both factors in shared memory, sums in registers. Shared by the
// convolutions (kernels/conv2d.cu) and the matrix product of the ladder (kernels/ladder/gemm_4_cp_async.cu,
// gemm_5_mma.cu).
//
// The kernel brings 16 values of depth a step for each row of the left factor and each column of the right one,
// four floats (16 bytes) a `cp.async`, two or three steps ahead of the arithmetic; `Product::add` multiplies them:
//
//   F32    fused multiply-adds on the CUDA cores, 8x8 (or 8x4) sums a thread
//   TF32   tensor cores, mma.m16n8k8: operands rounded to 10 bits of mantissa, products and sums in f32
//   BF16   tensor cores, mma.m16n8k16: operands rounded to 7 bits of mantissa, products and sums in f32
//
// Two sizes: a 128x128 tile by 256 threads, and 64x64 by 128 threads where the large one would leave
// multiprocessors idle. Per step the large tile reads 2*128*16 floats and does 2*128*128*16 operations: 32 a byte.
#pragma once
#include "mma.cuh"

enum Arithmetic { F32, TF32, BF16 };

static const int BK = 16;  // of the sum, a step

// One factor's tile. K_MAJOR: its memory runs along the depth, [rows][BK]; else across it, [BK][rows]. The
// padding of each line sends the 32 lanes of a fragment's load to 32 different banks: with g = lane / 4, q = lane % 4
// a tf32 fragment reads (row g, depth q), so along 20*g + q, across 8*q + g, all different mod 32; a bf16 fragment
// reads pairs (row g, depth 2q): along 24*g + 2*q by half-warps, across 4*(2*q) + g.
template <int MATH, int ROWS, bool K_MAJOR> struct Tile {
    static const int STRIDE = K_MAJOR ? BK + (MATH == BF16 ? 8 : 4) : ROWS + (MATH == BF16 ? 4 : 8);
    static const int FLOATS = (K_MAJOR ? ROWS : BK) * STRIDE;
    static __device__ __forceinline__ int at(int row, int depth) { return K_MAJOR ? row * STRIDE + depth : depth * STRIDE + row; }
};

// Four neighbours to shared memory, of which `there` (0 to 4, or less, or more) are read and the others 0: by one
// asynchronous copy where `aligned`, else by hand.
__device__ __forceinline__ void async_load4(float* shared, const float* __restrict__ from, int there, bool aligned) {
    there = there < 0 ? 0 : there > 4 ? 4 : there;
    if (aligned) {
        cp_async_16(shared, from, there * 4);
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) shared[i] = i < there ? from[i] : 0.0f;
}

// SIZE x SIZE sums of a block of 2 * SIZE threads.
template <int MATH, int SIZE, bool A_K_MAJOR, bool B_K_MAJOR> struct Product {
    typedef Tile<MATH, SIZE, A_K_MAJOR> A;
    typedef Tile<MATH, SIZE, B_K_MAJOR> B;
    static const int THREADS = 2 * SIZE;
    static const int STAGES = SIZE == 64 ? 3 : 2;  // 48 KiB of shared memory, at most
    static const int FLOATS = STAGES * (A::FLOATS + B::FLOATS);

    // Tensor cores: a warp has 32 rows by SIZE / 2 columns.
    static const int NT = SIZE / 16;
    float sum[MATH == F32 ? 8 : 2 * NT][MATH == F32 ? SIZE / 16 : 4];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < (MATH == F32 ? 8 : 2 * NT); i++) {
#pragma unroll
            for (int j = 0; j < (MATH == F32 ? SIZE / 16 : 4); j++) sum[i][j] = 0.0f;
        }
    }

    // Adds one step's products.
    __device__ __forceinline__ void add(const float* a, const float* b) {
        if constexpr (MATH == F32) add_f32(a, b);
        if constexpr (MATH == TF32) add_tf32(a, b);
        if constexpr (MATH == BF16) add_bf16(a, b);
    }

    // Thread (tx, ty) of 16 columns: rows 8*ty..+8; columns 4*tx..+4 (and 64 on) where the memory runs across the
    // depth, so that four are one load; tx, tx + 16, ... where it runs along it, for the banks' sake.
    static __device__ __forceinline__ int f32_column(int j) {
        const int tx = threadIdx.x % 16;
        return B_K_MAJOR ? tx + 16 * j : 4 * tx + j % 4 + j / 4 * 64;
    }

    __device__ __forceinline__ void add_f32(const float* a, const float* b) {
        const int RN = SIZE / 16, V = A_K_MAJOR ? 2 : 1;  // depths a load of a has
        const int ty = threadIdx.x / 16;
#pragma unroll 1  // all of it at once would want more registers than there are
        for (int k = 0; k < BK; k += V) {
            float left[8][V], right[V][RN];
            if (A_K_MAJOR) {
#pragma unroll
                for (int i = 0; i < 8; i++) load_floats<V>(left[i], a + A::at(8 * ty + i, k));
            } else {
                float rows[8];
                load_floats<4>(rows, a + A::at(8 * ty, k));
                load_floats<4>(rows + 4, a + A::at(8 * ty + 4, k));
#pragma unroll
                for (int i = 0; i < 8; i++) left[i][0] = rows[i];
            }
            if (B_K_MAJOR) {
#pragma unroll
                for (int j = 0; j < RN; j++) {
                    float depths[V];
                    load_floats<V>(depths, b + B::at(f32_column(j), k));
#pragma unroll
                    for (int v = 0; v < V; v++) right[v][j] = depths[v];
                }
            } else {
#pragma unroll
                for (int v = 0; v < V; v++) {
#pragma unroll
                    for (int j = 0; j < RN; j += 4) load_floats<4>(&right[v][j], b + B::at(f32_column(j), k + v));
                }
            }
#pragma unroll
            for (int v = 0; v < V; v++) {
#pragma unroll
                for (int i = 0; i < 8; i++) {
#pragma unroll
                    for (int j = 0; j < RN; j++) sum[i][j] = fmaf(left[i][v], right[v][j], sum[i][j]);
                }
            }
        }
    }

    template <int N> static __device__ __forceinline__ void load_floats(float* to, const float* from) {
        if (N == 4) {
            const float4 v = *reinterpret_cast<const float4*>(from);
            to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
        } else if (N == 2) {
            const float2 v = *reinterpret_cast<const float2*>(from);
            to[0] = v.x, to[1] = v.y;
        } else {
            to[0] = from[0];
        }
    }

    static __device__ __forceinline__ int warp_row() { return threadIdx.x / 32 / 2 * 32; }
    static __device__ __forceinline__ int warp_column() { return threadIdx.x / 32 % 2 * (SIZE / 2); }

    __device__ __forceinline__ void add_tf32(const float* a, const float* b) {
        const int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
#pragma unroll
        for (int k = 0; k < BK; k += 8) {
            u32 left[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    const int row = warp_row() + 16 * i + g + r % 2 * 8;
                    left[i][r] = to_tf32(a[A::at(row, k + q + r / 2 * 4)]);
                }
            }
#pragma unroll
            for (int j = 0; j < NT; j++) {
                const int column = warp_column() + 8 * j + g;
                const u32 right[2] = {to_tf32(b[B::at(column, k + q)]), to_tf32(b[B::at(column, k + q + 4)])};
#pragma unroll
                for (int i = 0; i < 2; i++) mma_tf32_m16n8k8(sum[i * NT + j], left[i], right);
            }
        }
    }

    // Depths k and k + 1 of a row, as the tensor cores take them.
    template <class T> static __device__ __forceinline__ u32 pair(const float* tile, int row, int k, bool along) {
        if (along) {
            const float2 v = *reinterpret_cast<const float2*>(tile + T::at(row, k));
            return to_bf16x2(v.x, v.y);
        }
        return to_bf16x2(tile[T::at(row, k)], tile[T::at(row, k + 1)]);
    }

    __device__ __forceinline__ void add_bf16(const float* a, const float* b) {
        const int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
        u32 left[2][4];
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int r = 0; r < 4; r++) {
                left[i][r] = pair<A>(a, warp_row() + 16 * i + g + r % 2 * 8, 2 * q + r / 2 * 8, A_K_MAJOR);
            }
        }
#pragma unroll
        for (int j = 0; j < NT; j++) {
            const int column = warp_column() + 8 * j + g;
            const u32 right[2] = {pair<B>(b, column, 2 * q, B_K_MAJOR), pair<B>(b, column, 2 * q + 8, B_K_MAJOR)};
#pragma unroll
            for (int i = 0; i < 2; i++) mma_bf16_m16n8k16(sum[i * NT + j], left[i], right);
        }
    }

    // Calls store(row, column, values) with neighbouring columns' values, an array of 4, 2 or 1 of them.
    template <class Store> __device__ __forceinline__ void each(Store store) const {
        if constexpr (MATH == F32) {
            const int row = threadIdx.x / 16 * 8;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                if (B_K_MAJOR) {
#pragma unroll
                    for (int j = 0; j < SIZE / 16; j++) {
                        const float one[1] = {sum[i][j]};
                        store(row + i, f32_column(j), one);
                    }
                } else {
#pragma unroll
                    for (int j = 0; j < SIZE / 16; j += 4) {
                        const float four[4] = {sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]};
                        store(row + i, f32_column(j), four);
                    }
                }
            }
        } else {
            const int g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
#pragma unroll
            for (int i = 0; i < 2; i++) {
#pragma unroll
                for (int j = 0; j < NT; j++) {
#pragma unroll
                    for (int half = 0; half < 2; half++) {
                        const float two[2] = {sum[i * NT + j][2 * half], sum[i * NT + j][2 * half + 1]};
                        store(warp_row() + 16 * i + g + 8 * half, warp_column() + 8 * j + 2 * q, two);
                    }
                }
            }
        }
    }
};

// Adds `steps` steps: `fetch(step, a, b)` brings one to shared memory, and is called for them in their order.
template <class P, class Fetch> __device__ __forceinline__ void run_product(P& product, float* shared, int steps, Fetch fetch) {
    const int STAGE = P::A::FLOATS + P::B::FLOATS;
    product.clear();
#pragma unroll
    for (int s = 0; s < P::STAGES - 1; s++) {
        if (s < steps) fetch(s, shared + s * STAGE, shared + s * STAGE + P::A::FLOATS);
        cp_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        cp_async_wait<P::STAGES - 2>();
        __syncthreads();  // this step's tiles are there, and the ones of the step before are free
        const int ahead = step + P::STAGES - 1;
        if (ahead < steps) {
            float* stage = shared + ahead % P::STAGES * STAGE;
            fetch(ahead, stage, stage + P::A::FLOATS);
        }
        cp_async_commit();
        const float* stage = shared + step % P::STAGES * STAGE;
        product.add(stage, stage + P::A::FLOATS);
    }
}

// Up to N of a row's values, `left` of which are there: one store where `aligned`.
template <int N> __device__ __forceinline__ void store_row(float* to, i64 left, bool aligned, const float (&v)[N]) {
    if (N == 4 && aligned && left >= 4) {
        *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1 % N], v[2 % N], v[3 % N]);
    } else if (N == 2 && aligned && left >= 2) {
        *reinterpret_cast<float2*>(to) = make_float2(v[0], v[1 % N]);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) {
            if (i < left) to[i] = v[i];
        }
    }
}

// Brings a step of a right factor whose rows are depths: matrix [depths, columns], from depth `k0` on, the tile's columns
// from `first_column` on; zeros beyond either end.
template <class P>
__device__ __forceinline__ void fetch_matrix(float* b, const float* __restrict__ matrix, int k0, int depths,
                                             int first_column, int columns) {
    const int fours = P::THREADS / 8;  // of the tile's columns
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int piece = threadIdx.x + i * P::THREADS;
        const int depth = piece / fours, column = piece % fours * 4, k = k0 + depth;
        const int there = k < depths ? columns - first_column - column : 0;
        const float* from = there > 0 ? matrix + (i64)k * columns + first_column + column : matrix;
        async_load4(b + P::B::at(column, depth), from, there, columns % 4 == 0);
    }
}

// Writes the tile to its place in a result [rows, columns], with a bias a column (or null) and an activation.
template <class P>
__device__ __forceinline__ void store_product(const P& product, float* __restrict__ result, int first_row, int rows,
                                              int first_column, int columns, const float* __restrict__ bias = nullptr,
                                              int after = LINEAR) {
    product.each([&](int row, int column, auto& v) {
        const int N = sizeof(v) / sizeof(float);
        row += first_row, column += first_column;
        if (row >= rows || column >= columns) return;
        float out[N];
#pragma unroll
        for (int i = 0; i < N; i++) {
            out[i] = act_forward(after, v[i] + (bias != nullptr && column + i < columns ? bias[column + i] : 0.0f));
        }
        store_row<N>(result + (i64)row * columns + column, columns - column, columns % 4 == 0, out);
    });
}
