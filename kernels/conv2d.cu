// Convolution as an implicit matrix product: the matrix of patches is never stored, its elements are
// read from the picture where the product needs them. See src/ops/conv2d/mod.rs for the formulas.
//
//   forward   y [N*OH*OW, F] = patches(x) [N*OH*OW, kh*kw*C] * w [kh*kw*C, F] + b
//   data      dx [N*H*W, C]  = patches(g) [N*H*W, kh*kw*F] * w transposed within each tap
//   weight    dw [kh*kw*C, F] = transposed patches(x) [kh*kw*C, N*OH*OW] * g [N*OH*OW, F]
//
// Rungs 4 (f32) and 5 (tf32, bf16) of the ladder; below them kernels/ladder/conv2d_*.cu. Over rung 3 they add
// asynchronous 128-bit copies to shared memory ahead of the arithmetic (kernels/gemm_mainloop.cuh), tiles of 128x128,
// and the tensor cores.
//
// Arithmetic binds: 2*N*OH*OW*kh*kw*C*F operations for each of the three; an H100 SXM's limits are 67 (f32),
// 495 (tf32) and 989 (bf16) TFLOP/s dense, and mma.sync reaches some 65 % of the latter two at best. What was
// measured: benches/results.
//
// Atrous convolution: a tap that only sees padding costs nothing. Forward and data leave out the taps that
// none of a block's rows see; the weight gradient's sum runs over the rectangle of outputs whose windows see the
// picture with the taps of the block. On a 14x14 map a 3x3 kernel of dilation 18 costs no more than a 1x1.

#include "conv2d.cuh"
#include "gemm_mainloop.cuh"

