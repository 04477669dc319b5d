// Group normalisation: see src/ops/group_norm/mod.rs for the formulas.
//
// Bytes bind: forward reads x twice and writes y; the backward pass reads x and the gradient twice and writes
// dx. A block has a group of an image (statistics), or 32 channels of one (sums for the gradients): with few
// images and few groups multiprocessors idle in those two passes, and parts as in kernels/batch_norm.cu would
// be the next rung.

#include "vector.cuh"

namespace {

// The group, counted through all images, and the channel c of an element.
__device__ __forceinline__ i64 group_of(i64 i, i64 pixels, int channels, int of_group, int& c) {
    c = (int)divmod(i, channels);
    divmod(i, pixels);
    return i * (channels / of_group) + c / of_group;
}

// y = gamma * inverse * (x - mean) + beta: the difference first, so that a value that is its group's mean
// gives exactly beta.
template <int V>
__device__ __forceinline__ void apply(
    const float* __restrict__ x, const float* __restrict__ gamma, const float* __restrict__ beta,
    const float* __restrict__ mean, const float* __restrict__ inverse, float* __restrict__ y, i64 n,
    i64 pixels, int channels, int of_group) {
    const i64 stride = (i64)gridDim.x * blockDim.x * V;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * V; i < n; i += stride) {
        int c;
        const i64 group = group_of(i, pixels, channels, of_group, c);
        const Floats<V> a = load<V>(gamma + c), b = load<V>(beta + c);
        Floats<V> v = load<V>(x + i);
#pragma unroll
        for (int k = 0; k < V; k++) v.v[k] = a.v[k] * inverse[group] * (v.v[k] - mean[group]) + b.v[k];
        store<V>(y + i, v);
    }
}

// dx = (gamma * inverse * g - of_mean) - of_centred * (x - mean)
template <int V>
__device__ __forceinline__ void data(
    const float* __restrict__ x, const float* __restrict__ dy, const float* __restrict__ gamma,
    const float* __restrict__ mean, const float* __restrict__ inverse, const float* __restrict__ of_mean,
    const float* __restrict__ of_centred, float* __restrict__ dx, i64 n, i64 pixels, int channels,
    int of_group) {
    const i64 stride = (i64)gridDim.x * blockDim.x * V;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * V; i < n; i += stride) {
        int c;
        const i64 group = group_of(i, pixels, channels, of_group, c);
        const Floats<V> a = load<V>(gamma + c), g = load<V>(dy + i);
        Floats<V> v = load<V>(x + i);
#pragma unroll
        for (int k = 0; k < V; k++) {
            v.v[k] = (a.v[k] * inverse[group] * g.v[k] - of_mean[group]) -
                     of_centred[group] * (v.v[k] - mean[group]);
        }
        store<V>(dx + i, v);
    }
}

}  // namespace

// A block a group of an image: mean, then 1/sqrt(biased variance + epsilon), a second pass. Block: 256; grid:
// [groups of all images].
extern "C" __global__ void __launch_bounds__(256) group_norm_statistics(
    const float* __restrict__ x, float* __restrict__ mean, float* __restrict__ inverse, i64 pixels,
    int channels, int of_group, double epsilon) {
    __shared__ double scratch[32];
    const int groups = channels / of_group;
    x += (blockIdx.x / groups * pixels) * channels + blockIdx.x % groups * of_group;
    const i64 n = pixels * of_group;
    double sum = 0.0, m2 = 0.0;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
        i64 pixel = i;
        const i64 c = divmod(pixel, of_group);
        sum += (double)x[pixel * channels + c];
    }
    const double m = block_sum(sum, scratch) / (double)n;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
        i64 pixel = i;
        const i64 c = divmod(pixel, of_group);
        const double d = (double)x[pixel * channels + c] - m;
        m2 += d * d;
    }
    const double v = block_sum(m2, scratch) / (double)n;
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = (float)m;
        inverse[blockIdx.x] = (float)(1.0 / sqrt(v + epsilon));
    }
}

// A thread an element, or four channels of one where groups are a multiple of it.
extern "C" __global__ void group_norm_apply(
    const float* x, const float* gamma, const float* beta, const float* mean, const float* inverse, float* y,
    i64 n, i64 pixels, int channels, int of_group) {
    apply<1>(x, gamma, beta, mean, inverse, y, n, pixels, channels, of_group);
}
extern "C" __global__ void group_norm_apply_4(
    const float* x, const float* gamma, const float* beta, const float* mean, const float* inverse, float* y,
    i64 n, i64 pixels, int channels, int of_group) {
    apply<4>(x, gamma, beta, mean, inverse, y, n, pixels, channels, of_group);
}

