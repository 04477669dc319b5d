// Fibers: stacks that one CPU thread switches between by hand. A CUDA thread runs on a fiber, so that it can stop at a
// barrier while the others catch up. A switch costs some nanoseconds; a real thread's would cost microseconds.
#pragma once
#include <cstddef>

namespace emulator {

struct Fiber {
    void* stack_pointer = nullptr;     // where it stopped, while it does not run
    char* stack = nullptr;             // lowest usable byte
    size_t stack_bytes = 0;
    void* address_sanitizer = nullptr; // ASan's fake stack, while it does not run
    void* thread_sanitizer = nullptr;  // TSan takes a fiber for a thread
    size_t top_offset = 0;
};

// A new fiber with a stack of its own.
Fiber* fiber_new();
// The calling CPU thread's own stack, as a fiber to switch back to.
void fiber_adopt(Fiber& fiber);
// Makes the fiber start at `entry` at its next switch, whatever it did before. `entry` never returns.
void fiber_start_at(Fiber& fiber, void (*entry)());
// Forgets what a fiber was doing when it was stopped in the middle of a kernel.
void fiber_abandon(Fiber& fiber);
// Runs `to` until something switches back to `from`.
void fiber_switch(Fiber& from, Fiber& to);
// The first thing a started fiber calls.
void fiber_entered();

// ThreadSanitizer: `release` before and `acquire` after makes everything before the one happen before everything after the
// other. Nothing in other builds.
void order_release(void* event);
void order_acquire(void* event);

// While one lives, ThreadSanitizer ignores the C library calls of this fiber: the emulator's state is not the kernel's.
// It must not live across a switch to a fiber that never comes back.
struct Unobserved {
    Unobserved();
    ~Unobserved();
};

}  // namespace emulator