namespace {

// One tile of patches(source) * matrix. FORWARD: source is x, matrix w as it is; else source is the output's
// gradient, matrix w transposed within each tap. A step lies within one tap; the last one of a tap is filled with
// zeros. Where the result has fewer tiles than the device has room for (a dense layer of 16 pictures, a 14x14 map),
// the sum's steps are cut into gridDim.z parts, a block each, and `conv2d_split_k_sum` adds them.
template <int MATH, int SIZE, bool FORWARD>
__device__ __forceinline__ void product_of_patches(const Conv2d& g, const float* __restrict__ source,
                                                   const float* __restrict__ w, const float* __restrict__ bias,
                                                   float* __restrict__ result, int after) {
    typedef Product<MATH, SIZE, true, !FORWARD> P;
    __shared__ __align__(16) float shared[P::FLOATS];
    const int height = FORWARD ? g.out_height : g.height, width = FORWARD ? g.out_width : g.width;
    const int inner = FORWARD ? g.channels : g.filters;   // channels of the source
    const int columns = FORWARD ? g.filters : g.channels;  // of the result
    const int rows = g.batch * height * width;
    const int taps = g.kernel_height * g.kernel_width;
    const int first_row = blockIdx.x * SIZE, first_column = blockIdx.y * SIZE;
    const bool inner_aligned = inner % 4 == 0;
    const int t = threadIdx.x;

    // This thread brings four depths of two rows …
    Place at[2];
    bool inside[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = first_row + t / 4 + i * (SIZE / 2);
        inside[i] = row < rows;
        at[i] = place(inside[i] ? row : 0, height, width);
    }
    auto read = [&](int i, int tap) {
        const int ky = tap / g.kernel_width, kx = tap % g.kernel_width;
        return !inside[i] ? -1 : FORWARD ? pixel_read(g, at[i], ky, kx) : output_read(g, at[i], ky, kx);
    };
    // The taps that see anything; of kernels with more than 64 all.
    u64 live = ~0ull;
    if (taps > 1 && taps <= 64) {
        live = 0;
        for (int tap = 0; tap < taps; tap++) {
            if (__syncthreads_or(read(0, tap) >= 0 || read(1, tap) >= 0)) live |= 1ull << tap;
        }
    }
    auto skips = [&](int tap) { return tap < 64 && !(live >> tap & 1); };
    int count = 0;
    for (int tap = 0; tap < taps; tap++) count += !skips(tap);

    // This part's steps, and the place before its first.
    const int of_tap = ceil_div(inner, BK), all = count * of_tap;
    const int share = ceil_div(all, (int)gridDim.z), first = (int)blockIdx.z * share;
    const int steps = first >= all ? 0 : first + share < all ? share : all - first;
    int tap = -1, k0 = (first % of_tap - 1) * BK, index[2] = {-1, -1};
    if (steps > 0) {
        for (int before = first / of_tap; before >= 0; before--) {
            do tap++;
            while (skips(tap));
        }
        index[0] = read(0, tap);
        index[1] = read(1, tap);
    }
    P product;
    run_product(product, shared, steps, [&](int, float* a, float* b) {
        k0 += BK;
        if (k0 >= inner) {
            k0 = 0;
            do tap++;
            while (skips(tap));
            index[0] = read(0, tap);
            index[1] = read(1, tap);
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int k = k0 + t % 4 * 4;
            const int there = index[i] >= 0 ? inner - k : 0;
            const float* from = there > 0 ? source + (i64)index[i] * inner + k : source;
            async_load4(a + P::A::at(t / 4 + i * (SIZE / 2), t % 4 * 4), from, there, inner_aligned);
        }
        // … and four columns of two depths of the matrix (forward), or four depths of two of its columns.
        if (FORWARD) {
            fetch_matrix<P>(b, w + (i64)tap * inner * columns, k0, inner, first_column, columns);
            return;
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int piece = t + i * P::THREADS;
            const int column = piece / 4, k = k0 + piece % 4 * 4;
            const int there = first_column + column < columns ? inner - k : 0;
            const float* from = there > 0 ? w + ((i64)tap * columns + first_column + column) * inner + k : w;
            async_load4(b + P::B::at(column, piece % 4 * 4), from, there, inner_aligned);
        }
    });
    if (gridDim.z > 1) {
        store_product(product, result + (i64)blockIdx.z * rows * columns, first_row, rows, first_column, columns);
    } else {
        store_product(product, result, first_row, rows, first_column, columns, bias, after);
    }
}

// A convolution of few channels (the first layer's three): a step runs over 16 (tap, channel) pairs, gathered one by
// one, or most of it would be zeros.
__device__ __forceinline__ void product_of_few_channels(const Conv2d& g, const float* __restrict__ x,
                                                        const float* __restrict__ w, const float* __restrict__ bias,
                                                        float* __restrict__ y, int after) {
    typedef Product<F32, 64, true, false> P;
    __shared__ __align__(16) float shared[P::FLOATS];
    const int rows = g.batch * g.out_height * g.out_width, columns = g.filters;
    const int depth = g.kernel_height * g.kernel_width * g.channels;
    const int first_row = blockIdx.x * 64, first_column = blockIdx.y * 64;
    const int t = threadIdx.x;
    P product;
    run_product(product, shared, ceil_div(depth, BK), [&](int step, float* a, float* b) {
        for (int i = 0; i < 2; i++) {
            const int row = first_row + t / 4 + i * 32;
            const Place at = place(row < rows ? row : 0, g.out_height, g.out_width);
            for (int j = 0; j < 4; j++) {
                const int k = step * BK + t % 4 * 4 + j, tap = k / g.channels;
                int index = -1;
                if (row < rows && k < depth) index = pixel_read(g, at, tap / g.kernel_width, tap % g.kernel_width);
                a[P::A::at(t / 4 + i * 32, t % 4 * 4 + j)] = index < 0 ? 0.0f : x[(i64)index * g.channels + k % g.channels];
            }
        }
        fetch_matrix<P>(b, w, step * BK, depth, first_column, columns);
    });
    store_product(product, y, first_row, rows, first_column, columns, bias, after);
}

// The outputs [first, end) of an axis whose windows see the picture with one of the taps [low, high].
struct Range {
    int first, end;
};
__device__ __forceinline__ Range seen(int size, int outputs, int stride, int dilation, int pad, int low, int high) {
    // 0 <= o * stride + tap * dilation - pad < size
    const int from = pad - high * dilation, to = size + pad - low * dilation;
    Range r;
    r.first = from > 0 ? ceil_div(from, stride) : 0;
    r.end = to > 0 ? ceil_div(to, stride) : 0;
    if (r.end > outputs) r.end = outputs;
    if (r.end < r.first) r.end = r.first;
    return r;
}

// The weight gradient's sum runs over all outputs, and its result is small: the sum is cut into gridDim.z parts,
// a block each, and `conv2d_split_k_sum` adds the parts in their order.
template <int MATH, int SIZE>
__device__ __forceinline__ void product_of_weights(const Conv2d& g, const float* __restrict__ x,
                                                   const float* __restrict__ dy, float* __restrict__ partial) {
    typedef Product<MATH, SIZE, false, false> P;
    __shared__ __align__(16) float shared[P::FLOATS];
    const int rows = g.kernel_height * g.kernel_width * g.channels, columns = g.filters;
    const int first_row = blockIdx.x * SIZE, first_column = blockIdx.y * SIZE;
    const bool channels_aligned = g.channels % 4 == 0, columns_aligned = columns % 4 == 0;
    const int t = threadIdx.x;

    // The outputs that matter to this block's taps.
    const int last_row = (first_row + SIZE < rows ? first_row + SIZE : rows) - 1;
    const int low = first_row / g.channels, high = last_row / g.channels;
    const bool one_line = low / g.kernel_width == high / g.kernel_width;
    const Range ys = seen(g.height, g.out_height, g.stride_y, g.dilation_y, g.pad_y, low / g.kernel_width, high / g.kernel_width);
    const Range xs = seen(g.width, g.out_width, g.stride_x, g.dilation_x, g.pad_x, one_line ? low % g.kernel_width : 0,
                          one_line ? high % g.kernel_width : g.kernel_width - 1);
    const int seen_height = ys.end - ys.first, seen_width = xs.end - xs.first;
    const int outputs = g.batch * seen_height * seen_width;
    const int length = ceil_div(ceil_div(outputs, (int)gridDim.z), BK) * BK;
    const int first = (int)blockIdx.z * length < outputs ? (int)blockIdx.z * length : outputs;
    const int end = length < outputs - first ? first + length : outputs;

    // This thread brings four rows and four columns of the outputs `m` and `m + 8` of a step.
    const int four = t % (SIZE / 4) * 4, depth = t / (SIZE / 4);
    const int row = first_row + four, column = first_column + four;
    const int tap = row / g.channels, ky = tap / g.kernel_width, kx = tap % g.kernel_width;
    P product;
    run_product(product, shared, ceil_div(end - first, BK), [&](int step, float* a, float* b) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int m = first + step * BK + depth + i * 8;
            const bool inside = m < end;
            Place o = place(inside ? m : 0, seen_height, seen_width);
            o.y += ys.first, o.x += xs.first;
            float* to = a + P::A::at(four, depth + i * 8);
            if (channels_aligned) {  // rows are a multiple of four, and four of them are of one tap
                const int index = inside && row < rows ? pixel_read(g, o, ky, kx) : -1;
                const float* from = index >= 0 ? x + (i64)index * g.channels + row % g.channels : x;
                async_load4(to, from, index >= 0 ? 4 : 0, true);
            } else {
                for (int j = 0; j < 4; j++) {
                    const int its = (row + j) / g.channels;
                    int index = -1;
                    if (inside && row + j < rows) index = pixel_read(g, o, its / g.kernel_width, its % g.kernel_width);
                    to[j] = index < 0 ? 0.0f : x[(i64)index * g.channels + (row + j) % g.channels];
                }
            }
            const int there = inside ? columns - column : 0;
            const i64 output = ((i64)o.n * g.out_height + o.y) * g.out_width + o.x;
            const float* from = there > 0 ? dy + output * columns + column : dy;
            async_load4(b + P::B::at(four, depth + i * 8), from, there, columns_aligned);
        }
    });
    store_product(product, partial + (i64)blockIdx.z * rows * columns, first_row, rows, first_column, columns);
}

}  // namespace

