// Matrix product, rung 5 of 5: tensor cores.
//
// Adds: `mma.sync` multiplies a 16x8 by an 8x8 (tf32) or a 16x16 by a 16x8 tile (bf16) in one instruction of a warp.
// Factors are rounded on their way from shared memory to registers; sums stay f32. Limits on an H100 SXM: 495 TFLOP/s
// of tf32 and 989 of bf16, of which `mma.sync` (not Hopper's own `wgmma`) reaches some 65 % at best; shared memory
// binds before that here, since values lie in it as f32.
// Measured on an H100: 111 TFLOP/s of a product of 4096^3 in tf32, 140 in bf16.

#include "ladder/gemm.cuh"

// Block: 256 threads; grid: [n / 128, m / 128].
extern "C" __global__ void __launch_bounds__(256, 2) gemm_5_tf32(
    const float* a, const float* b, float* c, int m, int n, int k) {
    gemm<TF32>(a, b, c, m, n, k);
}

extern "C" __global__ void __launch_bounds__(256, 2) gemm_5_bf16(
    const float* a, const float* b, float* c, int m, int n, int k) {
    gemm<BF16>(a, b, c, m, n, k);
}