// Sums of g and of g * (x - mean) over the pixels, of each channel of each image. Block: [32, 8]; grid:
// [channels / 32, 1, images].
extern "C" __global__ void __launch_bounds__(256) group_norm_sums(
    const float* __restrict__ x, const float* __restrict__ dy, const float* __restrict__ mean,
    float* __restrict__ plain, float* __restrict__ centred, i64 pixels, int channels, int of_group) {
    __shared__ double scratch[2][8][32];
    const int c = blockIdx.x * 32 + threadIdx.x;
    const i64 image = blockIdx.z;
    double p = 0.0, q = 0.0;
    if (c < channels) {
        const double m = (double)mean[image * (channels / of_group) + c / of_group];
        const i64 first = image * pixels * channels + c;
        for (i64 pixel = threadIdx.y; pixel < pixels; pixel += 8) {
            const double g = (double)dy[first + pixel * channels];
            p += g;
            q += g * ((double)x[first + pixel * channels] - m);
        }
    }
    scratch[0][threadIdx.y][threadIdx.x] = p;
    scratch[1][threadIdx.y][threadIdx.x] = q;
    __syncthreads();
    if (threadIdx.y == 0 && c < channels) {
        for (int row = 1; row < 8; row++)
            p += scratch[0][row][threadIdx.x], q += scratch[1][row][threadIdx.x];
        plain[image * channels + c] = (float)p;
        centred[image * channels + c] = (float)q;
    }
}

// dbeta = sum of g, dgamma = sum of inverse * g * (x - mean), over images: a thread a channel.
extern "C" __global__ void group_norm_gradients(
    const float* __restrict__ plain, const float* __restrict__ centred, const float* __restrict__ inverse,
    float* __restrict__ dgamma, float* __restrict__ dbeta, i64 images, int channels, int of_group) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 c = (i64)blockIdx.x * blockDim.x + threadIdx.x; c < channels; c += stride) {
        double p = 0.0, q = 0.0;
        for (i64 image = 0; image < images; image++) {
            p += (double)plain[image * channels + c];
            q += (double)centred[image * channels + c] *
                 (double)inverse[image * (channels / of_group) + c / of_group];
        }
        dbeta[c] = (float)p;
        dgamma[c] = (float)q;
    }
}

// With h = gamma * g: inverse * the mean of h, and inverse^2 * the mean of h * (x - mean) * inverse. A thread
// a group of an image.
extern "C" __global__ void group_norm_means(
    const float* __restrict__ plain, const float* __restrict__ centred, const float* __restrict__ gamma,
    const float* __restrict__ inverse, float* __restrict__ of_mean, float* __restrict__ of_centred, i64 count,
    i64 pixels, int groups, int of_group) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        i64 image = i;
        const i64 group = divmod(image, groups);
        const double n = (double)pixels * of_group, s = (double)inverse[i];
        double p = 0.0, q = 0.0;
        for (int k = 0; k < of_group; k++) {
            const i64 c = group * of_group + k, at = image * groups * of_group + c;
            p += (double)gamma[c] * (double)plain[at];
            q += (double)gamma[c] * (double)centred[at];
        }
        of_mean[i] = (float)(s * p / n);
        of_centred[i] = (float)(s * s * s * q / n);
    }
}

// A thread an element, or four channels of one where groups are a multiple of it.
extern "C" __global__ void group_norm_data(
    const float* x, const float* dy, const float* gamma, const float* mean, const float* inverse,
    const float* of_mean, const float* of_centred, float* dx, i64 n, i64 pixels, int channels, int of_group) {
    data<1>(x, dy, gamma, mean, inverse, of_mean, of_centred, dx, n, pixels, channels, of_group);
}
extern "C" __global__ void group_norm_data_4(
    const float* x, const float* dy, const float* gamma, const float* mean, const float* inverse,
    const float* of_mean, const float* of_centred, float* dx, i64 n, i64 pixels, int channels, int of_group) {
    data<4>(x, dy, gamma, mean, inverse, of_mean, of_centred, dx, n, pixels, channels, of_group);
}