// A kernel a line: of a pass, in a precision, in tiles of 128×128 or 64×64. (Two large blocks share a multiprocessor.)
#define BOUNDS_128 __launch_bounds__(256, 2)
#define BOUNDS_64 __launch_bounds__(128)
#define KERNEL(name, pass, precision, size) extern "C" __global__ void BOUNDS_##size name pass(precision, size)

// grid: [outputs / size, filters / size, parts]; `bias` may be null; `after`: the activation made in the same pass. Of
// several parts y is their sums, [parts, outputs, filters], without bias and activation.
#define FORWARD(precision, size) \
    (const float* x, const float* w, const float* bias, float* y, Conv2d g, int after) { \
        product_of_patches<precision, size, true>(g, x, w, bias, y, after); \
    }
KERNEL(conv2d_forward_f32_large, FORWARD, F32, 128)
KERNEL(conv2d_forward_f32_small, FORWARD, F32, 64)
KERNEL(conv2d_forward_tf32_large, FORWARD, TF32, 128)
KERNEL(conv2d_forward_tf32_small, FORWARD, TF32, 64)
KERNEL(conv2d_forward_bf16_large, FORWARD, BF16, 128)
KERNEL(conv2d_forward_bf16_small, FORWARD, BF16, 64)

// Fewer than 16 channels. grid: [outputs / 64, filters / 64].
extern "C" __global__ void __launch_bounds__(128) conv2d_forward_few(
    const float* x, const float* w, const float* bias, float* y, Conv2d g, int after) {
    product_of_few_channels(g, x, w, bias, y, after);
}

