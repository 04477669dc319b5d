// Depthwise convolution: see src/ops/depthwise_conv2d/mod.rs for the formulas. Rung 3 of the ladder; below it
// kernels/ladder/depthwise_conv2d_*.cu.
//
// Bytes bind: 2*kh*kw operations for each 4 bytes read and written. Over rung 2 this adds a window in registers that
// slides along the row: of nine pixels under a 3x3 window six (stride 1) or three (stride 2) are there from the
// output before, and a thread's nine weights are read once a row. The backward pass reads the output's gradient and x
// once for both gradients.
//
// Threads run along channels, four each where channels are a multiple of four (V is float4, else float).

#include "depthwise_conv2d.cuh"

namespace {

// 3x3 windows without dilation. A thread makes `run` neighbouring outputs of a row.
template <class V, int STRIDE>
__device__ __forceinline__ void slide(const V* __restrict__ x, const V* __restrict__ w, const V* __restrict__ bias,
                                      V* __restrict__ y, const Depthwise& g, int run, int after) {
    const int channels = g.channels * (int)sizeof(float) / (int)sizeof(V);
    const int runs = ceil_div(g.out_width, run);
    const i64 n = (i64)g.batch * g.out_height * runs * channels, stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        i64 row = i;  // of all outputs' rows, once the rest is taken
        const int c = (int)divmod(row, channels), ox0 = (int)divmod(row, runs) * run;
        i64 picture = row;
        const int oy = (int)divmod(picture, g.out_height);
        picture *= g.height;
        V weights[9];
#pragma unroll
        for (int k = 0; k < 9; k++) weights[k] = w[k * channels + c];
        const V start = bias == nullptr ? zero<V>() : bias[c];
        const int iy0 = oy * STRIDE - g.pad_y;
        auto pixel = [&](int ky, int ix) {
            const int iy = iy0 + ky;
            if (iy < 0 || iy >= g.height || ix < 0 || ix >= g.width) return zero<V>();
            return x[((picture + iy) * g.width + ix) * channels + c];
        };
        V window[3][3];  // the last 3 - STRIDE columns come from the output before
        int ix = ox0 * STRIDE - g.pad_x;
#pragma unroll
        for (int kx = 0; kx < 3 - STRIDE; kx++) {
#pragma unroll
            for (int ky = 0; ky < 3; ky++) window[ky][kx] = pixel(ky, ix + kx);
        }
        const int end = ox0 + run < g.out_width ? ox0 + run : g.out_width;
        V* out = y + (row * g.out_width + ox0) * channels + c;
        for (int ox = ox0; ox < end; ox++, ix += STRIDE, out += channels) {
            V sum = start;
#pragma unroll
            for (int ky = 0; ky < 3; ky++) {
#pragma unroll
                for (int kx = 3 - STRIDE; kx < 3; kx++) window[ky][kx] = pixel(ky, ix + kx);
#pragma unroll
                for (int kx = 0; kx < 3; kx++) sum = multiply_add(window[ky][kx], weights[ky * 3 + kx], sum);
#pragma unroll
                for (int kx = 0; kx < 3 - STRIDE; kx++) window[ky][kx] = window[ky][kx + STRIDE];
            }
            *out = act_forward(after, sum);
        }
    }
}

// An axis of the backward pass: the output whose tap k reads input i, or -1.
__device__ __forceinline__ int output_of(int i, int k, int stride, int dilation, int pad, int outputs) {
    const int shifted = i + pad - k * dilation;
    if (shifted < 0 || shifted % stride) return -1;
    return shifted / stride < outputs ? shifted / stride : -1;
}

