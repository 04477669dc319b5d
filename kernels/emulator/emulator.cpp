// The kernel emulator's scheduler. A launch runs its blocks one after another (or on several workers); the threads of a
// block are fibers. A thread runs until it must wait: at a block barrier, at a named barrier, or for the other lanes of a
// warp operation. Then the next thread that can run does. If none can and not all have exited, the kernel is wrong, and the
// launch returns a message that says who waits where. A fiber whose thread exited goes on with the next thread that has not
// begun, so a kernel without barriers costs no switches.
#include "runtime.h"
#include "fiber.h"

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <link.h>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace emulator {
inline namespace ATROUS_EMULATOR_MODE {

__thread const ThreadView* current_thread;
__thread const BlockView* current_block;

namespace {

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
__thread Worker* worker;

std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> table;
    return table;
}

Thread& self() { return worker->threads[current_thread->linear]; }

void go_to(Fiber* to) {
    Fiber* from = worker->running;
    if (from == to) return;
    worker->running = to;
    fiber_switch(*from, *to);
}

void set_failure(const std::string& text) {
    worker->failed = true;
    Launch& launch = *worker->launch;
    std::lock_guard<std::mutex> lock(launch.mutex);
    if (!launch.failed) launch.message = text;
    launch.failed = true;
}

std::string at(Place place) { return std::string(place.file) + ":" + std::to_string(place.line); }

std::string block_name() {
    uint3 b = worker->block.index;
    return "block (" + std::to_string(b.x) + "," + std::to_string(b.y) + "," + std::to_string(b.z) + ")";
}

// Nobody can run: says where the threads wait, those at one place together.
void report_deadlock() {
    std::map<std::string, std::pair<int, int>> groups;  // what they do: first thread, how many
    for (const Thread& t : worker->threads) {
        std::string what = "exited";
        if (t.state == State::at_barrier) what = "at barrier " + std::to_string(t.barrier) + " in " + at(t.place);
        if (t.state == State::at_warp) {
            char mask[16];
            snprintf(mask, sizeof mask, "%08x", t.exchange->mask);
            what = std::string("at a warp operation with mask ") + mask + " in " + at(t.place);
        }
        auto place = groups.emplace(what, std::make_pair(t.view.linear, 0)).first;
        place->second.second++;
    }
    std::string text = "divergent barrier or deadlock in " + block_name() + ":";
    for (auto& [what, who] : groups)
        text += " thread " + std::to_string(who.first) + " (and " + std::to_string(who.second - 1) + " more) " + what + ";";
    set_failure(text);
}

void fiber_main();

Fiber* take_fiber() {
    if (worker->fibers_used == worker->fibers.size()) worker->fibers.emplace_back(fiber_new());
    Fiber* fiber = worker->fibers[worker->fibers_used++].get();
    fiber_start_at(*fiber, fiber_main);
    return fiber;
}

// Who runs next. Threads that can go on come before threads that have not begun; in random order a coin decides.
Fiber* choose() {
    Worker& w = *worker;
    bool can_begin = w.begun < w.order.size();
    bool can_go_on = w.ready_head < w.ready.size();
    if (can_go_on && can_begin && w.launch->order == 2) can_go_on = w.random() & 1;
    if (can_go_on) {
        if (w.launch->order == 2) {
            size_t pick = w.ready_head + w.random() % (w.ready.size() - w.ready_head);
            std::swap(w.ready[w.ready_head], w.ready[pick]);
        }
        Thread& t = w.threads[w.ready[w.ready_head++]];
        if (w.ready_head == w.ready.size()) {
            w.ready.clear();
            w.ready_head = 0;
        }
        t.state = State::running;
        current_thread = &t.view;
        return t.fiber;
    }
    if (can_begin) return take_fiber();
    if (w.alive) report_deadlock();
    return &w.main;
}

void make_ready(Thread& t) {
    t.state = State::ready;
    worker->ready.push_back(t.view.linear);
}

void release_barrier(int id) {
    Barrier& barrier = worker->barriers[id];
    barrier.arrived = 0;
    barrier.phase++;
    for (int i : worker->order) {
        Thread& t = worker->threads[i];
        if (t.state == State::at_barrier && t.barrier == id) make_ready(t);
    }
}

void finish_reading(Thread& t) {
    if (t.exchange) t.exchange->readers--;
    t.exchange = nullptr;
}

Exchange& find_exchange(Warp& warp, unsigned mask, Place place) {
    Exchange* unused = nullptr;
    for (auto& e : warp.exchanges) {
        bool open = e->readers > 0 && !e->complete;
        if (open && e->mask == mask && e->place.line == place.line && !strcmp(e->place.file, place.file)) return *e;
        if (e->readers == 0) unused = e.get();
    }
    if (!unused) {
        warp.exchanges.push_back(std::make_unique<Exchange>());
        unused = warp.exchanges.back().get();
    }
    unused->mask = mask;
    unused->arrived = 0;
    unused->complete = false;
    unused->place = place;
    return *unused;
}

// If every lane that can come has come: lets the waiting ones go on.
bool try_complete(int warp_index, Exchange& e) {
    Warp& warp = worker->warps[warp_index];
    if (((e.arrived | warp.exited) & e.mask) != e.mask) return false;
    e.complete = true;
    for (int lane = 0; lane < 32; lane++) {
        if (e.arrived >> lane & 1) {
            Thread& t = worker->threads[warp_index * 32 + lane];
            if (t.state == State::at_warp) make_ready(t);
        } else {
            memset(e.slots[lane], 0xff, slot_bytes);
        }
    }
    return true;
}

// An exited thread counts no more, neither at the block barrier nor in a warp.
void thread_exit(Thread& t) {
    t.state = State::exited;
    worker->alive--;
    order_release(&worker->block_end);
    finish_reading(t);
    if (worker->barriers[0].arrived && worker->barriers[0].arrived == worker->alive) release_barrier(0);
    int warp_index = t.view.linear / 32;
    Warp& warp = worker->warps[warp_index];
    warp.exited |= 1u << t.view.lane;
    for (auto& e : warp.exchanges)
        if (e->readers > 0 && !e->complete) try_complete(warp_index, *e);
}

void fiber_main() {
    fiber_entered();
    while (worker->begun < worker->order.size()) {
        Thread& t = worker->threads[worker->order[worker->begun++]];
        t.state = State::running;
        t.fiber = worker->running;
        current_thread = &t.view;
        order_acquire(&worker->block_begin);
        worker->launch->kernel->entry(worker->launch->arguments);
        Unobserved scope;
        thread_exit(t);
#ifdef ATROUS_EMULATOR_TSAN
        break;  // one CUDA thread a fiber, or two CUDA threads would look like one
#endif
    }
    Fiber* next;
    {
        Unobserved scope;
        next = choose();
    }
    go_to(next);
    abort();  // a finished fiber is started anew, never resumed
}

void park(Thread& t) {
    t.fiber = worker->running;
    go_to(choose());
}

// NaN in every format. Not memset: the sanitizers would take it for an access by the kernel.
void fill_with_nan(void* memory, size_t bytes) {
    asm volatile("rep stosb" : "+D"(memory), "+c"(bytes) : "a"(0xff) : "memory");
}

// Where this CPU thread's copy of a `__shared__` section lies. Plain builds: the section holds the initial image of
// thread-local variables, the copy is at the same offset in the thread's block. Sanitised builds: it is itself.
char* own_copy(char* section) {
#if defined(__SANITIZE_ADDRESS__) || defined(ATROUS_EMULATOR_TSAN)
    return section;
#else
    auto find = [](dl_phdr_info* module, size_t, void* data) {
        char*& address = *static_cast<char**>(data);
        for (int i = 0; i < module->dlpi_phnum; i++) {
            const auto& header = module->dlpi_phdr[i];
            char* image = reinterpret_cast<char*>(module->dlpi_addr + header.p_vaddr);
            if (header.p_type != PT_TLS || address < image || address >= image + header.p_memsz) continue;
            address = static_cast<char*>(module->dlpi_tls_data) + (address - image);
            return 1;
        }
        return 0;
    };
    if (!dl_iterate_phdr(find, &section)) return nullptr;
    return section;
#endif
}

void run_block(size_t number) {
    Unobserved scope;
    Worker& w = *worker;
    dim3 grid = w.launch->grid;
    w.block.index = {unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y)};
    current_block = &w.block;
    w.begun = 0;
    w.ready.clear();
    w.ready_head = 0;
    w.alive = int(w.threads.size());
    w.fibers_used = 0;
    for (Barrier& b : w.barriers) b.arrived = 0;
    for (Thread& t : w.threads) {
        t.state = State::fresh;
        t.exchange = nullptr;
        t.copies.clear();
        t.landed = 0;
        t.groups = 0;
    }
    for (size_t i = 0; i < w.warps.size(); i++) {
        size_t lanes = std::min<size_t>(32, w.threads.size() - i * 32);
        w.warps[i].exited = lanes == 32 ? 0 : ~0u << lanes;
        for (auto& e : w.warps[i].exchanges) e->readers = 0;
    }
    if (w.launch->order == 2) std::shuffle(w.order.begin(), w.order.end(), w.random);
    w.running = &w.main;
    order_release(&w.block_begin);
    go_to(choose());
    order_acquire(&w.block_end);
    if (w.failed)
        for (auto& fiber : w.fibers) fiber_abandon(*fiber);
}

std::mutex idle_mutex;
std::vector<Worker*> idle;  // workers keep their stacks from launch to launch

void work(Launch& launch, unsigned index) {
    {
        std::lock_guard<std::mutex> lock(idle_mutex);
        if (idle.empty()) idle.push_back(new Worker);
        worker = idle.back();
        idle.pop_back();
    }
    Worker& w = *worker;
    int count = int(launch.block.x * launch.block.y * launch.block.z);
    w.launch = &launch;
    w.failed = false;
    w.random.seed(launch.seed + index);
    w.block.block_size = launch.block;
    w.block.grid_size = launch.grid;
    w.threads.resize(count);
    w.warps.resize((count + 31) / 32);
    w.order.resize(count);
    w.ready.reserve(count);
    for (int i = 0; i < count; i++) {
        unsigned u = unsigned(i);
        dim3 b = launch.block;
        w.threads[i].view = {{u % b.x, u / b.x % b.y, u / b.x / b.y}, i, i & 31};
        w.order[i] = launch.order == 1 ? count - 1 - i : i;
    }
    fiber_adopt(w.main);
#ifdef ATROUS_EMULATOR_TSAN
    // Whoever makes a fiber comes before it: were it a thread of the block, no race between the two would be seen.
    while (w.fibers.size() < w.threads.size()) w.fibers.emplace_back(fiber_new());
#endif
    void* shared = nullptr;
    // The exact size, so that AddressSanitizer sees the first byte past the end.
    if (launch.shared_bytes && posix_memalign(&shared, 128, launch.shared_bytes)) abort();
    w.block.shared = shared;
    char* static_shared = launch.kernel->shared_begin ? own_copy(launch.kernel->shared_begin) : nullptr;
    size_t static_bytes = size_t(launch.kernel->shared_end - launch.kernel->shared_begin);
    size_t blocks = size_t(launch.grid.x) * launch.grid.y * launch.grid.z;
    for (size_t k = launch.next++; k < blocks && !launch.failed; k = launch.next++) {
        if (shared) fill_with_nan(shared, launch.shared_bytes);
        if (static_shared) fill_with_nan(static_shared, static_bytes);
        size_t number = launch.order == 1 ? blocks - 1 - k : k;
        if (launch.order == 2) number = launch.blocks[k];
        run_block(number);
    }
    free(shared);
    std::lock_guard<std::mutex> lock(idle_mutex);
    idle.push_back(worker);
    worker = nullptr;
}

std::atomic<int> chosen_order{0};
std::atomic<unsigned> chosen_seed{1};
std::atomic<unsigned> chosen_workers{1};

}  // namespace