// grid: [inputs / size, channels / size, parts].
#define DATA(precision, size) \
    (const float* dy, const float* w, float* dx, Conv2d g) { \
        product_of_patches<precision, size, false>(g, dy, w, nullptr, dx, LINEAR); \
    }
KERNEL(conv2d_data_f32_large, DATA, F32, 128)
KERNEL(conv2d_data_f32_small, DATA, F32, 64)
KERNEL(conv2d_data_tf32_large, DATA, TF32, 128)
KERNEL(conv2d_data_tf32_small, DATA, TF32, 64)
KERNEL(conv2d_data_bf16_large, DATA, BF16, 128)
KERNEL(conv2d_data_bf16_small, DATA, BF16, 64)

// grid: [kh*kw*C / size, F / size, parts]; partial [parts, kh*kw*C, F].
#define WEIGHT(precision, size) \
    (const float* x, const float* dy, float* partial, Conv2d g) { \
        product_of_weights<precision, size>(g, x, dy, partial); \
    }
KERNEL(conv2d_weight_f32_large, WEIGHT, F32, 128)
KERNEL(conv2d_weight_f32_small, WEIGHT, F32, 64)
KERNEL(conv2d_weight_tf32_large, WEIGHT, TF32, 128)
KERNEL(conv2d_weight_tf32_small, WEIGHT, TF32, 64)
KERNEL(conv2d_weight_bf16_large, WEIGHT, BF16, 128)
KERNEL(conv2d_weight_bf16_small, WEIGHT, BF16, 64)

// result[i] = f(the sum over parts of partial[part, i], in double, + the bias of its column, if there is one).
extern "C" __global__ void conv2d_split_k_sum(const float* __restrict__ partial, const float* __restrict__ bias,
                                              float* __restrict__ result, i64 n, int columns, int parts, int after) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        double sum = bias != nullptr ? (double)bias[i % columns] : 0.0;
#pragma unroll 8  // loads under way at a time: their latency binds
        for (int part = 0; part < parts; part++) sum += (double)partial[(i64)part * n + i];
        result[i] = act_forward(after, (float)sum);
    }
}
