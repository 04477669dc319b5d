// Optimizers: see src/optimizers/mod.rs for the rules. One launch changes up to 64 parameters, wherever they
// are: a network's hundred small vectors would otherwise cost a launch each, some 5 us for a microsecond of work. Each
// parameter, its gradient and its state are read once, and what changes is written once.
//
// Bytes bind: 12 an element for SGD, 28 for Adam.

#include "common.cuh"

static const int MOST = 64;          // parameters a launch: what fits into its 4 KiB of arguments
static const int SHARE = 256 * 16;   // elements a block

// As src/optimizers/cuda.rs has it. Blocks first_block[t] to first_block[t + 1] are parameter t's.
struct Parameters {
    float* w[MOST];
    const float* g[MOST];
    float* first[MOST];   // state, as the rule has it
    float* second[MOST];
    i64 length[MOST];
    int first_block[MOST + 1];
    int count;
};

// What changes from step to step is in memory, where a captured graph finds it; else it comes by value.
struct Changing {
    float rate;
    int padding;
    const float* rate_at;   // or null
    const float* scale_at;  // of all gradients (clipping), or null
};

namespace {

// The block's parameter, the last one that begins at it or before.
__device__ __forceinline__ int parameter_of(const Parameters& p) {
    int low = 0, high = p.count - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (p.first_block[middle] <= (int)blockIdx.x) low = middle;
        else high = middle - 1;
    }
    return low;
}

// Calls update(w, g, first, second) on every element of the block's share; the state may be null.
template <class Update> __device__ __forceinline__ void each(const Parameters& p, const float* scale_at, Update update) {
    const int t = parameter_of(p);
    const float scale = scale_at == nullptr ? 1.0f : *scale_at;
    const i64 from = (i64)((int)blockIdx.x - p.first_block[t]) * SHARE;
    const i64 end = from + SHARE < p.length[t] ? from + SHARE : p.length[t];
    float *w = p.w[t], *first = p.first[t], *second = p.second[t];
    const float* g = p.g[t];
    for (i64 i = from + threadIdx.x; i < end; i += 256) {
        float value = w[i], a = first == nullptr ? 0.0f : first[i], b = second == nullptr ? 0.0f : second[i];
        update(value, scale * g[i], a, b);
        w[i] = value;
        if (first != nullptr) first[i] = a;
        if (second != nullptr) second[i] = b;
    }
}

__device__ __forceinline__ float rate_of(const Changing& now) { return now.rate_at == nullptr ? now.rate : *now.rate_at; }

}  // namespace

// momentum 0: no state.
extern "C" __global__ void __launch_bounds__(256) optimizers_sgd(
    const __grid_constant__ Parameters p, Changing now, float momentum) {
    const float rate = rate_of(now);
    each(p, now.scale_at, [=](float& w, float g, float& m, float&) {
        m = momentum * m - rate * g;
        w += m;
    });
}

// epsilon is inside the root or outside it; the other of the two is 0. State: v and, with momentum, m.
extern "C" __global__ void __launch_bounds__(256) optimizers_rmsprop(
    const __grid_constant__ Parameters p, Changing now, float rho,
                                                                     float left, float momentum, float inside, float outside) {
    const float rate = rate_of(now);
    each(p, now.scale_at, [=](float& w, float g, float& v, float& m) {
        v = rho * v + left * g * g;
        m = momentum * m + rate * g / (sqrtf(v + inside) + outside);
        w -= m;
    });
}

// The rate is corrected for the step already; first = 1 - beta_1, second = 1 - beta_2. State: m and v.
extern "C" __global__ void __launch_bounds__(256) optimizers_adam(
    const __grid_constant__ Parameters p, Changing now, float first,
                                                                  float second, float epsilon) {
    const float rate = rate_of(now);
    each(p, now.scale_at, [=](float& w, float g, float& m, float& v) {
        m += first * (g - m);
        v += second * (g * g - v);
        w -= rate * m / (sqrtf(v) + epsilon);
    });
}

// Clipping, first stage: the sum of the squares of each block's share. partial: a double a block of all launches, of
// which `before` were before this one.
extern "C" __global__ void __launch_bounds__(256) optimizers_squares(
    const __grid_constant__ Parameters p, double* partial,
                                                                     i64 before) {
    __shared__ double scratch[32];
    const int t = parameter_of(p);
    const i64 from = (i64)((int)blockIdx.x - p.first_block[t]) * SHARE;
    const i64 end = from + SHARE < p.length[t] ? from + SHARE : p.length[t];
    double sum = 0.0;
    for (i64 i = from + threadIdx.x; i < end; i += 256) sum += (double)p.g[t][i] * (double)p.g[t][i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[before + blockIdx.x] = sum;
}

// Second stage, one block: scale = most / norm where the norm is above `most`, else 1; a norm that is no number goes
// through, for the loss to show.
extern "C" __global__ void __launch_bounds__(256) optimizers_clip(
    const double* __restrict__ partial, float* __restrict__ scale,
                                                                  int count, float most) {
    __shared__ double scratch[32];
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += 256) sum += partial[i];
    const double norm = sqrt(block_sum(sum, scratch));
    if (threadIdx.x == 0) *scale = norm > (double)most ? (float)((double)most / norm) : 1.0f;
}
