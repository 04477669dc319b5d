// Convolution as an implicit matrix product: the matrix of patches is never stored, its elements are
// read from the picture where the product needs them. See src/ops/conv2d/mod.rs for the formulas.
//
//   forward   y [N*OH*OW, F] = patches(x) [N*OH*OW, kh*kw*C] * w [kh*kw*C, F] + b
//   data      dx [N*H*W, C]  = patches(g) [N*H*W, kh*kw*F] * w transposed within each tap
//   weight    dw [kh*kw*C, F] = transposed patches(x) [kh*kw*C, N*OH*OW] * g [N*OH*OW, F]
//
// Arithmetic binds: 2*N*OH*OW*kh*kw*C*F operations for each of the three. A block of 256 threads makes a
// 64x64 tile of the result, 4x4 a thread, 16 deep a step: each step reads 2*64*16 floats and does
// 2*64*64*16 operations, 16 operations a byte from L2 or beyond. f32 on the CUDA cores; the tensor
// cores are for later rungs. No hardware has run this yet.
//
// Atrous convolution: where channels are a multiple of 16, a step lies within one tap, and a step whose
// tap sees nothing but padding from all 64 pixels is left out. On a 14x14 map a 3x3 kernel of dilation
// 18 costs no more than a 1x1.

#include "common.cuh"

// Everything about one convolution, as src/ops/conv2d/device.rs has it.
struct Conv2d {
    int batch, height, width, channels;
    int out_height, out_width, filters;
    int kernel_height, kernel_width;
    int stride_y, stride_x, dilation_y, dilation_x, pad_y, pad_x;
};

static const int TILE = 64;   // rows and columns of the result a block makes
static const int DEPTH = 16;  // of the sum, a step
static const int EACH = 4;    // rows and columns a thread makes

// a holds columns of the left factor, so that a thread's four rows are one 128-bit read.
struct Tiles {
    float a[DEPTH][TILE];
    float b[DEPTH][TILE];
};

__device__ __forceinline__ void multiply(const Tiles& tiles, float (&sum)[EACH][EACH]) {
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
        const float4 a = *reinterpret_cast<const float4*>(&tiles.a[k][ty * EACH]);
        const float4 b = *reinterpret_cast<const float4*>(&tiles.b[k][tx * EACH]);
        const float rows[EACH] = {a.x, a.y, a.z, a.w}, columns[EACH] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int i = 0; i < EACH; i++) {
#pragma unroll
            for (int j = 0; j < EACH; j++) sum[i][j] = fmaf(rows[i], columns[j], sum[i][j]);
        }
    }
}

// Four neighbours at `p`, of which `left` are there; zeros for the others. Vectors where the row length
// keeps them aligned.
__device__ __forceinline__ float4 four(const float* __restrict__ p, i64 left, bool aligned) {
    if (aligned && left >= 4) return *reinterpret_cast<const float4*>(p);
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (left > 0) v.x = p[0];
    if (left > 1) v.y = p[1];
    if (left > 2) v.z = p[2];
    if (left > 3) v.w = p[3];
    return v;
}

__device__ __forceinline__ void store_four(float* p, i64 left, bool aligned, const float (&v)[EACH]) {
    if (aligned && left >= 4) {
        *reinterpret_cast<float4*>(p) = make_float4(v[0], v[1], v[2], v[3]);
        return;
    }
    for (int i = 0; i < EACH && i < left; i++) p[i] = v[i];
}

// A place in a map: picture, row, column.
struct Place {
    int n, y, x;
};

__device__ __forceinline__ Place place(i64 index, int height, int width) {
    Place p;
    p.x = (int)(index % width);
    p.y = (int)(index / width % height);
    p.n = (int)(index / ((i64)width * height));
    return p;
}

// The pixel that tap (ky, kx) of the window at output `o` reads: its index, or -1 for padding.
__device__ __forceinline__ i64 pixel_read(const Conv2d& g, Place o, int ky, int kx) {
    const int y = o.y * g.stride_y + ky * g.dilation_y - g.pad_y;
    const int x = o.x * g.stride_x + kx * g.dilation_x - g.pad_x;
    if (y < 0 || y >= g.height || x < 0 || x >= g.width) return -1;
    return ((i64)o.n * g.height + y) * g.width + x;
}

// The output whose tap (ky, kx) reads input `i`: its index, or -1 if there is none.
__device__ __forceinline__ i64 output_read(const Conv2d& g, Place i, int ky, int kx) {
    const int y = i.y + g.pad_y - ky * g.dilation_y, x = i.x + g.pad_x - kx * g.dilation_x;
    if (y < 0 || x < 0 || y % g.stride_y || x % g.stride_x) return -1;
    const int oy = y / g.stride_y, ox = x / g.stride_x;
    if (oy >= g.out_height || ox >= g.out_width) return -1;
    return ((i64)i.n * g.out_height + oy) * g.out_width + ox;
}

