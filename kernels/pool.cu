// Pooling: see src/ops/pool/mod.rs for the rules.
//
// Bytes bind: an output reads its window (overlapping windows find it in L1), writes 4 bytes and, for a maximum
// whose gradient is wanted, its position in the window: one byte, four where windows have over 256 cells. The
// backward passes gather: an input looks at the windows over it in their order. The names' 4: four channels a thread, where they
// are a multiple of four.

#include "vector.cuh"

// As src/ops/pool/cuda.rs has it.
struct Pool {
    int batch, height, width, channels, out_height, out_width;
    int pool_y, pool_x, stride_y, stride_x, before_y, before_x;
};

struct Window {
    int c, oy, ox, top, left, y0, y1, x0, x1;  // real cells: rows y0..y1, columns x0..x1
    i64 picture;                                // in pictures
};

// Of the i-th V outputs.
template <int V> __device__ __forceinline__ Window window_of(const Pool& g, i64 i) {
    Window w;
    w.c = (int)divmod(i, g.channels / V) * V;
    w.ox = (int)divmod(i, g.out_width);
    w.oy = (int)divmod(i, g.out_height);
    w.picture = i;
    w.top = w.oy * g.stride_y - g.before_y;
    w.left = w.ox * g.stride_x - g.before_x;
    w.y0 = w.top > 0 ? w.top : 0;
    w.x0 = w.left > 0 ? w.left : 0;
    w.y1 = w.top + g.pool_y < g.height ? w.top + g.pool_y : g.height;
    w.x1 = w.left + g.pool_x < g.width ? w.left + g.pool_x : g.width;
    return w;
}

// The windows over an input cell along one axis: first .. end.
struct Over {
    int first, end;
};
__device__ __forceinline__ Over windows_over(int i, int before, int pool, int stride, int output) {
    const int padded = i + before, least = padded + 1 - pool;
    Over over;
    over.first = least > 0 ? (least + stride - 1) / stride : 0;
    over.end = padded / stride + 1 < output ? padded / stride + 1 : output;
    return over;
}

// The windows over V inputs, and where their outputs lie.
struct Cell {
    int row, column;
    Over ys, xs;
    i64 outputs;  // of the picture's first, at these channels
};
template <int V> __device__ __forceinline__ Cell cell_of(const Pool& g, i64 i) {
    Cell cell;
    const int c = (int)divmod(i, g.channels / V) * V;
    cell.column = (int)divmod(i, g.width);
    cell.row = (int)divmod(i, g.height);
    cell.ys = windows_over(cell.row, g.before_y, g.pool_y, g.stride_y, g.out_height);
    cell.xs = windows_over(cell.column, g.before_x, g.pool_x, g.stride_x, g.out_width);
    cell.outputs = i * g.out_height * g.out_width * g.channels + c;
    return cell;
}

// Positions in a window: a byte each, four of them in one access; or an int where windows have more than 256 cells.
template <int V> struct Places {
    unsigned v[V];
};
__device__ __forceinline__ void load_places(const unsigned* p, Places<1>& places) { places.v[0] = p[0]; }
__device__ __forceinline__ void load_places(const u8* p, Places<1>& places) { places.v[0] = p[0]; }
__device__ __forceinline__ void load_places(const u8* p, Places<4>& places) {
    const u32 all = *reinterpret_cast<const u32*>(p);
#pragma unroll
    for (int k = 0; k < 4; k++) places.v[k] = all >> 8 * k & 0xff;
}
__device__ __forceinline__ void store_places(unsigned* p, const Places<1>& places) { p[0] = places.v[0]; }
__device__ __forceinline__ void store_places(u8* p, const Places<1>& places) { p[0] = (u8)places.v[0]; }
__device__ __forceinline__ void store_places(u8* p, const Places<4>& places) {
    *reinterpret_cast<u32*>(p) = places.v[0] | places.v[1] << 8 | places.v[2] << 16 | places.v[3] << 24;
}

template <int V, class Position>
__device__ __forceinline__ void maximum(const float* __restrict__ x, float* __restrict__ y,
                                        Position* __restrict__ positions, const Pool& g, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n / V; i += stride) {
        const Window w = window_of<V>(g, i);
        const float* picture = x + w.picture * g.height * g.width * g.channels + w.c;
        Floats<V> best = load<V>(picture + ((i64)w.y0 * g.width + w.x0) * g.channels);
        Places<V> places;
#pragma unroll
        for (int k = 0; k < V; k++) places.v[k] = (w.y0 - w.top) * g.pool_x + w.x0 - w.left;
        for (int row = w.y0; row < w.y1; row++) {
            for (int column = w.x0; column < w.x1; column++) {
                const Floats<V> v = load<V>(picture + ((i64)row * g.width + column) * g.channels);
#pragma unroll
                for (int k = 0; k < V; k++) {
                    if (v.v[k] > best.v[k]) {
                        best.v[k] = v.v[k];
                        places.v[k] = (row - w.top) * g.pool_x + column - w.left;
                    }
                }
            }
        }
        store<V>(y + i * V, best);
        if (positions != nullptr) store_places(positions + i * V, places);
    }
}

