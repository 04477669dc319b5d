// The counter-based random numbers of src/random.rs: Philox 4x32-10 (Salmon et al., SC 2011). A number is a
// pure function of (seed, stream, position), so that every device draws the same ones.
#pragma once
#include "common.cuh"

struct Words {
    unsigned w[4];
};

// Ten rounds on a 128-bit counter under a 64-bit key.
__device__ __forceinline__ Words philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned k0,
                                        unsigned k1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const unsigned long long a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
        c0 = (unsigned)(b >> 32) ^ c1 ^ k0;
        c1 = (unsigned)b;
        c2 = (unsigned)(a >> 32) ^ c3 ^ k1;
        c3 = (unsigned)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Words words = {{c0, c1, c2, c3}};
    return words;
}

// 24 random bits as a float in [0, 1).
__device__ __forceinline__ float unit(unsigned bits) { return (float)(bits >> 8) * (1.0f / 16777216.0f); }