void fail(Place place, const char* format, ...) {
    {
        Unobserved scope;
        char text[512];
        va_list list;
        va_start(list, format);
        vsnprintf(text, sizeof text, format, list);
        va_end(list);
        set_failure(at(place) + ": " + text + " (thread " + std::to_string(current_thread->linear) + " of " + block_name() + ")");
    }
    go_to(&worker->main);
    abort();
}

void block_barrier(Place place) {
    Thread& me = self();
    Barrier& b = worker->barriers[0];
    if (b.arrived && (b.place.line != place.line || strcmp(b.place.file, place.file)))
        fail(place, "__syncthreads mismatch: thread %d waits at %s:%d", b.first, b.place.file, b.place.line);
    Unobserved scope;
    char* event = &b.ordering[b.phase & 1];
    order_release(event);
    if (b.arrived == 0) b.first = me.view.linear;
    b.place = place;
    me.place = place;
    me.state = State::at_barrier;
    me.barrier = 0;
    if (++b.arrived == worker->alive) release_barrier(0);
    park(me);
    order_acquire(event);
}

void named_barrier(int id, int threads, bool wait, Place place) {
    if (id < 1 || id > 15) fail(place, "barrier %d: named barriers are 1 to 15", id);
    if (threads <= 0 || threads % 32) fail(place, "barrier %d for %d threads: must be whole warps", id, threads);
    Thread& me = self();
    Barrier& b = worker->barriers[id];
    if (b.arrived && b.expected != threads) fail(place, "barrier %d for %d threads: others said %d", id, threads, b.expected);
    Unobserved scope;
    char* event = &b.ordering[b.phase & 1];
    order_release(event);
    b.expected = threads;
    b.arrived++;
    if (wait) {
        me.place = place;
        me.state = State::at_barrier;
        me.barrier = id;
    }
    if (b.arrived == threads) release_barrier(id);
    if (!wait) return;
    park(me);
    order_acquire(event);
}