template <int V, class Position>
__device__ __forceinline__ void maximum_backward(const float* __restrict__ dy,
                                                 const Position* __restrict__ positions, float* __restrict__ dx,
                                                 const Pool& g, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n / V; i += stride) {
        const Cell cell = cell_of<V>(g, i);
        Floats<V> sum = {};
        for (int oy = cell.ys.first; oy < cell.ys.end; oy++) {
            for (int ox = cell.xs.first; ox < cell.xs.end; ox++) {
                const i64 at = cell.outputs + ((i64)oy * g.out_width + ox) * g.channels;
                const unsigned mine = (cell.row - (oy * g.stride_y - g.before_y)) * g.pool_x + cell.column - (ox * g.stride_x - g.before_x);
                Places<V> places;
                load_places(positions + at, places);
                const Floats<V> gradient = load<V>(dy + at);
#pragma unroll
                for (int k = 0; k < V; k++) {
                    if (places.v[k] == mine) sum.v[k] += gradient.v[k];
                }
            }
        }
        store<V>(dx + i * V, sum);
    }
}

template <int V>
__device__ __forceinline__ void average(const float* __restrict__ x, float* __restrict__ y, const Pool& g, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n / V; i += stride) {
        const Window w = window_of<V>(g, i);
        const float* picture = x + w.picture * g.height * g.width * g.channels + w.c;
        Floats<V> sum = {};
        for (int row = w.y0; row < w.y1; row++) {
            for (int column = w.x0; column < w.x1; column++) {
                const Floats<V> v = load<V>(picture + ((i64)row * g.width + column) * g.channels);
#pragma unroll
                for (int k = 0; k < V; k++) sum.v[k] += v.v[k];
            }
        }
#pragma unroll
        for (int k = 0; k < V; k++) sum.v[k] /= (float)((w.y1 - w.y0) * (w.x1 - w.x0));
        store<V>(y + i * V, sum);
    }
}

// How many cells of the picture a window of this axis has.
__device__ __forceinline__ int real_cells(int o, int stride, int before, int pool, int size) {
    const int from = o * stride - before, to = from + pool;
    return (to < size ? to : size) - (from > 0 ? from : 0);
}

template <int V>
__device__ __forceinline__ void average_backward(const float* __restrict__ dy, float* __restrict__ dx, const Pool& g, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n / V; i += stride) {
        const Cell cell = cell_of<V>(g, i);
        Floats<V> sum = {};
        for (int oy = cell.ys.first; oy < cell.ys.end; oy++) {
            const int rows = real_cells(oy, g.stride_y, g.before_y, g.pool_y, g.height);
            for (int ox = cell.xs.first; ox < cell.xs.end; ox++) {
                const int columns = real_cells(ox, g.stride_x, g.before_x, g.pool_x, g.width);
                const Floats<V> gradient = load<V>(dy + cell.outputs + ((i64)oy * g.out_width + ox) * g.channels);
#pragma unroll
                for (int k = 0; k < V; k++) sum.v[k] += gradient.v[k] / (float)(rows * columns);
            }
        }
        store<V>(dx + i * V, sum);
    }
}

extern "C" __global__ void pool_max(const float* x, float* y, u8* positions, Pool g, i64 n) { maximum<1>(x, y, positions, g, n); }
extern "C" __global__ void pool_max_4(const float* x, float* y, u8* positions, Pool g, i64 n) { maximum<4>(x, y, positions, g, n); }

extern "C" __global__ void pool_max_backward(const float* dy, const u8* positions, float* dx, Pool g, i64 n) {
    maximum_backward<1>(dy, positions, dx, g, n);
}
extern "C" __global__ void pool_max_backward_4(const float* dy, const u8* positions, float* dx, Pool g, i64 n) {
    maximum_backward<4>(dy, positions, dx, g, n);
}

// Windows of more than 256 cells.
extern "C" __global__ void pool_max_large(const float* x, float* y, unsigned* positions, Pool g, i64 n) {
    maximum<1>(x, y, positions, g, n);
}
extern "C" __global__ void pool_max_large_backward(const float* dy, const unsigned* positions, float* dx, Pool g, i64 n) {
    maximum_backward<1>(dy, positions, dx, g, n);
}

extern "C" __global__ void pool_average(const float* x, float* y, Pool g, i64 n) { average<1>(x, y, g, n); }
extern "C" __global__ void pool_average_4(const float* x, float* y, Pool g, i64 n) { average<4>(x, y, g, n); }
extern "C" __global__ void pool_average_backward(const float* dy, float* dx, Pool g, i64 n) { average_backward<1>(dy, dx, g, n); }
extern "C" __global__ void pool_average_backward_4(const float* dy, float* dx, Pool g, i64 n) { average_backward<4>(dy, dx, g, n); }
