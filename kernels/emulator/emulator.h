// cuda_emu.h - lets .cu kernels compile as host C++17 and run on fibers. Included only when !__CUDACC__.
// Runtime: cuda_emu_rt.cpp.  -DEMU_SAN: shared arrays become plain statics so ASan/TSan instrument them (1 worker).
#pragma once
#include <cstdint>
#include <cstddef>
#include <cstring>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <algorithm>
#include <utility>
#include <type_traits>
struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {} };
struct alignas(8)  float2 { float x, y; };          struct alignas(8)  int2  { int x, y; };
struct alignas(16) float4 { float x, y, z, w; };    struct alignas(16) int4  { int x, y, z, w; };
struct alignas(16) uint4  { unsigned x, y, z, w; };
inline float2 make_float2(float a, float b) { return {a, b}; }
inline float4 make_float4(float a, float b, float c, float d) { return {a, b, c, d}; }
namespace emu {
constexpr int SLOT = 128;                                            // bytes one lane may exchange
struct ThreadCtx { uint3 tid; int lin, lane; };
struct BlockCtx { uint3 bid; dim3 bdim, gdim; void* dyn; };
extern __thread ThreadCtx* cur;                                      // __thread: no init wrapper
extern __thread BlockCtx* blk;
void block_sync(int id, int count, const char* file, int line);      // count<0: whole block
const char* warp_exchange(unsigned mask, const void* v, size_t n, const char* file, int line);
void cp_async(void* dst, const void* src, int n, int valid);
void cp_commit();
void cp_wait(int keep);                                              // copies land only here
using Thunk = void (*)(void**);
void register_kernel(const char*, Thunk);
void launch(dim3 grid, dim3 block, size_t smem, Thunk f, void** args);
template <class T> struct Lanes { const char* b; const T& operator[](int i) const { return *(const T*)(b + i * SLOT); } };
template <class T> Lanes<T> exchange(unsigned m, const T& v, const char* f = __builtin_FILE(), int l = __builtin_LINE()) {
    static_assert(sizeof(T) <= SLOT); return {warp_exchange(m, &v, sizeof(T), f, l)}; }
template <auto F> struct Inv;                                        // same void** args as cuLaunchKernel
template <class... A, void (*F)(A...)> struct Inv<F> {
    static void call(void** a) { go(a, std::index_sequence_for<A...>{}); }
    template <size_t... I> static void go(void** a, std::index_sequence<I...>) { F(*(std::remove_reference_t<A>*)a[I]...); }
};
}
#define ATROUS_KERNEL(f) static const int emu_reg_##f = (emu::register_kernel(#f, &emu::Inv<&f>::call), 0);
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#ifdef EMU_SAN
#define __shared__ static
#else
#define __shared__ static thread_local
#endif
#define DYN_SMEM(T, name) T* name = (T*)emu::blk->dyn                 // CUDA side: extern __shared__ __align__(16) ...
#define threadIdx (emu::cur->tid)
#define blockIdx (emu::blk->bid)
#define blockDim (emu::blk->bdim)
#define gridDim (emu::blk->gdim)
#define warpSize 32
#define __syncthreads() emu::block_sync(0, -1, __FILE__, __LINE__ * 1000 + __COUNTER__ % 1000)   // line*1000+site id
inline void __syncwarp(unsigned m = ~0u) { int z = 0; emu::exchange(m, z); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() {}
template <class T> T __shfl_sync(unsigned m, T v, int s, int w = 32) {
    auto L = emu::exchange(m, v); int l = emu::cur->lane; return L[(l & ~(w - 1)) | (s & (w - 1))]; }
template <class T> T __shfl_xor_sync(unsigned m, T v, int x, int w = 32) {
    auto L = emu::exchange(m, v); int l = emu::cur->lane, s = l ^ x; return L[(s | (w - 1)) <= (l | (w - 1)) ? s : l]; }
template <class T> T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32) {
    auto L = emu::exchange(m, v); int l = emu::cur->lane; return L[(l & (w - 1)) + (int)d < w ? l + d : l]; }
template <class T> T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32) {
    auto L = emu::exchange(m, v); int l = emu::cur->lane; return L[(l & (w - 1)) >= (int)d ? l - d : l]; }
inline unsigned __ballot_sync(unsigned m, int p) { int b = !!p; auto L = emu::exchange(m, b); unsigned r = 0;
    for (int i = 0; i < 32; i++) if (m >> i & 1 && L[i] == 1) r |= 1u << i; return r; }
inline int __any_sync(unsigned m, int p) { return __ballot_sync(m, p) != 0; }
inline int __all_sync(unsigned m, int p) { return __ballot_sync(m, p) == m; }
template <class T> T __ldg(const T* p) { return *p; }
inline float atomicAdd(float* p, float v) {
    uint32_t* q = (uint32_t*)p; uint32_t o = __atomic_load_n(q, 0), n; float f;
    do { memcpy(&f, &o, 4); f += v; memcpy(&n, &f, 4); } while (!__atomic_compare_exchange_n(q, &o, n, true, 0, 0));
    memcpy(&f, &o, 4); return f; }
inline int atomicAdd(int* p, int v) { return __atomic_fetch_add(p, v, 0); }
inline unsigned atomicAdd(unsigned* p, unsigned v) { return __atomic_fetch_add(p, v, 0); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
inline unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
using std::min; using std::max;
struct __half { _Float16 v; };                                       // g++ >= 12, x86-64/aarch64
inline __half __float2half(float f) { return {(_Float16)f}; }
inline __half __float2half_rn(float f) { return {(_Float16)f}; }
inline float __half2float(__half h) { return (float)h.v; }
struct __nv_bfloat16 { uint16_t x; };
inline __nv_bfloat16 __float2bfloat16(float f) { unsigned u = __float_as_uint(f);
    if ((u & 0x7fffffff) > 0x7f800000) return {0x7fff}; return {(uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16)}; }
inline float __bfloat162float(__nv_bfloat16 b) { return __uint_as_float((unsigned)b.x << 16); }

inline int __syncthreads_or(int p) { static __thread int flag; __syncthreads(); flag = 0; __syncthreads(); if (p) flag = 1; __syncthreads(); return flag; }
