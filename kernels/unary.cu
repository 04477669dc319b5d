// Functions of one number, element by element: see src/ops/unary.rs, and the operators for formulas and
// gradients.
//
// Bytes bind: 8 a forward element, 12 a backward one. On an H100 (3.35 TB/s) a pass over 10 M elements is 24
// us at best.

#include "vector.cuh"

// A line a function: its number in src/ops; y from x; dy/dx from s, which is x or y, whichever the operator
// saves. p and q are the function's constants. Comparisons, not fminf and fmaxf: a NaN stays a NaN.
// clang-format off
#define FUNCTIONS(FUNCTION) \
    FUNCTION(1, /* relu */ act_forward(RELU, x), act_backward(RELU, s, 1.0f)) \
    FUNCTION(2, /* relu6 */ act_forward(RELU6, x), act_backward(RELU6, s, 1.0f)) \
    FUNCTION(3, /* sigmoid */ 1.0f / (1.0f + expf(-x)), s * (1.0f - s)) \
    FUNCTION(4, /* tanh */ tanhf(x), 1.0f - s * s) \
    FUNCTION(5, /* scale */ x * p, p) \
    FUNCTION(6, /* clip */ x < p ? p : x > q ? q : x, s >= p && s <= q ? 1.0f : 0.0f) \
    FUNCTION(7, /* sign */ sign(x), 0.0f) \
    FUNCTION(8, /* exp */ expf(x), s) \
    FUNCTION(9, /* ln */ logf(x), 1.0f / s) \
    FUNCTION(10, /* sqrt */ sqrtf(x), 0.5f / s) \
    FUNCTION(11, /* square */ x * x, s + s) \
    FUNCTION(12, /* recip */ 1.0f / x, -(s * s)) \
    FUNCTION(13, /* abs */ fabsf(x), sign(s)) \
    FUNCTION(14, /* neg */ -x, -1.0f) \
    FUNCTION(15, /* leaky_relu */ x > 0.0f ? x : x * p, s > 0.0f ? 1.0f : p) \

// clang-format on

namespace {

__device__ __forceinline__ float sign(float v) {
    if (v > 0.0f) return 1.0f;
    return v < 0.0f ? -1.0f : v * 0.0f;
}

// y[i] = f(x[i]), four at a time; y may be x.
template <class F> __device__ __forceinline__ void forward(const float* x, float* y, i64 n, F f) {
    const i64 first = (i64)blockIdx.x * blockDim.x + threadIdx.x, stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = 4 * first; i + 4 <= n; i += 4 * stride) {
        Floats<4> v = load<4>(x + i);
#pragma unroll
        for (int k = 0; k < 4; k++) v.v[k] = f(v.v[k]);
        store<4>(y + i, v);
    }
    const i64 rest = n / 4 * 4 + first;
    if (rest < n) y[rest] = f(x[rest]);
}

// d[i] = g[i] * slope(s[i]); d may be g.
template <class F> __device__ __forceinline__ void backward(
    const float* s, const float* g, float* d, i64 n, F slope) {
    const i64 first = (i64)blockIdx.x * blockDim.x + threadIdx.x, stride = (i64)gridDim.x * blockDim.x;
    for (i64 i = 4 * first; i + 4 <= n; i += 4 * stride) {
        const Floats<4> saved = load<4>(s + i);
        Floats<4> v = load<4>(g + i);
#pragma unroll
        for (int k = 0; k < 4; k++) v.v[k] *= slope(saved.v[k]);
        store<4>(d + i, v);
    }
    const i64 rest = n / 4 * 4 + first;
    if (rest < n) d[rest] = g[rest] * slope(s[rest]);
}

}  // namespace

// A thread four elements; f is the same for all, so that no warp diverges over it.
extern "C" __global__ void unary_forward(const float* x, float* y, i64 n, int f, float p, float q) {
#define FORWARD(number, value, slope) \
    case number: forward(x, y, n, [=](float x) -> float { return value; }); break;
    switch (f) { FUNCTIONS(FORWARD) }
}

extern "C" __global__ void unary_backward(
    const float* s, const float* g, float* d, i64 n, int f, float p, float q) {
#define BACKWARD(number, value, slope) \
    case number: backward(s, g, d, n, [=](float s) -> float { return slope; }); break;
    switch (f) { FUNCTIONS(BACKWARD) }
}
