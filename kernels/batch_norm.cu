// Batch normalisation: see src/ops/batch_norm/mod.rs for the formulas.
//
// Bytes bind. Training reads x three times (twice for the statistics, the second time from L2, once to
// normalise) and writes y: 12 bytes from memory an element; backward reads x and g twice and writes dx: 20.
// Taking the statistics in the kernel that makes x saves the first read; that is a later rung.
//
// E[x^2] - m^2 would cancel in f32. Each tile of rows has its own mean and M2 = sum (x - m)^2; tiles are
// merged in their order, in double (Chan, Golub and LeVeque, 1979). No hardware has run these yet.

#include "common.cuh"

// What the 8 lanes of a channel have, added in their order; the same for all of them. A barrier before and
// after: scratch can be used again.
__device__ __forceinline__ double lanes_sum(double value, double (&scratch)[8][32]) {
    scratch[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    double sum = 0.0;
    for (int lane = 0; lane < 8; lane++) sum += scratch[lane][threadIdx.x];
    __syncthreads();
    return sum;
}

// Mean and M2 of a tile of `length` rows. Block: 32 channels by 8 lanes; grid: [channels / 32, tiles];
// partial [tiles, 2, channels].
extern "C" __global__ void __launch_bounds__(256) batch_norm_tiles(const float* __restrict__ x,
                                                                   double* __restrict__ partial, i64 rows,
                                                                   int channels, i64 length) {
    __shared__ double scratch[8][32];
    const int c = blockIdx.x * 32 + threadIdx.x;
    const bool there = c < channels;
    const i64 first = (i64)blockIdx.y * length;
    const i64 end = first + length < rows ? first + length : rows;
    double sum = 0.0;
    for (i64 row = first + threadIdx.y; there && row < end; row += 8) sum += (double)x[row * channels + c];
    const double mean = lanes_sum(sum, scratch) / (double)(end - first);
    double m2 = 0.0;
    for (i64 row = first + threadIdx.y; there && row < end; row += 8) {
        const double d = (double)x[row * channels + c] - mean;
        m2 += d * d;
    }
    m2 = lanes_sum(m2, scratch);
    if (there && threadIdx.y == 0) {
        double* out = partial + (i64)blockIdx.y * 2 * channels + c;
        out[0] = mean;
        out[channels] = m2;
    }
}

// The tiles merged: mean, biased variance and 1/sqrt(variance + epsilon) of each channel.
extern "C" __global__ void batch_norm_statistics(const double* __restrict__ partial, float* __restrict__ mean,
                                                 float* __restrict__ variance, float* __restrict__ inverse,
                                                 i64 rows, int channels, i64 length, double epsilon) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    double n = 0.0, m = 0.0, m2 = 0.0;
    for (i64 first = 0; first < rows; first += length, partial += 2 * channels) {
        const double count = (double)(first + length < rows ? length : rows - first), total = n + count;
        const double delta = partial[c] - m;
        m += delta * count / total;
        m2 += partial[channels + c] + delta * delta * n * count / total;
        n = total;
    }
    const double v = m2 / n;
    mean[c] = (float)m;
    variance[c] = (float)v;
    inverse[c] = (float)(1.0 / sqrt(v + epsilon));
}

// 1/sqrt(variance + epsilon), for inference.
extern "C" __global__ void batch_norm_inverse(const float* __restrict__ variance, float* __restrict__ inverse,
                                              int channels, double epsilon) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c < channels) inverse[c] = (float)(1.0 / sqrt((double)variance[c] + epsilon));
}

// y = gamma * inverse * (x - mean) + beta: the difference first, so that a value that is its channel's mean
// gives exactly beta.
extern "C" __global__ void batch_norm_apply(const float* __restrict__ x, const float* __restrict__ gamma,
                                            const float* __restrict__ beta, const float* __restrict__ mean,
                                            const float* __restrict__ inverse, float* __restrict__ y, i64 n,
                                            int channels) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const int c = (int)(i % channels);
        y[i] = gamma[c] * inverse[c] * (x[i] - mean[c]) + beta[c];
    }
}

// Sums of g and of g * (x - mean) over a tile. Block, grid and partial as in `batch_norm_tiles`.
extern "C" __global__ void __launch_bounds__(256) batch_norm_gradient_tiles(
    const float* __restrict__ x, const float* __restrict__ dy, const float* __restrict__ mean,
    double* __restrict__ partial, i64 rows, int channels, i64 length) {
    __shared__ double scratch[8][32];
    const int c = blockIdx.x * 32 + threadIdx.x;
    const bool there = c < channels;
    const i64 first = (i64)blockIdx.y * length;
    const i64 end = first + length < rows ? first + length : rows;
    const float m = there ? mean[c] : 0.0f;
    double plain = 0.0, centred = 0.0;
    for (i64 row = first + threadIdx.y; there && row < end; row += 8) {
        const float g = dy[row * channels + c];
        plain += (double)g;
        centred += (double)(g * (x[row * channels + c] - m));
    }
    plain = lanes_sum(plain, scratch);
    centred = lanes_sum(centred, scratch);
    if (there && threadIdx.y == 0) {
        double* out = partial + (i64)blockIdx.y * 2 * channels + c;
        out[0] = plain;
        out[channels] = centred;
    }
}

// dbeta = sum g, dgamma = inverse * sum g * (x - mean).
extern "C" __global__ void batch_norm_gradients(const double* __restrict__ partial,
                                                const float* __restrict__ inverse, float* __restrict__ dgamma,
                                                float* __restrict__ dbeta, int tiles, int channels) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    double plain = 0.0, centred = 0.0;
    for (int tile = 0; tile < tiles; tile++, partial += 2 * channels) {
        plain += partial[c];
        centred += partial[channels + c];
    }
    dbeta[c] = (float)plain;
    dgamma[c] = (float)(centred * (double)inverse[c]);
}

// dx = a * (g - dbeta/n) - a * inverse * dgamma/n * (x - mean), a = gamma * inverse: differences first, so
// that little is lost where they are small, and nothing where n = 1.
extern "C" __global__ void batch_norm_data(const float* __restrict__ x, const float* __restrict__ dy,
                                           const float* __restrict__ gamma, const float* __restrict__ mean,
                                           const float* __restrict__ inverse, const float* __restrict__ dgamma,
                                           const float* __restrict__ dbeta, float* __restrict__ dx, i64 n,
                                           int channels, float rows) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const int c = (int)(i % channels);
        const float a = gamma[c] * inverse[c];
        dx[i] = a * (dy[i] - dbeta[c] / rows) - a * inverse[c] * (dgamma[c] / rows) * (x[i] - mean[c]);
    }
}

// dx = gamma * inverse * g: inference, whose statistics are constants.
extern "C" __global__ void batch_norm_data_infer(const float* __restrict__ dy, const float* __restrict__ gamma,
                                                 const float* __restrict__ inverse, float* __restrict__ dx, i64 n,
                                                 int channels) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        const int c = (int)(i % channels);
        dx[i] = gamma[c] * inverse[c] * dy[i];
    }
}

// moving * momentum + statistic * factor * (1 - momentum); factor is Bessel's for a variance.
extern "C" __global__ void batch_norm_moving(const float* __restrict__ moving,
                                             const float* __restrict__ statistic, float* __restrict__ out,
                                             int channels, double momentum, double factor) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    out[c] = (float)((double)moving[c] * momentum + (double)statistic[c] * factor * (1.0 - momentum));
}