const char* warp_exchange(unsigned mask, const void* value, size_t bytes, bool orders_memory, Place place) {
    Thread& me = self();
    unsigned bit = 1u << me.view.lane;
    if (!(mask & bit)) fail(place, "lane %d is not in its own mask %08x", me.view.lane, mask);
    Unobserved scope;
    int warp_index = me.view.linear / 32;
    finish_reading(me);
    Exchange& e = find_exchange(worker->warps[warp_index], mask, place);
    memcpy(e.slots[me.view.lane], value, bytes);
    e.arrived |= bit;
    e.readers++;
    me.exchange = &e;
    me.place = place;
    // Only __syncwarp orders memory; shuffles, votes and mma do not, and ThreadSanitizer is told so.
    if (orders_memory) order_release(&e.ordering);
    if (!try_complete(warp_index, e)) {
        me.state = State::at_warp;
        park(me);
    }
    if (orders_memory) order_acquire(&e.ordering);
    return e.slots[0];
}

void copy_issue(const PendingCopy& copy) {
    Unobserved scope;
    self().copies.push_back(copy);
    self().copies.back().group = self().groups;
}

void copy_commit() { self().groups++; }

const PendingCopy* copy_landing(int groups_kept) {
    Thread& me = self();
    if (me.landed < me.copies.size() && me.copies[me.landed].group < me.groups - groups_kept) return &me.copies[me.landed++];
    if (me.landed == me.copies.size()) {
        me.copies.clear();
        me.landed = 0;
    }
    return nullptr;
}

