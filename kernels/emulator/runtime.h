// What compiled kernels and the emulator's runtime know of each other. `emulator.h` puts CUDA's names on top of this;
// `scheduler.cpp`, `operations.cpp` and `launch.cpp` implement it. No CUDA name appears here, so the runtime itself is ordinary C++.
#pragma once
#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__) || !defined(__linux__) || !defined(__GNUC__)
#error "the kernel emulator switches stacks by hand: it runs on x86-64 Linux, compiled by GCC or Clang"
#endif

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Kernels and runtime must be built in the same mode. The mode is part of every symbol's name, so a mixture does not link.
#if defined(ATROUS_EMULATOR_TSAN) || defined(__SANITIZE_THREAD__)
#define ATROUS_EMULATOR_MODE for_thread_sanitizer
#elif defined(__SANITIZE_ADDRESS__)
#define ATROUS_EMULATOR_MODE for_address_sanitizer
#else
#define ATROUS_EMULATOR_MODE plain
#endif

namespace emulator {
inline namespace ATROUS_EMULATOR_MODE {

// A place in a kernel's source. As a default argument, `Place::here()` is the place of the call.
struct Place {
    const char* file;
    int line;
    static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

// What a running CUDA thread can ask about itself, and about its block.
struct ThreadView {
    uint3 index;
    int linear;
    int lane;
};

struct BlockView {
    uint3 index;
    dim3 block_size;
    dim3 grid_size;
    void* shared;  // dynamic shared memory
};

// `__thread`, not `thread_local`: the latter goes through an initialisation check at every use.
extern __thread const ThreadView* current_thread;
extern __thread const BlockView* current_block;

// Stops the launch with a message: `launch` returns it. The failing fiber is never resumed.
[[noreturn]] void fail(Place place, const char* format, ...) __attribute__((format(printf, 2, 3)));

// __syncthreads.
void block_barrier(Place place);

// PTX barrier.sync (wait = true) and barrier.arrive (wait = false): `threads` threads of the block meet at barrier `id`.
void named_barrier(int id, int threads, bool wait, Place place);

// Every lane in `mask` hands in a value; when all have, each gets the address of lane 0's slot (the others follow every
// `slot_bytes`). The slots stay as they are until this lane's next warp operation. Lanes that exited read as NaN.
constexpr size_t slot_bytes = 128;
const char* warp_exchange(unsigned mask, const void* value, size_t bytes, bool orders_memory, Place place);

// cp.async: the bytes are read when the copy is issued and land when it is waited for.
struct PendingCopy {
    void* destination;
    alignas(16) unsigned char bytes[16];
    int group;
};
void copy_issue(const PendingCopy& copy);
void copy_commit();
// The next copy that must land so that at most `groups_kept` groups stay under way; null when none is left.
const PendingCopy* copy_landing(int groups_kept);

// A kernel as the runtime calls it: the arguments are passed as for cuLaunchKernel, one address an argument.
using Entry = void (*)(void** arguments);
bool register_kernel(const char* name, Entry entry, char* static_shared_begin, char* static_shared_end);

}  // namespace ATROUS_EMULATOR_MODE
}  // namespace emulator

extern "C" {
// Runs a kernel to its end. 0: it ran. Otherwise `message` says what is wrong: unknown kernel, bad launch shape, threads that
// wait for each other forever, a barrier that not all threads meet, a lane that is not in its own mask.
int atrous_emulator_launch(const char* kernel, const unsigned grid[3], const unsigned block[3], size_t shared_bytes,
                           void** arguments, char* message, size_t message_bytes);
// The order in which threads and blocks run: 0 forward, 1 reverse, 2 random from `seed`.
void atrous_emulator_order(int order, unsigned seed);
// How many CPU threads share a launch's blocks (1 unless told; always 1 under a sanitizer).
void atrous_emulator_workers(unsigned workers);
}