// Both gradients of 3x3 windows in one pass. A thread has its channels of every eighth row of a block's `length` input
// rows (a row: one y of one picture). At each pixel it needs the gradients of the (at most nine) outputs that read it:
// they make dx there, and times x there they are its share of dw. Without stride and dilation they slide through
// registers, three new ones a pixel. Its sums of dw are f32 over a handful of rows, then double.
// Block: [32, 8]; grid: [channels / 32, parts]; partial [9, parts, channels]. dx or partial may be null.
template <class V>
__device__ __forceinline__ void both_gradients(const V* __restrict__ x, const V* __restrict__ dy, const V* __restrict__ w,
                                               V* __restrict__ dx, double* __restrict__ partial, const Depthwise& g, int length) {
    const int WIDE = sizeof(V) / sizeof(float);
    __shared__ __align__(16) float scratch[8][32][WIDE];
    const int channels = g.channels / WIDE;
    const int c = blockIdx.x * 32 + threadIdx.x;
    const bool there = c < channels;
    const int rows = g.batch * g.height;
    const int first = blockIdx.y * length, end = first + length < rows ? first + length : rows;
    const bool slides = g.stride_x == 1 && g.dilation_x == 1;
    V weights[9], sums[9];
#pragma unroll
    for (int k = 0; k < 9; k++) {
        weights[k] = there ? w[k * channels + c] : zero<V>();
        sums[k] = zero<V>();
    }
    for (int row = first + threadIdx.y; there && row < end; row += 8) {
        const int iy = row % g.height, picture = row / g.height;
        i64 line[3];  // where the outputs' rows begin, or -1
#pragma unroll
        for (int ky = 0; ky < 3; ky++) {
            const int oy = output_of(iy, ky, g.stride_y, g.dilation_y, g.pad_y, g.out_height);
            line[ky] = oy < 0 ? -1 : ((i64)picture * g.out_height + oy) * g.out_width;
        }
        auto gradient = [&](int ky, int ix, int kx) {
            const int ox = output_of(ix, kx, g.stride_x, g.dilation_x, g.pad_x, g.out_width);
            return line[ky] < 0 || ox < 0 ? zero<V>() : dy[(line[ky] + ox) * channels + c];
        };
        V window[3][3];
#pragma unroll
        for (int ky = 0; ky < 3; ky++) {  // what pixel -1 would have seen of taps 0 and 1, pixel 0 sees of 1 and 2
#pragma unroll
            for (int kx = 1; kx < 3; kx++) window[ky][kx - 1] = slides ? gradient(ky, 0, kx) : zero<V>();
        }
        for (int ix = 0; ix < g.width; ix++) {
            const i64 at = ((i64)row * g.width + ix) * channels + c;
            const V value = partial == nullptr ? zero<V>() : x[at];
            V sum = zero<V>();
#pragma unroll
            for (int ky = 0; ky < 3; ky++) {
                if (slides) {
                    window[ky][2] = window[ky][1];
                    window[ky][1] = window[ky][0];
                    window[ky][0] = gradient(ky, ix, 0);
                } else {
#pragma unroll
                    for (int kx = 0; kx < 3; kx++) window[ky][kx] = gradient(ky, ix, kx);
                }
#pragma unroll
                for (int kx = 0; kx < 3; kx++) {
                    sum = multiply_add(window[ky][kx], weights[ky * 3 + kx], sum);
                    sums[ky * 3 + kx] = multiply_add(window[ky][kx], value, sums[ky * 3 + kx]);
                }
            }
            if (dx != nullptr) dx[at] = sum;
        }
    }
    if (partial == nullptr) return;
#pragma unroll
    for (int k = 0; k < 9; k++) {
        *reinterpret_cast<V*>(scratch[threadIdx.y][threadIdx.x]) = sums[k];
        __syncthreads();
        if (threadIdx.y == 0 && there) {
            for (int i = 0; i < WIDE; i++) {
                double sum = 0.0;
                for (int lane = 0; lane < 8; lane++) sum += (double)scratch[lane][threadIdx.x][i];
                partial[((i64)k * gridDim.y + blockIdx.y) * g.channels + c * WIDE + i] = sum;
            }
        }
        __syncthreads();
    }
}

}  // namespace

