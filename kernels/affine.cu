// Affine image warp: see src/ops/affine.rs. Coordinates, weights and sums in double, no fused multiply-adds:
// the CPU's values to the bit.
//
// Bytes bind: 4 to write and about 4 to read an element.
//
// options: --fmad=false

#include "common.cuh"

// One axis of where an output pixel looks: two neighbours, and how far it is to the second.
struct Along {
    int first, second;
    double t;
};

__device__ __forceinline__ Along along(const double* m, int row, int column, int size) {
    const double last = (double)(size - 1);
    double q = m[0] * (double)row + m[1] * (double)column + m[2];
    q = q < 0.0 ? 0.0 : q > last ? last : q;
    Along a;
    a.first = (int)q;
    a.second = a.first + 1 < size ? a.first + 1 : size - 1;
    a.t = q - (double)a.first;
    return a;
}

// A thread an output. `matrices`: six numbers a sample, [[rr, rc, r], [cr, cc, c]].
extern "C" __global__ void affine_forward(const float* __restrict__ x, const double* __restrict__ matrices,
                                          float* __restrict__ y, i64 n, int height, int width, int channels) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        i64 sample = i;
        const int c = (int)divmod(sample, channels), column = (int)divmod(sample, width), row = (int)divmod(sample, height);
        const double* m = matrices + sample * 6;
        const Along r = along(m, row, column, height), k = along(m + 3, row, column, width);
        const float* picture = x + sample * height * width * channels + c;
        const double a = (double)picture[((i64)r.first * width + k.first) * channels];
        const double b = (double)picture[((i64)r.first * width + k.second) * channels];
        const double d = (double)picture[((i64)r.second * width + k.first) * channels];
        const double e = (double)picture[((i64)r.second * width + k.second) * channels];
        y[i] = (float)(a * ((1.0 - r.t) * (1.0 - k.t)) + b * ((1.0 - r.t) * k.t) + d * (r.t * (1.0 - k.t)) +
                       e * (r.t * k.t));
    }
}

// The transpose. Where a matrix sends pixels is anybody's guess, so a thread takes one channel of one sample
// and adds every output to its four neighbours, in the order of the pixels: the CPU's order, and no two
// threads write to one place. Slow, and nothing in training asks for it. `sums`: as many zeros as dy has.
extern "C" __global__ void affine_backward(const float* __restrict__ dy, const double* __restrict__ matrices,
                                           double* __restrict__ sums, float* __restrict__ dx, i64 n, int height,
                                           int width, int channels) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    const i64 pixels = (i64)height * width;
    if (i >= n / pixels) return;
    const i64 sample = i / channels, start = sample * pixels * channels + i % channels;
    const double* m = matrices + sample * 6;
    for (i64 pixel = 0; pixel < pixels; pixel++) sums[start + pixel * channels] = 0.0;
    for (i64 pixel = 0; pixel < pixels; pixel++) {
        const int row = (int)(pixel / width), column = (int)(pixel % width);
        const Along r = along(m, row, column, height), k = along(m + 3, row, column, width);
        const double g = (double)dy[start + pixel * channels];
        sums[start + ((i64)r.first * width + k.first) * channels] += g * ((1.0 - r.t) * (1.0 - k.t));
        sums[start + ((i64)r.first * width + k.second) * channels] += g * ((1.0 - r.t) * k.t);
        sums[start + ((i64)r.second * width + k.first) * channels] += g * (r.t * (1.0 - k.t));
        sums[start + ((i64)r.second * width + k.second) * channels] += g * (r.t * k.t);
    }
    for (i64 pixel = 0; pixel < pixels; pixel++) {
        dx[start + pixel * channels] = (float)sums[start + pixel * channels];
    }
}

// Ways to prepare pixels, as src/data/image.rs numbers them.
enum Preprocess { AS_IT_IS, UNIT, SYMMETRIC, CAFFE, TORCH };

// What the CPU computes, to the bit: see `Preprocess::apply`.
__device__ __forceinline__ float prepared(int how, int channel, float v) {
    switch (how) {
    case UNIT: return v * (1.0f / 255.0f);
    case SYMMETRIC: return v / 127.5f - 1.0f;
    case CAFFE: return v - (channel == 0 ? 103.939f : channel == 1 ? 116.779f : 123.68f);
    case TORCH: return (v / 255.0f - (channel == 0 ? 0.485f : channel == 1 ? 0.456f : 0.406f)) /
                       (channel == 0 ? 0.229f : channel == 1 ? 0.224f : 0.225f);
    default: return v;
    }
}

// Augmentation in one pass: pictures of three channels warped, and prepared for their network. A thread an output
// value.
extern "C" __global__ void affine_augment(const float* __restrict__ x, const double* __restrict__ matrices,
                                          float* __restrict__ y, i64 n, int height, int width, int how) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        i64 sample = i;
        const int c = (int)divmod(sample, 3), column = (int)divmod(sample, width), row = (int)divmod(sample, height);
        const double* m = matrices + sample * 6;
        const Along r = along(m, row, column, height), k = along(m + 3, row, column, width);
        // Caffe's are blue, green, red.
        const float* picture = x + sample * height * width * 3 + (how == CAFFE ? 2 - c : c);
        const double a = (double)picture[((i64)r.first * width + k.first) * 3];
        const double b = (double)picture[((i64)r.first * width + k.second) * 3];
        const double d = (double)picture[((i64)r.second * width + k.first) * 3];
        const double e = (double)picture[((i64)r.second * width + k.second) * 3];
        const double v = a * ((1.0 - r.t) * (1.0 - k.t)) + b * ((1.0 - r.t) * k.t) + d * (r.t * (1.0 - k.t)) + e * (r.t * k.t);
        y[i] = prepared(how, c, (float)v);
    }
}

// Masks under the same matrices: the nearest class, since classes cannot be blended.
extern "C" __global__ void affine_nearest(const float* __restrict__ x, const double* __restrict__ matrices,
                                          float* __restrict__ y, i64 n, int height, int width) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        i64 sample = i;
        const int column = (int)divmod(sample, width), row = (int)divmod(sample, height);
        const double* m = matrices + sample * 6;
        const Along r = along(m, row, column, height), k = along(m + 3, row, column, width);
        const int iy = r.t >= 0.5 ? r.second : r.first, ix = k.t >= 0.5 ? k.second : k.first;
        y[i] = x[(sample * height + iy) * width + ix];
    }
}
