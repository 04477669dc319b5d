// Axes in another order: see src/ops/permute.rs.
//
// Bytes bind: 8 an element. A block brings a square of 32 x 32 to shared memory, rows of x at a time, and
// writes it rows of the result at a time, so that both are whole lines of memory; the 33rd column sends a
// column's 32 floats to 32 banks.

#include "common.cuh"

// Planes [height, width] of x become [width, height].
struct Planes {
    i64 width, height;
    i64 from_step, to_step;  // from one row to the next
    i64 outer[2], from_outer[2], to_outer[2];
};

// Block: [32, 8]; grid: squares of all planes.
extern "C" __global__ void __launch_bounds__(256) permute_tiles(
    const float* __restrict__ x, float* __restrict__ y, Planes p) {
    __shared__ float square[32][33];
    i64 rest = blockIdx.x;
    const i64 column = divmod(rest, ceil_div(p.width, (i64)32)) * 32,
              row = divmod(rest, ceil_div(p.height, (i64)32)) * 32;
    const i64 inner = divmod(rest, p.outer[1]);
    x += rest * p.from_outer[0] + inner * p.from_outer[1];
    y += rest * p.to_outer[0] + inner * p.to_outer[1];
    const int tx = threadIdx.x;
    for (int ty = threadIdx.y; ty < 32; ty += 8) {
        if (row + ty < p.height && column + tx < p.width)
            square[ty][tx] = x[(row + ty) * p.from_step + column + tx];
    }
    __syncthreads();
    for (int ty = threadIdx.y; ty < 32; ty += 8) {
        if (column + ty < p.width && row + tx < p.height)
            y[(column + ty) * p.to_step + row + tx] = square[tx][ty];
    }
}