bool register_kernel(const char* name, Entry entry, char* static_shared_begin, char* static_shared_end) {
    auto [place, fresh] = kernels().emplace(name, Kernel{entry, static_shared_begin, static_shared_end, false});
    if (!fresh) place->second.twice = true;
    return true;
}

}  // namespace ATROUS_EMULATOR_MODE
}  // namespace emulator

extern "C" int atrous_emulator_launch(const char* name, const unsigned grid[3], const unsigned block[3], size_t shared_bytes,
                                      void** arguments, char* message, size_t message_bytes) {
    using namespace emulator;
    auto refuse = [&](const std::string& text) {
        if (message && message_bytes) snprintf(message, message_bytes, "%s: %s", name, text.c_str());
        return 1;
    };
    auto found = kernels().find(name);
    if (found == kernels().end()) return refuse("unknown kernel");
    if (found->second.twice) return refuse("registered twice");
    for (int i = 0; i < 3; i++)
        if (grid[i] == 0 || block[i] == 0) return refuse("bad launch shape: an extent is 0");
    if (grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535) return refuse("bad launch shape: the grid is too large");
    if (block[0] > 1024 || block[1] > 1024 || block[2] > 64 || size_t(block[0]) * block[1] * block[2] > 1024)
        return refuse("bad launch shape: more than 1024 threads in a block (64 in z)");
    if (shared_bytes > 227 * 1024) return refuse("bad launch shape: more than 227 KiB of shared memory");
    Launch launch;
    launch.kernel = &found->second;
    launch.arguments = arguments;
    launch.grid = {grid[0], grid[1], grid[2]};
    launch.block = {block[0], block[1], block[2]};
    launch.shared_bytes = shared_bytes;
    launch.order = chosen_order;
    launch.seed = chosen_seed;
    if (launch.order == 2) {
        launch.blocks.resize(size_t(grid[0]) * grid[1] * grid[2]);
        std::iota(launch.blocks.begin(), launch.blocks.end(), size_t(0));
        std::mt19937 random(launch.seed);
        std::shuffle(launch.blocks.begin(), launch.blocks.end(), random);
    }
    unsigned workers = chosen_workers;
#if defined(__SANITIZE_ADDRESS__) || defined(ATROUS_EMULATOR_TSAN)
    workers = 1;  // there `__shared__` arrays are ordinary statics, which only one block at a time can use
#endif
    std::vector<std::thread> helpers;
    for (unsigned i = 1; i < workers; i++) helpers.emplace_back(work, std::ref(launch), i);
    work(launch, 0);
    for (auto& helper : helpers) helper.join();
    return launch.failed ? refuse(launch.message) : 0;
}

extern "C" void atrous_emulator_order(int order, unsigned seed) {
    emulator::chosen_order = order;
    emulator::chosen_seed = seed;
}

extern "C" void atrous_emulator_workers(unsigned workers) { emulator::chosen_workers = workers ? workers : 1; }
