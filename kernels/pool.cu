// Pooling: see src/ops/pool/mod.rs for the rules.
//
// Bytes bind: an output reads its window (overlapping windows find it in L1), writes 4 bytes and, for a maximum
// whose gradient is wanted, its position in the window: one byte, four where windows have over 256 cells. The
// backward passes gather: an input looks at the windows over it in their order. No hardware has run these yet.

#include "common.cuh"

// As src/ops/pool/device.rs has it.
struct Pool {
    int batch, height, width, channels, out_height, out_width;
    int pool_y, pool_x, stride_y, stride_x, before_y, before_x;
};

struct Window {
    int c, oy, ox, top, left, y0, y1, x0, x1;  // real cells: rows y0..y1, columns x0..x1
    i64 picture;                                // in pictures
};

__device__ __forceinline__ Window window_of(const Pool& g, i64 i) {
    Window w;
    w.c = (int)(i % g.channels);
    i64 rest = i / g.channels;
    w.ox = (int)(rest % g.out_width);
    rest /= g.out_width;
    w.oy = (int)(rest % g.out_height);
    w.picture = rest / g.out_height;
    w.top = w.oy * g.stride_y - g.before_y;
    w.left = w.ox * g.stride_x - g.before_x;
    w.y0 = w.top > 0 ? w.top : 0;
    w.x0 = w.left > 0 ? w.left : 0;
    w.y1 = w.top + g.pool_y < g.height ? w.top + g.pool_y : g.height;
    w.x1 = w.left + g.pool_x < g.width ? w.left + g.pool_x : g.width;
    return w;
}

// The windows over an input cell along one axis: first .. end.
__device__ __forceinline__ void windows_over(int i, int before, int pool, int stride, int output, int* first,
                                             int* end) {
    const int padded = i + before, least = padded + 1 - pool;
    *first = least > 0 ? (least + stride - 1) / stride : 0;
    *end = padded / stride + 1 < output ? padded / stride + 1 : output;
}

template <class Position>
__device__ __forceinline__ void maximum(const float* __restrict__ x, float* __restrict__ y,
                                        Position* __restrict__ positions, const Pool& g, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const Window w = window_of(g, i);
        const float* picture = x + w.picture * g.height * g.width * g.channels + w.c;
        float best = picture[((i64)w.y0 * g.width + w.x0) * g.channels];
        int position = (w.y0 - w.top) * g.pool_x + w.x0 - w.left;
        for (int row = w.y0; row < w.y1; row++) {
            for (int column = w.x0; column < w.x1; column++) {
                const float v = picture[((i64)row * g.width + column) * g.channels];
                if (v > best) {
                    best = v;
                    position = (row - w.top) * g.pool_x + column - w.left;
                }
            }
        }
        y[i] = best;
        if (positions != nullptr) positions[i] = (Position)position;
    }
}

template <class Position>
__device__ __forceinline__ void maximum_backward(const float* __restrict__ dy,
                                                 const Position* __restrict__ positions, float* __restrict__ dx,
                                                 const Pool& g, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const int c = (int)(i % g.channels);
        i64 rest = i / g.channels;
        const int column = (int)(rest % g.width);
        rest /= g.width;
        const int row = (int)(rest % g.height);
        const i64 picture = rest / g.height * g.out_height * g.out_width;
        int oy0, oy1, ox0, ox1;
        windows_over(row, g.before_y, g.pool_y, g.stride_y, g.out_height, &oy0, &oy1);
        windows_over(column, g.before_x, g.pool_x, g.stride_x, g.out_width, &ox0, &ox1);
        float sum = 0.0f;
        for (int oy = oy0; oy < oy1; oy++) {
            for (int ox = ox0; ox < ox1; ox++) {
                const i64 at = (picture + (i64)oy * g.out_width + ox) * g.channels + c;
                const int mine = (row - (oy * g.stride_y - g.before_y)) * g.pool_x + column - (ox * g.stride_x - g.before_x);
                if ((int)positions[at] == mine) sum += dy[at];
            }
        }
        dx[i] = sum;
    }
}

extern "C" __global__ void pool_max(const float* x, float* y, unsigned char* positions, Pool g, i64 n) {
    maximum(x, y, positions, g, n);
}

extern "C" __global__ void pool_max_backward(const float* dy, const unsigned char* positions, float* dx, Pool g,
                                             i64 n) {
    maximum_backward(dy, positions, dx, g, n);
}

// Windows of more than 256 cells.
extern "C" __global__ void pool_max_large(const float* x, float* y, unsigned* positions, Pool g, i64 n) {
    maximum(x, y, positions, g, n);
}

extern "C" __global__ void pool_max_large_backward(const float* dy, const unsigned* positions, float* dx, Pool g,
                                                   i64 n) {
    maximum_backward(dy, positions, dx, g, n);
}

extern "C" __global__ void pool_average(const float* __restrict__ x, float* __restrict__ y, Pool g, i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const Window w = window_of(g, i);
        const float* picture = x + w.picture * g.height * g.width * g.channels + w.c;
        float sum = 0.0f;
        for (int row = w.y0; row < w.y1; row++) {
            for (int column = w.x0; column < w.x1; column++) {
                sum += picture[((i64)row * g.width + column) * g.channels];
            }
        }
        y[i] = sum / (float)((w.y1 - w.y0) * (w.x1 - w.x0));
    }
}

extern "C" __global__ void pool_average_backward(const float* __restrict__ dy, float* __restrict__ dx, Pool g,
                                                 i64 n) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const int c = (int)(i % g.channels);
        i64 rest = i / g.channels;
        const int column = (int)(rest % g.width);
        rest /= g.width;
        const int row = (int)(rest % g.height);
        const i64 picture = rest / g.height * g.out_height * g.out_width;
        int oy0, oy1, ox0, ox1;
        windows_over(row, g.before_y, g.pool_y, g.stride_y, g.out_height, &oy0, &oy1);
        windows_over(column, g.before_x, g.pool_x, g.stride_x, g.out_width, &ox0, &ox1);
        float sum = 0.0f;
        for (int oy = oy0; oy < oy1; oy++) {
            for (int ox = ox0; ox < ox1; ox++) {
                const i64 at = (picture + (i64)oy * g.out_width + ox) * g.channels + c;
                const Window w = window_of(g, at);
                sum += dy[at] / (float)((w.y1 - w.y0) * (w.x1 - w.x0));
            }
        }
        dx[i] = sum;
    }
}
