// Resizing: see src/ops/resize/mod.rs for the formulas. Compiled without fused multiply-adds: coordinates and
// values are the CPU's and TensorFlow's to the bit.
//
// Bytes bind: a forward element costs 4 bytes to write and, upscaling, next to nothing to read (neighbours
// share their four sources in L1); a backward one reads each gradient about twice. The names' 4: four
// channels a thread, where they are a multiple of four.
//
// options: --fmad=false

#include "vector.cuh"

// As src/ops/resize/mod.rs has it.
struct Resize {
    int batch, height, width, channels, out_height, out_width;
    int nearest;
};

// The two pixels of one axis that output `i` lies between, and how far it is to the second.
struct Tap {
    int low, high;
    float t;
};

__device__ __forceinline__ Tap tap_of(int i, int input, int output, int nearest) {
    const float scale = (float)input / (float)output;
    Tap tap;
    if (nearest) {
        const int at = (int)floorf(((float)i + 0.5f) * scale);
        tap.low = tap.high = at < input - 1 ? at : input - 1;
        tap.t = 0.0f;
        return tap;
    }
    const float s = ((float)i + 0.5f) * scale - 0.5f;
    const float below = floorf(s), above = s == below ? below : below + 1.0f;
    const int low = (int)below, high = (int)above, last = input - 1;
    tap.low = low < 0 ? 0 : low > last ? last : low;
    tap.high = high < 0 ? 0 : high > last ? last : high;
    tap.t = s - below;
    return tap;
}

// A thread V outputs: along x first, then along y.
template <int V>
__device__ __forceinline__ void forward(const float* __restrict__ x, float* __restrict__ y, const Resize& g, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n / V; i += stride) {
        i64 rest = i;
        const int c = (int)divmod(rest, g.channels / V) * V;
        const Tap column = tap_of((int)divmod(rest, g.out_width), g.width, g.out_width, g.nearest);
        const Tap row = tap_of((int)divmod(rest, g.out_height), g.height, g.out_height, g.nearest);
        const float* picture = x + rest * g.height * g.width * g.channels + c;
        const float* upper = picture + (i64)row.low * g.width * g.channels;
        if (g.nearest) {
            store<V>(y + i * V, load<V>(upper + (i64)column.low * g.channels));
            continue;
        }
        const float* lower = picture + (i64)row.high * g.width * g.channels;
        const Floats<V> a = load<V>(upper + (i64)column.low * g.channels), b = load<V>(upper + (i64)column.high * g.channels);
        const Floats<V> d = load<V>(lower + (i64)column.low * g.channels), e = load<V>(lower + (i64)column.high * g.channels);
        Floats<V> out;
#pragma unroll
        for (int k = 0; k < V; k++) {
            const float top = a.v[k] + (b.v[k] - a.v[k]) * column.t, bottom = d.v[k] + (e.v[k] - d.v[k]) * column.t;
            out.v[k] = top + (bottom - top) * row.t;
        }
        store<V>(y + i * V, out);
    }
}

// The outputs that may look at input `i` of one axis: a cell more on each side than arithmetic says, because
// coordinates are rounded; whoever does not look at it has weight 0.
__device__ __forceinline__ void outputs_of(int i, int input, int output, int* first, int* end) {
    const float scale = (float)output / (float)input;
    *first = i == 0 ? 0 : (int)floorf(((float)i - 0.5f) * scale - 0.5f) - 1;
    *end = i == input - 1 ? output : (int)ceilf(((float)i + 1.5f) * scale - 0.5f) + 2;
    if (*first < 0) *first = 0;
    if (*end > output) *end = output;
}

__device__ __forceinline__ float weight(Tap tap, int i) {
    float w = 0.0f;
    if (tap.low == i) w += 1.0f - tap.t;
    if (tap.high == i) w += tap.t;
    return w;
}

// A thread V inputs: it adds up the outputs they went to, in their order. (A nearest tap has t = 0, so its
// whole weight is on the pixel that was taken.)
template <int V>
__device__ __forceinline__ void backward(const float* __restrict__ dy, float* __restrict__ dx, const Resize& g, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n / V; i += stride) {
        i64 rest = i;
        const int c = (int)divmod(rest, g.channels / V) * V;
        const int column = (int)divmod(rest, g.width), row = (int)divmod(rest, g.height);
        const float* picture = dy + rest * g.out_height * g.out_width * g.channels + c;
        int first_row, end_row, first_column, end_column;
        outputs_of(row, g.height, g.out_height, &first_row, &end_row);
        outputs_of(column, g.width, g.out_width, &first_column, &end_column);
        Floats<V> sum = {};
        for (int oy = first_row; oy < end_row; oy++) {
            const float by_row = weight(tap_of(oy, g.height, g.out_height, g.nearest), row);
            if (by_row == 0.0f) continue;
            Floats<V> line = {};
            for (int ox = first_column; ox < end_column; ox++) {
                const float by_column = weight(tap_of(ox, g.width, g.out_width, g.nearest), column);
                if (by_column == 0.0f) continue;
                const Floats<V> gradient = load<V>(picture + ((i64)oy * g.out_width + ox) * g.channels);
#pragma unroll
                for (int k = 0; k < V; k++) line.v[k] += gradient.v[k] * by_column;
            }
#pragma unroll
            for (int k = 0; k < V; k++) sum.v[k] += line.v[k] * by_row;
        }
        store<V>(dx + i * V, sum);
    }
}

extern "C" __global__ void resize_forward(const float* x, float* y, Resize g, i64 n) { forward<1>(x, y, g, n); }
extern "C" __global__ void resize_forward_4(const float* x, float* y, Resize g, i64 n) { forward<4>(x, y, g, n); }
extern "C" __global__ void resize_backward(const float* dy, float* dx, Resize g, i64 n) { backward<1>(dy, dx, g, n); }
extern "C" __global__ void resize_backward_4(const float* dy, float* dx, Resize g, i64 n) { backward<4>(dy, dx, g, n); }
