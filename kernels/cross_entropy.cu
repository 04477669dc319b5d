// Cross-entropy losses: see src/ops/cross_entropy for the formulas. A thread a row writes the row's weighted
// loss and, where it is wanted, the row's gradient, scaled; `reduce` adds the losses. Nothing is saved but that
// gradient: the softmax is computed twice instead of stored.
//
// Bytes bind: with 21 classes a pixel 84 bytes are read and 84 written.

#include "short_rows.cuh"

// (1 - p)^gamma * loss with loss = -ln p, and its derivative by the loss.
struct Focused {
    float value, slope;
};

__device__ __forceinline__ Focused focused(float loss, float gamma) {
    const float p = expf(-loss);
    // Of a certain prediction nothing is left; the logarithm has to stay finite.
    const float rest = 1.0f - p > 1e-30f ? 1.0f - p : 1e-30f;
    const float lower = expf(logf(rest) * (gamma - 1.0f)), factor = lower * rest;
    Focused f = {factor * loss, factor + gamma * lower * p * loss};
    return f;
}

// The largest of a row, and the sum of exp(z - largest).
struct Exponentials {
    float largest, total;
};

__device__ __forceinline__ Exponentials exponentials(const float* z, int columns) {
    Exponentials e = {z[0], 0.0f};
    for (int j = 1; j < columns; j++) e.largest = z[j] > e.largest ? z[j] : e.largest;
    for (int j = 0; j < columns; j++) e.total += expf(z[j] - e.largest);
    return e;
}

// Labels one an element, sigmoid. gamma 0: no focal loss. `weights` and `gradient` may be null.
extern "C" __global__ void cross_entropy_binary(const float* __restrict__ logits, const float* __restrict__ labels,
                                                const float* __restrict__ weights, float* __restrict__ losses,
                                                float* __restrict__ gradient, i64 rows, int columns, float gamma) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 row = (i64)blockIdx.x * blockDim.x + threadIdx.x; row < rows; row += stride) {
        const float weight = weights == nullptr ? 1.0f : weights[row];
        const float mean = 1.0f / (float)columns, scale = weight / (float)rows;
        float sum = 0.0f;
        for (i64 i = row * columns; i < (row + 1) * columns; i++) {
            const float z = logits[i], y = labels[i], e = expf(-fabsf(z));
            float loss = (z < 0.0f ? 0.0f : z) - z * y + logf(1.0f + e);
            float d = (z < 0.0f ? e / (1.0f + e) : 1.0f / (1.0f + e)) - y;
            if (gamma > 0.0f) {
                const Focused f = focused(loss, gamma);
                loss = f.value;
                d *= f.slope;
            }
            sum += loss;
            if (gradient != nullptr) gradient[i] = d * mean * scale;
        }
        losses[row] = weight * (sum * mean);
    }
}

// Labels one an element, softmax. keras: the gradient is p - y whatever the labels' sum.
extern "C" __global__ void cross_entropy_categorical(const float* __restrict__ logits,
                                                     const float* __restrict__ labels,
                                                     const float* __restrict__ weights, float* __restrict__ losses,
                                                     float* __restrict__ gradient, i64 rows, int columns, int keras) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 row = (i64)blockIdx.x * blockDim.x + threadIdx.x; row < rows; row += stride) {
        const float weight = weights == nullptr ? 1.0f : weights[row], scale = weight / (float)rows;
        const float *z = logits + row * columns, *y = labels + row * columns;
        const Exponentials e = exponentials(z, columns);
        const float log_total = logf(e.total);
        float loss = 0.0f, sum = 0.0f;
        for (int j = 0; j < columns; j++) {
            loss += y[j] * (log_total - (z[j] - e.largest));
            sum += y[j];
        }
        losses[row] = weight * loss;
        if (gradient == nullptr) continue;
        const float share = keras ? 1.0f : sum;
        for (int j = 0; j < columns; j++) {
            gradient[row * columns + j] = (share * (expf(z[j] - e.largest) / e.total) - y[j]) * scale;
        }
    }
}

