// Batch normalisation: see src/ops/batch_norm/mod.rs for the formulas. Rung 3 of the ladder; below it
// kernels/ladder/batch_norm_*.cu.
//
// Bytes bind: training reads x twice and writes y; the backward pass reads x and the gradient twice and writes dx.
// Over rung 2 this adds 128-bit accesses where channels are a multiple of four, sums in f32 within a thread (a dozen
// rows) and in double among threads, and the activation that follows: y = f(batch norm), in the same pass. The
// backward pass computes the batch norm's output again from x, to know where f is flat, so that nothing more is saved
// and nothing more is read: two passes for both.

#include "vector.cuh"

namespace {

// What the 8 lanes of a channel have, added in their order, in double; the same for all of them. A barrier before
// and after: scratch can be used again.
__device__ __forceinline__ double block_column_sum(float value, float (&scratch)[8][32]) {
    scratch[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    double sum = 0.0;
    for (int lane = 0; lane < 8; lane++) sum += (double)scratch[lane][threadIdx.x];
    __syncthreads();
    return sum;
}

// The same of 32 lanes, by halves; a fixed order, too.
__device__ __forceinline__ double block_column_sum(double value, double (&scratch)[32][32]) {
    scratch[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    for (int half = 16; half > 0; half /= 2) {
        if ((int)threadIdx.y < half) scratch[threadIdx.y][threadIdx.x] += scratch[threadIdx.y + half][threadIdx.x];
        __syncthreads();
    }
    const double sum = scratch[0][threadIdx.x];
    __syncthreads();
    return sum;
}

// Rows of a tile; the last one may be shorter.
__device__ __forceinline__ double of_tile(int tile, i64 length, i64 rows) {
    const i64 first = tile * length;
    return (double)(first + length < rows ? length : rows - first);
}

// Mean and M2 = sum (x - mean)^2 of a tile of `length` rows, the second pass over what L1 holds.
template <int V>
__device__ __forceinline__ void tiles(const float* __restrict__ x, double* __restrict__ partial, i64 rows, int channels,
                                      i64 length) {
    __shared__ float scratch[8][32];
    const int c = (blockIdx.x * 32 + threadIdx.x) * V;
    const bool there = c < channels;
    const i64 first = (i64)blockIdx.y * length;
    const i64 end = first + length < rows ? first + length : rows;
    Floats<V> sum = {};
    for (i64 row = first + threadIdx.y; there && row < end; row += 8) {
        const Floats<V> values = load<V>(x + row * channels + c);
#pragma unroll
        for (int i = 0; i < V; i++) sum.v[i] += values.v[i];
    }
    double mean[V];
    Floats<V> centre, m2 = {};
#pragma unroll
    for (int i = 0; i < V; i++) {
        mean[i] = block_column_sum(sum.v[i], scratch) / (double)(end - first);
        centre.v[i] = (float)mean[i];
    }
    Floats<V> rest = {};  // of the mean's rounding: sum (x - centre), which would be 0
    for (i64 row = first + threadIdx.y; there && row < end; row += 8) {
        const Floats<V> values = load<V>(x + row * channels + c);
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float d = values.v[i] - centre.v[i];
            rest.v[i] += d;
            m2.v[i] = fmaf(d, d, m2.v[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < V; i++) {
        const double n = (double)(end - first), off = block_column_sum(rest.v[i], scratch) / n;
        const double total = block_column_sum(m2.v[i], scratch);
        if (there && threadIdx.y == 0) {
            double* out = partial + (i64)blockIdx.y * 2 * channels + c + i;
            out[0] = (double)centre.v[i] + off;
            out[channels] = total - off * off * n;
        }
    }
}

// y = f(gamma * inverse * (x - mean) + beta): the difference first, so that a value that is its channel's mean gives
// exactly f(beta).
template <int V>
__device__ __forceinline__ void apply(const float* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__ beta,
                                      const float* __restrict__ mean, const float* __restrict__ inverse, float* __restrict__ y,
                                      i64 n, int channels, int after) {
    const i64 stride = (i64)gridDim.x * blockDim.x * V;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * V; i < n; i += stride) {
        i64 rest = i;
        const int c = (int)divmod(rest, channels);
        Floats<V> v = load<V>(x + i);
        const Floats<V> a = load<V>(gamma + c), s = load<V>(inverse + c), m = load<V>(mean + c), b = load<V>(beta + c);
#pragma unroll
        for (int k = 0; k < V; k++) v.v[k] = act_forward(after, a.v[k] * s.v[k] * (v.v[k] - m.v[k]) + b.v[k]);
        store<V>(y + i, v);
    }
}

// Sums of g and of g * (x - mean) over a tile, g the gradient that comes through f.
template <int V>
__device__ __forceinline__ void gradient_tiles(const float* __restrict__ x, const float* __restrict__ dy,
                                               const float* __restrict__ gamma, const float* __restrict__ beta,
                                               const float* __restrict__ mean, const float* __restrict__ inverse,
                                               double* __restrict__ partial, i64 rows, int channels, i64 length, int after) {
    __shared__ float scratch[8][32];
    const int c = (blockIdx.x * 32 + threadIdx.x) * V;
    const bool there = c < channels;
    const i64 first = (i64)blockIdx.y * length;
    const i64 end = first + length < rows ? first + length : rows;
    Floats<V> a = {}, b = {}, m = {}, plain = {}, centred = {};
    if (there) {
        const Floats<V> s = load<V>(inverse + c);
        a = load<V>(gamma + c), b = load<V>(beta + c), m = load<V>(mean + c);
#pragma unroll
        for (int i = 0; i < V; i++) a.v[i] *= s.v[i];
    }
    for (i64 row = first + threadIdx.y; there && row < end; row += 8) {
        const Floats<V> values = load<V>(x + row * channels + c), gradients = load<V>(dy + row * channels + c);
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float d = values.v[i] - m.v[i];
            const float g = act_backward(after, a.v[i] * d + b.v[i], gradients.v[i]);
            plain.v[i] += g;
            centred.v[i] = fmaf(g, d, centred.v[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < V; i++) {
        const double p = block_column_sum(plain.v[i], scratch), q = block_column_sum(centred.v[i], scratch);
        if (there && threadIdx.y == 0) {
            double* out = partial + (i64)blockIdx.y * 2 * channels + c + i;
            out[0] = p;
            out[channels] = q;
        }
    }
}

// dx = a * (g - dbeta/n) - a * inverse * dgamma/n * (x - mean), a = gamma * inverse: differences first, so that little
// is lost where they are small, and nothing where n = 1.
template <int V>
__device__ __forceinline__ void data(const float* __restrict__ x, const float* __restrict__ dy, const float* __restrict__ gamma,
                                     const float* __restrict__ beta, const float* __restrict__ mean,
                                     const float* __restrict__ inverse, const float* __restrict__ dgamma,
                                     const float* __restrict__ dbeta, float* __restrict__ dx, i64 n, int channels, float rows,
                                     int after) {
    const i64 stride = (i64)gridDim.x * blockDim.x * V;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * V; i < n; i += stride) {
        i64 rest = i;
        const int c = (int)divmod(rest, channels);
        const Floats<V> values = load<V>(x + i), gradients = load<V>(dy + i), s = load<V>(inverse + c);
        const Floats<V> scale = load<V>(gamma + c), b = load<V>(beta + c), m = load<V>(mean + c);
        const Floats<V> p = load<V>(dbeta + c), q = load<V>(dgamma + c);
        Floats<V> out;
#pragma unroll
        for (int k = 0; k < V; k++) {
            const float a = scale.v[k] * s.v[k], d = values.v[k] - m.v[k];
            const float g = act_backward(after, a * d + b.v[k], gradients.v[k]);
            out.v[k] = a * (g - p.v[k] / rows) - a * s.v[k] * (q.v[k] / rows) * d;
        }
        store<V>(dx + i, out);
    }
}

// dx = gamma * inverse * g: inference, whose statistics are constants. x is read only to know where f is flat.
template <int V>
__device__ __forceinline__ void data_infer(const float* __restrict__ x, const float* __restrict__ dy,
                                           const float* __restrict__ gamma, const float* __restrict__ beta,
                                           const float* __restrict__ mean, const float* __restrict__ inverse,
                                           float* __restrict__ dx, i64 n, int channels, int after) {
    const i64 stride = (i64)gridDim.x * blockDim.x * V;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * V; i < n; i += stride) {
        i64 rest = i;
        const int c = (int)divmod(rest, channels);
        Floats<V> values = {}, m = {}, b = {};
        if (after != LINEAR) values = load<V>(x + i), m = load<V>(mean + c), b = load<V>(beta + c);
        const Floats<V> gradients = load<V>(dy + i), s = load<V>(inverse + c), scale = load<V>(gamma + c);
        Floats<V> out;
#pragma unroll
        for (int k = 0; k < V; k++) {
            const float a = scale.v[k] * s.v[k];
            out.v[k] = a * act_backward(after, a * (values.v[k] - m.v[k]) + b.v[k], gradients.v[k]);
        }
        store<V>(dx + i, out);
    }
}

}  // namespace

// Block: [32, 8]; grid: [channels / 32 (or 128), tiles]; partial [tiles, 2, channels]. The names' 4: channels are a
// multiple of four.
extern "C" __global__ void __launch_bounds__(256) batch_norm_tiles(
    const float* x, double* partial, i64 rows, int channels, i64 length) {
    tiles<1>(x, partial, rows, channels, length);
}
extern "C" __global__ void __launch_bounds__(256) batch_norm_tiles_4(
    const float* x, double* partial, i64 rows, int channels, i64 length) {
    tiles<4>(x, partial, rows, channels, length);
}

// A thread an element, or four.
extern "C" __global__ void batch_norm_apply(
    const float* x, const float* gamma, const float* beta, const float* mean, const float* inverse, float* y, i64 n, int
    channels, int after) {
    apply<1>(x, gamma, beta, mean, inverse, y, n, channels, after);
}
extern "C" __global__ void batch_norm_apply_4(
    const float* x, const float* gamma, const float* beta, const float* mean, const float* inverse, float* y, i64 n, int
    channels, int after) {
    apply<4>(x, gamma, beta, mean, inverse, y, n, channels, after);
}

// Block, grid and partial as in `batch_norm_tiles`.
extern "C" __global__ void __launch_bounds__(256) batch_norm_gradient_tiles(
    const float* x, const float* dy, const float* gamma, const float* beta, const float* mean, const float* inverse,
    double* partial, i64 rows, int channels, i64 length, int after) {
    gradient_tiles<1>(x, dy, gamma, beta, mean, inverse, partial, rows, channels, length, after);
}
extern "C" __global__ void __launch_bounds__(256) batch_norm_gradient_tiles_4(
    const float* x, const float* dy, const float* gamma, const float* beta, const float* mean, const float* inverse,
    double* partial, i64 rows, int channels, i64 length, int after) {
    gradient_tiles<4>(x, dy, gamma, beta, mean, inverse, partial, rows, channels, length, after);
}

// A thread an element, or four.
extern "C" __global__ void batch_norm_data(
    const float* x, const float* dy, const float* gamma, const float* beta, const float* mean, const float* inverse,
    const float* dgamma, const float* dbeta, float* dx, i64 n, int channels, float rows, int after) {
    data<1>(x, dy, gamma, beta, mean, inverse, dgamma, dbeta, dx, n, channels, rows, after);
}
extern "C" __global__ void batch_norm_data_4(
    const float* x, const float* dy, const float* gamma, const float* beta, const float* mean, const float* inverse,
    const float* dgamma, const float* dbeta, float* dx, i64 n, int channels, float rows, int after) {
    data<4>(x, dy, gamma, beta, mean, inverse, dgamma, dbeta, dx, n, channels, rows, after);
}

// A thread an element, or four.
extern "C" __global__ void batch_norm_data_infer(
    const float* x, const float* dy, const float* gamma, const float* beta, const float* mean, const float* inverse,
    float* dx, i64 n, int channels, int after) {
    data_infer<1>(x, dy, gamma, beta, mean, inverse, dx, n, channels, after);
}
extern "C" __global__ void batch_norm_data_infer_4(
    const float* x, const float* dy, const float* gamma, const float* beta, const float* mean, const float* inverse,
    float* dx, i64 n, int channels, int after) {
    data_infer<4>(x, dy, gamma, beta, mean, inverse, dx, n, channels, after);
}

// The tiles merged: mean, biased variance and 1/sqrt(variance + epsilon) of each channel. Two passes over the partial
// results: the mean of all, then M2 = the sum of M2 of a tile + n of it * (its mean - mean)^2. One thread a channel took
// 300 us of a layer's 430 on an H100 (1024 tiles, one after the other); 32 lanes share a channel's tiles instead.
// Block: [32, 32]; grid: [channels / 32].
extern "C" __global__ void __launch_bounds__(1024) batch_norm_statistics(
    const double* __restrict__ partial, float* __restrict__ mean, float* __restrict__ variance, float* __restrict__ inverse,
    i64 rows, int channels, i64 length, int count, double epsilon) {
    __shared__ double scratch[32][32];
    const int c = blockIdx.x * 32 + threadIdx.x, end = c < channels ? count : 0;
    const bool there = c < channels;
    double sum = 0.0;
#pragma unroll 8  // loads under way at a time: their latency binds
    for (int tile = threadIdx.y; tile < end; tile += 32) {
        sum += of_tile(tile, length, rows) * partial[(i64)tile * 2 * channels + c];
    }
    const double m = block_column_sum(sum, scratch) / (double)rows;
    double m2 = 0.0;
#pragma unroll 8
    for (int tile = threadIdx.y; tile < end; tile += 32) {
        const double* p = partial + (i64)tile * 2 * channels + c;
        const double off = p[0] - m;
        m2 += p[channels] + off * off * of_tile(tile, length, rows);
    }
    const double v = block_column_sum(m2, scratch) / (double)rows;
    if (there && threadIdx.y == 0) {
        mean[c] = (float)m;
        variance[c] = (float)v;
        inverse[c] = (float)(1.0 / sqrt(v + epsilon));
    }
}

// 1/sqrt(variance + epsilon), for inference.
extern "C" __global__ void batch_norm_inverse(const float* __restrict__ variance, float* __restrict__ inverse,
                                              int channels, double epsilon) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c < channels) inverse[c] = (float)(1.0 / sqrt((double)variance[c] + epsilon));
}

// dbeta = sum g, dgamma = inverse * sum g * (x - mean). Block and grid as in `batch_norm_statistics`.
extern "C" __global__ void __launch_bounds__(1024) batch_norm_gradients(
    const double* __restrict__ partial, const float* __restrict__ inverse, float* __restrict__ dgamma,
    float* __restrict__ dbeta, int count, int channels) {
    __shared__ double scratch[32][32];
    const int c = blockIdx.x * 32 + threadIdx.x, end = c < channels ? count : 0;
    const bool there = c < channels;
    double plain = 0.0, centred = 0.0;
#pragma unroll 8
    for (int tile = threadIdx.y; tile < end; tile += 32) {
        const double* p = partial + (i64)tile * 2 * channels + c;
        plain += p[0];
        centred += p[channels];
    }
    plain = block_column_sum(plain, scratch);
    centred = block_column_sum(centred, scratch);
    if (there && threadIdx.y == 0) {
        dbeta[c] = (float)plain;
        dgamma[c] = (float)(centred * (double)inverse[c]);
    }
}

// moving * momentum + statistic * (1 - momentum), of the variance Bessel's: times `factor`.
extern "C" __global__ void batch_norm_moving(const float* __restrict__ moving_mean, const float* __restrict__ mean,
                                             float* __restrict__ new_mean, const float* __restrict__ moving_variance,
                                             const float* __restrict__ variance, float* __restrict__ new_variance,
                                             int channels, double momentum, double factor) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    const double rest = 1.0 - momentum;
    new_mean[c] = (float)((double)moving_mean[c] * momentum + (double)mean[c] * rest);
    new_variance[c] = (float)((double)moving_variance[c] * momentum + (double)variance[c] * factor * rest);
}
