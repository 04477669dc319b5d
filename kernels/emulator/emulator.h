// CUDA's names for C++: included by common.cuh where a `.cu` file is compiled by g++. Threads are fibers (scheduler.h).
// `__shared__` arrays lie in a linker section of their own, so that each block can start with NaN in them. Name the section
// with -DATROUS_UNIT=\"conv2d\" (one a translation unit), or each launch fills the arrays of all kernels. In templates and
// inline functions put them into an unnamed namespace: GCC can't mix both linkages in a section.
#pragma once
#include "runtime.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>

#ifndef ATROUS_UNIT
#define ATROUS_UNIT "all"
#endif
#define ATROUS_SECTION "atrous_shared_" ATROUS_UNIT

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// A worker runs one block at a time, so thread-local storage is a block's own. The sanitizers only watch plain statics.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define __shared__ static __attribute__((section(ATROUS_SECTION)))
#else
#define __shared__ static thread_local __attribute__((section(ATROUS_SECTION)))
#endif
#define threadIdx (::emulator::current_thread->index)
#define blockIdx (::emulator::current_block->index)
#define blockDim (::emulator::current_block->block_size)
#define gridDim (::emulator::current_block->grid_size)
#define warpSize 32

// The linker defines these for a section whose name is a C identifier; weak: a unit may have no such section.
extern char atrous_shared_begin[] __asm__("__start_" ATROUS_SECTION) __attribute__((weak, visibility("hidden")));
extern char atrous_shared_end[] __asm__("__stop_" ATROUS_SECTION) __attribute__((weak, visibility("hidden")));

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emulator {
// The values that all lanes handed in.
template <class T> struct Lanes {
    const char* slots;
    const T& operator[](int lane) const { return *reinterpret_cast<const T*>(slots + lane * slot_bytes); }
};
template <class T> Lanes<T> exchange(unsigned mask, const T& value, Place place) {
    static_assert(sizeof(T) <= slot_bytes, "too much for one exchange");
    return {warp_exchange(mask, &value, sizeof(T), false, place)};
}
// Calls a kernel with the arguments that an array of addresses points to.
template <auto kernel> struct Call;
template <class... A, void (*kernel)(A...)> struct Call<kernel> {
    static void entry(void** arguments) { with(arguments, std::index_sequence_for<A...>{}); }
    template <size_t... i> static void with([[maybe_unused]] void** arguments, std::index_sequence<i...>) {
        kernel(*static_cast<std::remove_reference_t<A>*>(arguments[i])...);
    }
};
}  // namespace emulator
#define ATROUS_KERNEL(f)                                                  \
    [[maybe_unused]] static const bool atrous_registered_##f =            \
        ::emulator::register_kernel(#f, &::emulator::Call<&f>::entry, atrous_shared_begin, atrous_shared_end)

// Barriers, shuffles and votes.
inline void __syncthreads(emulator::Place at = emulator::Place::here()) { emulator::block_barrier(at); }
// A barrier that tells everybody whether anybody's predicate holds. The flag is a block's own, as shared arrays are.
inline int __syncthreads_or(int predicate, emulator::Place at = emulator::Place::here()) {
    static thread_local int any;
    emulator::block_barrier(at);  // everybody has read the last answer
    __atomic_store_n(&any, 0, __ATOMIC_RELAXED);
    emulator::block_barrier(at);
    if (predicate) __atomic_store_n(&any, 1, __ATOMIC_RELAXED);
    emulator::block_barrier(at);
    return __atomic_load_n(&any, __ATOMIC_RELAXED);
}
inline void __syncwarp(unsigned mask = ~0u, emulator::Place at = emulator::Place::here()) { emulator::warp_exchange(mask, "", 1, true, at); }
template <class T> T __shfl_sync(unsigned mask, T v, int source, int width = 32, emulator::Place at = emulator::Place::here()) {
    int lane = emulator::current_thread->lane;
    return emulator::exchange(mask, v, at)[(lane & ~(width - 1)) | (source & (width - 1))];
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, emulator::Place at = emulator::Place::here()) {
    int lane = emulator::current_thread->lane;
    int source = lane ^ bits;
    return emulator::exchange(mask, v, at)[source <= (lane | (width - 1)) ? source : lane];
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, emulator::Place at = emulator::Place::here()) {
    int lane = emulator::current_thread->lane;
    return emulator::exchange(mask, v, at)[(lane & (width - 1)) + int(delta) < width ? lane + int(delta) : lane];
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, emulator::Place at = emulator::Place::here()) {
    int lane = emulator::current_thread->lane;
    return emulator::exchange(mask, v, at)[(lane & (width - 1)) >= int(delta) ? lane - int(delta) : lane];
}
inline unsigned __ballot_sync(unsigned mask, int predicate, emulator::Place at = emulator::Place::here()) {
    int vote = predicate != 0;
    auto votes = emulator::exchange(mask, vote, at);
    unsigned result = 0;
    for (int i = 0; i < 32; i++)
        if ((mask >> i & 1) && votes[i] == 1) result |= 1u << i;  // an exited lane's vote is not 1
    return result;
}
inline int __any_sync(unsigned mask, int p, emulator::Place at = emulator::Place::here()) { return __ballot_sync(mask, p, at) != 0; }
inline int __all_sync(unsigned mask, int p, emulator::Place at = emulator::Place::here()) { return __ballot_sync(mask, !p, at) == 0; }
// ThreadSanitizer knows no fences: an exchange on one variable orders any two of them (more than a GPU promises).
inline void __threadfence() {
    static int fence = 0;
    __atomic_exchange_n(&fence, 1, __ATOMIC_SEQ_CST);
}
inline void __threadfence_block() { __threadfence(); }

// Memory and atomics (relaxed, as on the GPU).
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> void __stcs(T* p, T v) { *p = v; }
template <class T> T atomicCAS(T* p, T expected, T desired) {
    __atomic_compare_exchange(p, &expected, &desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}
template <class T> T atomicExch(T* p, T v) {
    T old;
    __atomic_exchange(p, &v, &old, __ATOMIC_RELAXED);
    return old;
}
template <class T, class F> T emulated_atomic(T* p, F change) {
    T old;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    T desired = change(old);
    while (!__atomic_compare_exchange(p, &old, &desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) desired = change(old);
    return old;
}
template <class T> T atomicAdd(T* p, std::common_type_t<T> v) { return emulated_atomic(p, [v](T old) { return T(old + v); }); }
template <class T> T atomicMax(T* p, std::common_type_t<T> v) { return emulated_atomic(p, [v](T old) { return std::max(old, v); }); }
template <class T> T atomicMin(T* p, std::common_type_t<T> v) { return emulated_atomic(p, [v](T old) { return std::min(old, v); }); }
template <class T> T atomicOr(T* p, std::common_type_t<T> v) { return emulated_atomic(p, [v](T old) { return T(old | v); }); }
template <class T> T atomicAnd(T* p, std::common_type_t<T> v) { return emulated_atomic(p, [v](T old) { return T(old & v); }); }

// Arithmetic. The fast functions are as exact as the C library's here.
using std::max;
using std::min;
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)a * b >> 32); }
template <class To, class From> To emulated_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline float __uint_as_float(unsigned x) { return emulated_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return emulated_bits<unsigned>(x); }
inline float __int_as_float(int x) { return emulated_bits<float>(x); }
inline int __float_as_int(float x) { return emulated_bits<int>(x); }

struct __half { _Float16 value; };
inline __half __float2half(float x) { return {_Float16(x)}; }
inline __half __float2half_rn(float x) { return {_Float16(x)}; }
inline float __half2float(__half x) { return float(x.value); }
struct __nv_bfloat16 { uint16_t bits; };
inline __nv_bfloat16 __float2bfloat16(float x) {
    unsigned u = __float_as_uint(x);
    if ((u & 0x7fffffff) > 0x7f800000) return {0x7fff};  // NaN
    return {uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16)};  // to nearest, ties to even
}
inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(unsigned(x.bits) << 16); }
