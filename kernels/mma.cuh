// One wrapper an instruction: PTX on the GPU, the same thing spelled out in the emulator. In what follows lane l has
// g = l / 4 and q = l % 4.
#pragma once
#include "common.cuh"

#ifdef __CUDACC__

// Rounds to tf32 (10 bits of mantissa), ties away from zero.
__device__ __forceinline__ u32 to_tf32(float x) {
    u32 r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return r;
}

// Two numbers rounded to bf16 (7 bits of mantissa, to nearest, ties to even), the first in the low half.
__device__ __forceinline__ u32 to_bf16x2(float low, float high) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

__device__ __forceinline__ void mma_tf32_m16n8k8(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void mma_bf16_m16n8k16(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Copies 16 bytes; of the source only `source_bytes` (0 to 16) are read, the rest becomes 0.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, int source_bytes = 16) {
    u32 address = (u32)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(source_bytes) : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most N groups of this thread are under way.
template <int N> __device__ __forceinline__ void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

__device__ __forceinline__ void barrier_sync(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
__device__ __forceinline__ void barrier_arrive(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

#else

inline u32 to_tf32(float x) {
    u32 u = __float_as_uint(x);
    if ((u & 0x7f800000u) == 0x7f800000u) return u & 0x7fffffu ? 0x7fffffffu : u;  // NaN, infinity
    return (u + 0x1000u) & ~0x1fffu;
}

inline u32 to_bf16x2(float low, float high) { return __float2bfloat16(low).bits | (u32)__float2bfloat16(high).bits << 16; }

namespace emulator {
struct Fragments {
    u32 a[4], b[2];
};
}  // namespace emulator

// A: a[0] (g, q), a[1] (g + 8, q), a[2] (g, q + 4), a[3] (g + 8, q + 4). B: b[0] (q, g), b[1] (q + 4, g).
// C: c[0] (g, 2q), c[1] (g, 2q + 1), c[2] and c[3] eight rows below. The low 13 bits of an operand are not looked at.
inline void mma_tf32_m16n8k8(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2], emulator::Place at = emulator::Place::here()) {
    emulator::Fragments mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    auto lanes = emulator::exchange(~0u, mine, at);
    int g = emulator::current_thread->lane / 4;
    int q = emulator::current_thread->lane % 4;
    for (int i = 0; i < 4; i++) {
        int column = 2 * q + i % 2;
        for (int k = 0; k < 8; k++) {
            u32 x = lanes[g * 4 + k % 4].a[i / 2 + k / 4 * 2];
            u32 y = lanes[column * 4 + k % 4].b[k / 4];
            c[i] += __uint_as_float(x & ~0x1fffu) * __uint_as_float(y & ~0x1fffu);
        }
    }
}

// As above with pairs of bf16, the lower index in the low half. A: a[0] (g, 2q..2q+1), a[1] eight rows below, a[2]
// and a[3] eight columns on. B: b[0] (2q..2q+1, g), b[1] eight rows below.
inline void mma_bf16_m16n8k16(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2], emulator::Place at = emulator::Place::here()) {
    emulator::Fragments mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    auto lanes = emulator::exchange(~0u, mine, at);
    int g = emulator::current_thread->lane / 4;
    int q = emulator::current_thread->lane % 4;
    for (int i = 0; i < 4; i++) {
        int column = 2 * q + i % 2;
        for (int k = 0; k < 16; k++) {
            u32 x = lanes[g * 4 + k % 8 / 2].a[i / 2 + k / 8 * 2];
            u32 y = lanes[column * 4 + k % 8 / 2].b[k / 8];
            int shift = k % 2 * 16;
            c[i] += __uint_as_float(x >> shift << 16) * __uint_as_float(y >> shift << 16);
        }
    }
}

// The destination reads as NaN until the copy is waited for. Memory is touched here, in the kernel's translation
// unit, so that the sanitizers see it.
inline void cp_async_16(void* shared, const void* global, int source_bytes = 16, emulator::Place at = emulator::Place::here()) {
    if (source_bytes < 0 || source_bytes > 16) emulator::fail(at, "cp.async of %d bytes", source_bytes);
    if (((uintptr_t)shared | (uintptr_t)global) % 16) emulator::fail(at, "cp.async needs addresses aligned to 16 bytes");
    emulator::PendingCopy copy = {};
    copy.destination = shared;
    if (source_bytes > 0) memcpy(copy.bytes, global, source_bytes);
    memset(shared, 0xff, 16);
    emulator::copy_issue(copy);
}
inline void cp_async_commit() { emulator::copy_commit(); }
template <int N> inline void cp_async_wait() {
    while (const emulator::PendingCopy* copy = emulator::copy_landing(N)) memcpy(copy->destination, copy->bytes, 16);
}

inline void barrier_sync(int id, int threads, emulator::Place at = emulator::Place::here()) { emulator::named_barrier(id, threads, true, at); }
inline void barrier_arrive(int id, int threads, emulator::Place at = emulator::Place::here()) { emulator::named_barrier(id, threads, false, at); }

#endif
