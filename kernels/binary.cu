// Functions of two numbers, element by element, broadcast: see src/ops/binary.rs, and src/ops/elementwise.rs
// for formulas and gradients.
//
// Bytes bind: 12 an element where both operands are as large as the result, 8 where one is broadcast. On an
// H100 (3.35 TB/s) a pass over 10 M elements with two operands is 36 us at best.

#include "vector.cuh"

// A line a function: its number in src/ops; y; the gradient of a; the gradient of b. Comparisons, not fmaxf:
// a NaN stays a NaN.
// clang-format off
#define FUNCTIONS(FUNCTION) \
    FUNCTION(0, /* add */ a + b, g, g) \
    FUNCTION(1, /* sub */ a - b, g, -g) \
    FUNCTION(2, /* mul */ a * b, g * b, g * a) \
    FUNCTION(3, /* div */ a / b, g / b, -(g / b) * (a / b)) \
    FUNCTION(4, /* maximum */ larger(a, b), share(a, b, g), share(b, a, g)) \
    FUNCTION(5, /* minimum */ -larger(-a, -b), share(b, a, g), share(a, b, g)) \
    FUNCTION(6, /* equal */ a == b ? 1.0f : 0.0f, 0.0f, 0.0f) \

// clang-format on

// Lengths of axes, and elements from one place along them to the next: 0 where an operand is broadcast.
struct Broadcast {
    i64 size[4], a[4], b[4];
};

namespace {

// The larger one, or a NaN.
__device__ __forceinline__ float larger(float a, float b) {
    if (a > b) return a;
    return b >= a ? b : a + b;
}

// What of the gradient goes to the first of two, if the larger one gets it: half of it where they are equal.
__device__ __forceinline__ float share(float first, float second, float g) {
    if (first > second) return g;
    return first == second ? 0.5f * g : 0.0f;
}

// V neighbours of an operand, or one in all places.
template <int V> __device__ __forceinline__ Floats<V> operand(const float* p, i64 at, bool same) {
    if (!same) return load<V>(p + at);
    Floats<V> r;
#pragma unroll
    for (int k = 0; k < V; k++) r.v[k] = p[at];
    return r;
}

// d[i] = f(g[i], a, b) of the operands that element i has; g may be null.
template <int V, class F>
__device__ __forceinline__ void each(
    const float* __restrict__ g, const float* __restrict__ a, const float* __restrict__ b,
    float* __restrict__ d, i64 n, const Broadcast& s, F f) {
    const i64 stride = (i64)gridDim.x * blockDim.x * V;
    for (i64 i = ((i64)blockIdx.x * blockDim.x + threadIdx.x) * V; i < n; i += stride) {
        i64 rest = i, at_a = 0, at_b = 0;
        if (s.size[3] == n) {
            at_a = i * s.a[3], at_b = i * s.b[3];
        } else {
#pragma unroll
            for (int axis = 3; axis >= 0; axis--) {
                const i64 place = divmod(rest, s.size[axis]);
                at_a += place * s.a[axis], at_b += place * s.b[axis];
            }
        }
        const Floats<V> x = operand<V>(a, at_a, s.a[3] == 0), y = operand<V>(b, at_b, s.b[3] == 0);
        Floats<V> v = {};
        if (g != nullptr) v = load<V>(g + i);
#pragma unroll
        for (int k = 0; k < V; k++) v.v[k] = f(v.v[k], x.v[k], y.v[k]);
        store<V>(d + i, v);
    }
}

// Four at a time where rows are a multiple of it: an operand that runs along them begins at one, too.
template <class F>
__device__ __forceinline__ void every(
    const float* g, const float* a, const float* b, float* d, i64 n, const Broadcast& s, F f) {
    if (s.size[3] % 4 == 0) {
        each<4>(g, a, b, d, n, s, f);
    } else {
        each<1>(g, a, b, d, n, s, f);
    }
}

}  // namespace

// A thread an element, or four where s.size[3] is a multiple of it. `f` is the same for all: no warp diverges
// over it.
extern "C" __global__ void binary_forward(
    const float* a, const float* b, float* y, i64 n, Broadcast s, int f) {
#define FORWARD(number, value, of_a, of_b) \
    case number: \
        every(nullptr, a, b, y, n, s, [=](float, float a, float b) -> float { return value; }); \
        break;
    switch (f) { FUNCTIONS(FORWARD) }
}

// The gradient of a (which = 0) or of b, in the result's shape. An operand that it is not made of has strides
// of 0.
extern "C" __global__ void binary_gradient(
    const float* g, const float* a, const float* b, float* d, i64 n, Broadcast s, int f, int which) {
#define GRADIENT(number, value, of_a, of_b) \
    case 2 * number: \
        every(g, a, b, d, n, s, [=](float g, float a, float b) -> float { return of_a; }); \
        break; \
    case 2 * number + 1: \
        every(g, a, b, d, n, s, [=](float g, float a, float b) -> float { return of_b; }); \
        break;
    switch (2 * f + which) { FUNCTIONS(GRADIENT) }
}
