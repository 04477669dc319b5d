// Stacks, the switch between them, and what the sanitizers must be told about it.
//
// ThreadSanitizer: the runtime (this folder's .cpp files) is compiled *without* -fsanitize=thread (only kernels are
// watched), but with -DATROUS_EMULATOR_TSAN, and linked with -fsanitize=thread. AddressSanitizer: compiled with it like
// everything else.
#include "fiber.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <pthread.h>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef ATROUS_EMULATOR_TSAN
extern "C" {
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void* __tsan_get_current_fiber();
void __tsan_acquire(void* event);
void __tsan_release(void* event);
void __tsan_ignore_thread_begin();
void __tsan_ignore_thread_end();
}
#endif

// Saves what the ABI says a call must keep (six registers and the stack pointer), takes the other fiber's. The return then
// goes to wherever the other fiber had called from.
extern "C" void atrous_emulator_switch(void** save_stack_pointer, void* new_stack_pointer);
asm(R"(
.text
.globl atrous_emulator_switch
.hidden atrous_emulator_switch
.type atrous_emulator_switch, @function
atrous_emulator_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size atrous_emulator_switch, . - atrous_emulator_switch
)");

namespace emulator {

namespace {
constexpr size_t page = 4096;
#if defined(__SANITIZE_ADDRESS__) || defined(ATROUS_EMULATOR_TSAN)
constexpr size_t stack_bytes = 512 << 10;  // sanitizers put red zones into frames and print reports from here
#else
constexpr size_t stack_bytes = 64 << 10;
#endif
}  // namespace

Fiber* fiber_new() {
    auto* fiber = new Fiber;
    void* memory = mmap(nullptr, stack_bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "kernel emulator: no memory for a stack\n");
        abort();
    }
    // Stacks grow downwards. The lowest page is forbidden, so an overflow ends in a fault, not in a neighbour's stack.
    mprotect(memory, page, PROT_NONE);
    fiber->stack = static_cast<char*>(memory) + page;
    fiber->stack_bytes = stack_bytes;
    // All stacks start at a page's end. Threads of a block run the same code, so their hot variables would lie at the same
    // offset in a page, and the L1 cache has only 8 or 12 lines for each such offset. So the tops are staggered.
    static std::atomic<unsigned> stacks{0};
    fiber->top_offset = (stacks++ % 31) * 128;
#ifdef ATROUS_EMULATOR_TSAN
    fiber->thread_sanitizer = __tsan_create_fiber(0);
#endif
    return fiber;
}

void fiber_adopt([[maybe_unused]] Fiber& fiber) {
#ifdef __SANITIZE_ADDRESS__
    pthread_attr_t attributes;
    void* stack = nullptr;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &stack, &fiber.stack_bytes);
    pthread_attr_destroy(&attributes);
    fiber.stack = static_cast<char*>(stack);
#endif
#ifdef ATROUS_EMULATOR_TSAN
    fiber.thread_sanitizer = __tsan_get_current_fiber();
#endif
}

void fiber_start_at(Fiber& fiber, void (*entry)()) {
    // What `atrous_emulator_switch` pops: six registers and the address to return to. Above it lies one word, so that the
    // stack is aligned as it would be after a call.
    char* top = fiber.stack + fiber.stack_bytes - fiber.top_offset;
    void** words = reinterpret_cast<void**>(top) - 8;
#ifdef __SANITIZE_ADDRESS__
    // A fiber that is done is never resumed, so its last frames are still marked: a few of the runtime's own.
    __asan_unpoison_memory_region(top - (16 << 10), 16 << 10);
#endif
    memset(words, 0, 8 * sizeof(void*));
    words[6] = reinterpret_cast<void*>(entry);
    fiber.stack_pointer = words;
}

void fiber_abandon([[maybe_unused]] Fiber& fiber) {
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(fiber.stack, fiber.stack_bytes);  // red zones of frames that never returned
    fiber.address_sanitizer = nullptr;
#endif
#ifdef ATROUS_EMULATOR_TSAN
    __tsan_destroy_fiber(fiber.thread_sanitizer);
    fiber.thread_sanitizer = __tsan_create_fiber(0);
#endif
}

void fiber_switch(Fiber& from, Fiber& to) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&from.address_sanitizer, to.stack, to.stack_bytes);
#endif
#ifdef ATROUS_EMULATOR_TSAN
    constexpr unsigned no_ordering = 1;  // or the switch itself would order all threads, and no race would be found
    __tsan_switch_to_fiber(to.thread_sanitizer, no_ordering);
#endif
    atrous_emulator_switch(&from.stack_pointer, to.stack_pointer);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(from.address_sanitizer, nullptr, nullptr);
#endif
}

void fiber_entered() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

#ifdef ATROUS_EMULATOR_TSAN
void order_release(void* event) { __tsan_release(event); }
void order_acquire(void* event) { __tsan_acquire(event); }
Unobserved::Unobserved() { __tsan_ignore_thread_begin(); }
Unobserved::~Unobserved() { __tsan_ignore_thread_end(); }
#else
void order_release(void*) {}
void order_acquire(void*) {}
Unobserved::Unobserved() {}
Unobserved::~Unobserved() {}
#endif

}  // namespace emulator
