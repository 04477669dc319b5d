// What changes from one replay of a captured graph to the next, where its kernels look for it: arguments of kernels
// are frozen when they are captured, so the step and the rates are in memory, and this launch, before each replay,
// sets them.

#include "common.cuh"

// As src/backend/cuda/graph.rs has it.
struct ReplayParams {
    u64 step;
    float rates[2];
};

extern "C" __global__ void graph_set(ReplayParams* to, u64 step, float first, float second) {
    to->step = step;
    to->rates[0] = first;
    to->rates[1] = second;
}