namespace {

// One tile of patches(source) * matrix. FORWARD: source is x, matrix w as it is; else source is the
// output's gradient, matrix w transposed within each tap. WHOLE: a step lies within one tap.
template <bool FORWARD, bool WHOLE>
__device__ __forceinline__ void product_of_patches(const Conv2d& g, const float* __restrict__ source,
                                                   const float* __restrict__ w, const float* __restrict__ bias,
                                                   float* __restrict__ result) {
    __shared__ __align__(16) Tiles tiles;
    const int t = threadIdx.x;
    const int height = FORWARD ? g.out_height : g.height, width = FORWARD ? g.out_width : g.width;
    const int inner = FORWARD ? g.channels : g.filters;   // channels of the source
    const int columns = FORWARD ? g.filters : g.channels;  // of the result
    const i64 rows = (i64)g.batch * height * width;
    const int taps = g.kernel_height * g.kernel_width;
    const int depth = taps * inner;
    const i64 first_row = (i64)blockIdx.x * TILE;
    const int first_column = blockIdx.y * TILE;

    // This thread's share of a step: four depths of one row of a …
    const int a_row = t / 4, a_depth = t % 4 * 4;
    const i64 row = first_row + a_row;
    const Place at = place(row < rows ? row : 0, height, width);
    // … and four columns of one depth of b (forward), or four depths of one column (else).
    const int b_depth = FORWARD ? t / 16 : t % 4 * 4;
    const int b_column = first_column + (FORWARD ? t % 16 * 4 : t / 4);
    const bool columns_aligned = columns % 4 == 0;

    float sum[EACH][EACH] = {};
    for (int k0 = 0; k0 < depth; k0 += DEPTH) {
        float values[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (WHOLE) {
            const int tap = k0 / inner, ky = tap / g.kernel_width, kx = tap % g.kernel_width;
            const i64 index = row >= rows ? -1 : FORWARD ? pixel_read(g, at, ky, kx) : output_read(g, at, ky, kx);
            // Also the barrier that lets nobody overwrite tiles that are still read.
            if (!__syncthreads_or(index >= 0)) {
                k0 += (inner - k0 % inner) - DEPTH;  // nothing of this tap: on to the next
                continue;
            }
            if (index >= 0) {
                const float4 v = *reinterpret_cast<const float4*>(source + index * inner + k0 % inner + a_depth);
                values[0] = v.x, values[1] = v.y, values[2] = v.z, values[3] = v.w;
            }
        } else {
            __syncthreads();
            for (int i = 0; i < 4; i++) {
                const int k = k0 + a_depth + i;
                if (k >= depth || row >= rows) break;
                const int tap = k / inner, ky = tap / g.kernel_width, kx = tap % g.kernel_width;
                const i64 index = FORWARD ? pixel_read(g, at, ky, kx) : output_read(g, at, ky, kx);
                if (index >= 0) values[i] = source[index * inner + k % inner];
            }
        }
        for (int i = 0; i < 4; i++) tiles.a[a_depth + i][a_row] = values[i];

        if (FORWARD) {
            const int k = k0 + b_depth;
            const i64 left = k < depth ? columns - b_column : 0;
            *reinterpret_cast<float4*>(&tiles.b[b_depth][b_column - first_column]) =
                four(w + (i64)k * columns + b_column, left, columns_aligned);
        } else {
            // w [tap, column, inner]: four neighbours are four depths of one column, if they are of one tap.
            for (int i = 0; i < 4; i++) {
                const int k = k0 + b_depth + i;
                float v = 0.0f;
                if (k < depth && b_column < columns) v = w[((i64)(k / inner) * columns + b_column) * inner + k % inner];
                tiles.b[b_depth + i][b_column - first_column] = v;
            }
        }
        __syncthreads();
        multiply(tiles, sum);
    }

    const int tx = t % 16, ty = t / 16;
    const int column = first_column + tx * EACH;
    for (int i = 0; i < EACH; i++) {
        const i64 out_row = first_row + ty * EACH + i;
        if (out_row >= rows || column >= columns) continue;
        if (bias != nullptr) {
            for (int j = 0; j < EACH && column + j < columns; j++) sum[i][j] += bias[column + j];
        }
        store_four(result + out_row * columns + column, columns - column, columns_aligned, sum[i]);
    }
}

}  // namespace

// grid: [outputs / 64, filters / 64]; `bias` may be null.
extern "C" __global__ void __launch_bounds__(256) conv2d_forward(const float* __restrict__ x,
                                                                 const float* __restrict__ w,
                                                                 const float* __restrict__ bias,
                                                                 float* __restrict__ y, Conv2d g) {
    product_of_patches<true, false>(g, x, w, bias, y);
}

// The same where channels are a multiple of 16.
extern "C" __global__ void __launch_bounds__(256) conv2d_forward_whole(const float* __restrict__ x,
                                                                       const float* __restrict__ w,
                                                                       const float* __restrict__ bias,
                                                                       float* __restrict__ y, Conv2d g) {
    product_of_patches<true, true>(g, x, w, bias, y);
}

// grid: [inputs / 64, channels / 64].
extern "C" __global__ void __launch_bounds__(256) conv2d_data(const float* __restrict__ dy,
                                                              const float* __restrict__ w,
                                                              float* __restrict__ dx, Conv2d g) {
    product_of_patches<false, false>(g, dy, w, nullptr, dx);
}

// The same where filters are a multiple of 16.
extern "C" __global__ void __launch_bounds__(256) conv2d_data_whole(const float* __restrict__ dy,
                                                                    const float* __restrict__ w,
                                                                    float* __restrict__ dx, Conv2d g) {
    product_of_patches<false, true>(g, dy, w, nullptr, dx);
}

// The weight gradient's sum runs over all outputs, and its result is small: the sum is cut into parts, a
// block each, and `conv2d_weight_parts` adds the parts in their order. grid: [kh*kw*C / 64, F / 64, parts].
extern "C" __global__ void __launch_bounds__(256) conv2d_weight(const float* __restrict__ x,
                                                                const float* __restrict__ dy,
                                                                float* __restrict__ partial, Conv2d g,
                                                                int length) {
    __shared__ __align__(16) Tiles tiles;
    const int t = threadIdx.x;
    const int rows = g.kernel_height * g.kernel_width * g.channels, columns = g.filters;
    const i64 outputs = (i64)g.batch * g.out_height * g.out_width;
    const i64 first = (i64)blockIdx.z * length;
    const i64 end = first + length < outputs ? first + length : outputs;
    const int first_row = blockIdx.x * TILE, first_column = blockIdx.y * TILE;
    const int depth = t / 16, four_at = t % 16 * 4;
    const bool aligned = g.channels % 4 == 0, columns_aligned = columns % 4 == 0;

    float sum[EACH][EACH] = {};
    for (i64 m0 = first; m0 < end; m0 += DEPTH) {
        const i64 m = m0 + depth;
        const Place o = place(m < end ? m : 0, g.out_height, g.out_width);
        float values[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        const int row = first_row + four_at;
        if (m < end && row < rows) {
            if (aligned) {  // rows are a multiple of four, and four of them are of one tap
                const int tap = row / g.channels;
                const i64 index = pixel_read(g, o, tap / g.kernel_width, tap % g.kernel_width);
                if (index >= 0) {
                    const float4 v = *reinterpret_cast<const float4*>(x + index * g.channels + row % g.channels);
                    values[0] = v.x, values[1] = v.y, values[2] = v.z, values[3] = v.w;
                }
            } else {
                for (int i = 0; i < 4 && row + i < rows; i++) {
                    const int tap = (row + i) / g.channels;
                    const i64 index = pixel_read(g, o, tap / g.kernel_width, tap % g.kernel_width);
                    if (index >= 0) values[i] = x[index * g.channels + (row + i) % g.channels];
                }
            }
        }
        const int column = first_column + four_at;
        const i64 left = m < end ? columns - column : 0;
        const float4 right = four(dy + m * columns + column, left, columns_aligned);
        __syncthreads();
        *reinterpret_cast<float4*>(&tiles.a[depth][four_at]) =
            make_float4(values[0], values[1], values[2], values[3]);
        *reinterpret_cast<float4*>(&tiles.b[depth][four_at]) = right;
        __syncthreads();
        multiply(tiles, sum);
    }

    const int tx = t % 16, ty = t / 16;
    const int column = first_column + tx * EACH;
    float* out = partial + (i64)blockIdx.z * rows * columns;
    for (int i = 0; i < EACH; i++) {
        const int row = first_row + ty * EACH + i;
        if (row >= rows || column >= columns) continue;
        store_four(out + (i64)row * columns + column, columns - column, columns_aligned, sum[i]);
    }
}

// dw[i] = the sum over parts of partial[part, i], in double.
extern "C" __global__ void conv2d_weight_parts(const float* __restrict__ partial, float* __restrict__ dw, i64 n,
                                               int parts) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        double sum = 0.0;
        for (int part = 0; part < parts; part++) sum += (double)partial[(i64)part * n + i];
        dw[i] = (float)sum;
    }
}