// `bias` may be null in all of them; `after`: the activation made in the same pass. The names' 4: channels are a
// multiple of four.
extern "C" __global__ void depthwise_forward(const float* x, const float* w, const float* bias, float* y, Depthwise g, int after) {
    gather<float>(x, w, bias, y, g, after);
}
extern "C" __global__ void depthwise_forward_4(const float4* x, const float4* w, const float4* bias, float4* y, Depthwise g, int after) {
    gather<float4>(x, w, bias, y, g, after);
}
extern "C" __global__ void __launch_bounds__(256) depthwise_slide(
    const float* x, const float* w, const float* bias, float* y, Depthwise g, int after, int run) {
    slide<float, 1>(x, w, bias, y, g, run, after);
}
extern "C" __global__ void __launch_bounds__(256) depthwise_slide_4(
    const float4* x, const float4* w, const float4* bias, float4* y, Depthwise g, int after, int run) {
    slide<float4, 1>(x, w, bias, y, g, run, after);
}
extern "C" __global__ void __launch_bounds__(256) depthwise_slide_stride_2(
    const float* x, const float* w, const float* bias, float* y, Depthwise g, int after, int run) {
    slide<float, 2>(x, w, bias, y, g, run, after);
}
extern "C" __global__ void __launch_bounds__(256) depthwise_slide_stride_2_4(
    const float4* x, const float4* w, const float4* bias, float4* y, Depthwise g, int after, int run) {
    slide<float4, 2>(x, w, bias, y, g, run, after);
}
extern "C" __global__ void __launch_bounds__(256) depthwise_backward(
    const float* x, const float* dy, const float* w, float* dx,
                                                                     double* partial, Depthwise g, int length) {
    both_gradients<float>(x, dy, w, dx, partial, g, length);
}
extern "C" __global__ void __launch_bounds__(256) depthwise_backward_4(const float4* x, const float4* dy, const float4* w,
                                                                       float4* dx, double* partial, Depthwise g, int length) {
    both_gradients<float4>(x, dy, w, dx, partial, g, length);
}

// Other windows. A thread an input: it gathers from the outputs that read it, so nobody adds to another's memory.
extern "C" __global__ void depthwise_data(const float* __restrict__ dy, const float* __restrict__ w,
                                          float* __restrict__ dx, Depthwise g, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const int c = (int)(i % g.channels);
        i64 rest = i / g.channels;
        const int ix = (int)(rest % g.width);
        rest /= g.width;
        const int iy = (int)(rest % g.height);
        const i64 picture = rest / g.height * g.out_height;
        float sum = 0.0f;
        for (int ky = 0; ky < g.kernel_height; ky++) {
            const int y = iy + g.pad_y - ky * g.dilation_y, oy = y / g.stride_y;
            if (y < 0 || y % g.stride_y || oy >= g.out_height) continue;
            for (int kx = 0; kx < g.kernel_width; kx++) {
                const int x = ix + g.pad_x - kx * g.dilation_x, ox = x / g.stride_x;
                if (x < 0 || x % g.stride_x || ox >= g.out_width) continue;
                sum = fmaf(dy[((picture + oy) * g.out_width + ox) * g.channels + c],
                           w[(ky * g.kernel_width + kx) * g.channels + c], sum);
            }
        }
        dx[i] = sum;
    }
}

// A block of 32 channels by 8 lanes adds one tap over `length` outputs, in double; the parts are added by
// `reduce_parts`. grid: [channels / 32, parts, taps]; partial [taps, parts, channels].
extern "C" __global__ void __launch_bounds__(256) depthwise_weight(const float* __restrict__ x,
                                                                   const float* __restrict__ dy,
                                                                   double* __restrict__ partial, Depthwise g,
                                                                   i64 length) {
    __shared__ double sums[8][32];
    const int c = blockIdx.x * 32 + threadIdx.x;
    const int ky = blockIdx.z / g.kernel_width, kx = blockIdx.z % g.kernel_width;
    const i64 outputs = (i64)g.batch * g.out_height * g.out_width;
    const i64 first = (i64)blockIdx.y * length;
    const i64 end = first + length < outputs ? first + length : outputs;
    double sum = 0.0;
    if (c < g.channels) {
        for (i64 o = first + threadIdx.y; o < end; o += 8) {
            const int ox = (int)(o % g.out_width), oy = (int)(o / g.out_width % g.out_height);
            const i64 n = o / g.out_width / g.out_height;
            const int iy = oy * g.stride_y + ky * g.dilation_y - g.pad_y;
            const int ix = ox * g.stride_x + kx * g.dilation_x - g.pad_x;
            if (iy < 0 || iy >= g.height || ix < 0 || ix >= g.width) continue;
            sum += (double)(x[((n * g.height + iy) * g.width + ix) * g.channels + c] * dy[o * g.channels + c]);
        }
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && c < g.channels) {
        for (int lane = 1; lane < 8; lane++) sum += sums[lane][threadIdx.x];
        partial[((i64)blockIdx.z * gridDim.y + blockIdx.y) * g.channels + c] = sum;
    }
}