// One label a row, as floats or bytes, truncated toward zero. A row labelled `ignore` (if `ignores`) has no
// loss; one whose label is no class has NaN, which is how the CPU learns of it without waiting.
// Dynamic shared memory: ROWS rows, if `staged`.
extern "C" __global__ void __launch_bounds__(256) cross_entropy_sparse(
    const float* logits, const void* __restrict__ labels,
                                                                       const float* __restrict__ weights,
                                                                       float* __restrict__ losses, float* gradient, i64 rows,
                                                                       int columns, int bytes, int ignores, i64 ignore,
                                                                       float gamma, int staged) {
    DYNAMIC_SHARED(float, tile);
    each_row(staged ? tile : nullptr, logits, gradient, rows, columns, [=](i64 row, const float* z, float* d) {
        const float weight = weights == nullptr ? 1.0f : weights[row], scale = weight / (float)rows;
        const float label = bytes ? (float)((const unsigned char*)labels)[row] : ((const float*)labels)[row];
        const bool ignored = ignores && truncf(label) == (float)ignore;
        if (ignored || !(label > -1.0f && label < (float)columns)) {
            const float nothing = ignored ? 0.0f : nanf("");
            losses[row] = nothing;
            for (int j = 0; d != nullptr && j < columns; j++) d[j] = nothing;
            return;
        }
        const int k = (int)label;
        const Exponentials e = exponentials(z, columns);
        float loss = logf(e.total) - (z[k] - e.largest), slope = 1.0f;
        if (gamma > 0.0f) {
            const Focused f = focused(loss, gamma);
            loss = f.value;
            slope = f.slope;
        }
        losses[row] = weight * loss;
        for (int j = 0; d != nullptr && j < columns; j++) {
            d[j] = (expf(z[j] - e.largest) / e.total - (j == k ? 1.0f : 0.0f)) * slope * scale;
        }
    });
}

// p within [epsilon, 1 - epsilon]; `inside` where it was.
__device__ __forceinline__ float clipped(float p, bool* inside) {
    const float low = 1e-7f, high = 1.0f - 1e-7f;
    *inside = p >= low && p <= high;
    return p < low ? low : p > high ? high : p;
}

// Of probabilities: binary.
extern "C" __global__ void cross_entropy_raw_binary(const float* __restrict__ probabilities,
                                                    const float* __restrict__ labels,
                                                    const float* __restrict__ weights, float* __restrict__ losses,
                                                    float* __restrict__ gradient, i64 rows, int columns) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 row = (i64)blockIdx.x * blockDim.x + threadIdx.x; row < rows; row += stride) {
        const float weight = weights == nullptr ? 1.0f : weights[row];
        const float mean = 1.0f / (float)columns, scale = weight / (float)rows;
        float sum = 0.0f;
        for (i64 i = row * columns; i < (row + 1) * columns; i++) {
            bool inside;
            const float y = labels[i], c = clipped(probabilities[i], &inside);
            const float yes = c + 1e-7f, no = 1.0f - c + 1e-7f;
            sum -= y * logf(yes) + (1.0f - y) * logf(no);
            if (gradient != nullptr) gradient[i] = inside ? ((1.0f - y) / no - y / yes) * mean * scale : 0.0f;
        }
        losses[row] = weight * (sum * mean);
    }
}

// Of probabilities, divided by their sum: categorical.
extern "C" __global__ void cross_entropy_raw_categorical(const float* __restrict__ probabilities,
                                                         const float* __restrict__ labels,
                                                         const float* __restrict__ weights,
                                                         float* __restrict__ losses, float* __restrict__ gradient,
                                                         i64 rows, int columns) {
    const i64 stride = (i64)gridDim.x * blockDim.x;
    for (i64 row = (i64)blockIdx.x * blockDim.x + threadIdx.x; row < rows; row += stride) {
        const float weight = weights == nullptr ? 1.0f : weights[row], scale = weight / (float)rows;
        const float *p = probabilities + row * columns, *y = labels + row * columns;
        float total = 0.0f, loss = 0.0f, dot = 0.0f;
        for (int j = 0; j < columns; j++) total += p[j];
        bool inside;
        for (int j = 0; j < columns; j++) {
            const float q = p[j] / total, c = clipped(q, &inside);
            loss -= y[j] * logf(c);
            if (inside) dot += y[j] / c * q;
        }
        losses[row] = weight * loss;
        for (int j = 0; gradient != nullptr && j < columns; j++) {
            const float c = clipped(p[j] / total, &inside);
            gradient[row * columns + j] = (dot - (inside ? y[j] / c : 0.0f)) / total * scale;
        }
    }
}
