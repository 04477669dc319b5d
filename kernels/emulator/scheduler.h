// The kernel emulator's scheduler: what a launch, a block and a thread are made of, and who runs next.
//
// A launch runs its blocks one after another (or on several workers); the threads of a block are fibers. A thread runs until
// it must wait: at a block barrier, at a named barrier, or for the other lanes of a warp operation. Then the next thread
// that can run does. If none can and not all have exited, the kernel is wrong, and the launch returns a message that says
// who waits where. A fiber whose thread exited goes on with the next thread that has not begun, so a kernel without
// barriers costs no switches.
#pragma once
#include "fiber.h"
#include "runtime.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

namespace emulator {
inline namespace ATROUS_EMULATOR_MODE {

enum class State : uint8_t { fresh, running, ready, at_barrier, at_warp, exited };

// One warp operation under way. A lane may come to read its result long after others went on to their next operation, so
// each operation has slots of its own, which are free again when every lane that took part has begun something else.
struct Exchange {
    alignas(16) char slots[32][slot_bytes];
    unsigned mask = 0;
    unsigned arrived = 0;
    int readers = 0;
    bool complete = false;
    Place place{};
    char ordering = 0;  // its address names the event for ThreadSanitizer
};

struct Warp {
    unsigned exited = 0;  // lanes that are gone, or that the block never had
    std::vector<std::unique_ptr<Exchange>> exchanges;
};

struct Barrier {
    int arrived = 0;
    int expected = 0;
    unsigned phase = 0;
    int first = 0;
    Place place{};
    char ordering[2] = {};  // one a phase: a late waiter must not be ordered after those that already met again
};

struct Thread {
    ThreadView view{};
    State state = State::fresh;
    Fiber* fiber = nullptr;
    Place place{};
    int barrier = 0;
    Exchange* exchange = nullptr;
    std::vector<PendingCopy> copies;
    size_t landed = 0;
    int groups = 0;
};

struct Kernel {
    Entry entry;
    char* shared_begin;
    char* shared_end;
    bool twice;
};

struct Launch {
    const Kernel* kernel;
    void** arguments;
    dim3 grid, block;
    size_t shared_bytes;
    int order;
    unsigned seed;
    std::vector<size_t> blocks;  // their order, when it is random
    std::atomic<size_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex mutex;
    std::string message;
};

struct Worker {
    Launch* launch = nullptr;
    BlockView block{};
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    Barrier barriers[16];
    std::vector<int> order;  // of the threads' beginnings
    size_t begun = 0;
    std::vector<int> ready;
    size_t ready_head = 0;
    int alive = 0;
    Fiber main;
    Fiber* running = nullptr;
    std::vector<std::unique_ptr<Fiber>> fibers;
    size_t fibers_used = 0;
    std::mt19937 random;
    // What comes before a block's threads, and what after: not one event for both, or a thread's end would come
    // before the next one's beginning, and no race between them would be seen.
    char block_begin = 0, block_end = 0;
    bool failed = false;
};
extern __thread Worker* worker;

inline Thread& self() { return worker->threads[current_thread->linear]; }

// Of scheduler.cpp. The present fiber waits for `to`:
void go_to(Fiber* to);
// Another fiber runs until this thread can go on:
void park(Thread& t);
void set_failure(const std::string& text);
std::string at(Place place);
std::string block_name();
void release_barrier(int id);
void finish_reading(Thread& t);
Exchange& find_exchange(Warp& warp, unsigned mask, Place place);
bool try_complete(int warp_index, Exchange& e);
// One block of the present launch, by its number, from its first thread's beginning to its last one's end:
void run_block(size_t number);

}  // namespace ATROUS_EMULATOR_MODE
}  // namespace emulator
