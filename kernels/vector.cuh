// The same for one and for four neighbouring channels: a thread that takes four reads and writes 16 bytes at once, and
// works out once where it is. On an H100 the latter counts for more: a pool's index arithmetic took longer than its bytes.
#pragma once
#include "common.cuh"

template <int V> struct Floats {
    float v[V];
};
template <int V> __device__ __forceinline__ Floats<V> load(const float* p) {
    Floats<V> r;
    if constexpr (V == 4) {
        const float4 f = *reinterpret_cast<const float4*>(p);
        r.v[0] = f.x, r.v[1] = f.y, r.v[2] = f.z, r.v[3] = f.w;
    } else {
        r.v[0] = p[0];
    }
    return r;
}
template <int V> __device__ __forceinline__ void store(float* p, const Floats<V>& f) {
    if constexpr (V == 4) {
        *reinterpret_cast<float4*>(p) = make_float4(f.v[0], f.v[1], f.v[2], f.v[3]);
    } else {
        p[0] = f.v[0];
    }
}
