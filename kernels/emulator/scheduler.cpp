// Who runs next, and what happens to those who wait: see scheduler.h.
#include "scheduler.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

namespace emulator {
inline namespace ATROUS_EMULATOR_MODE {

__thread const ThreadView* current_thread;
__thread const BlockView* current_block;
__thread Worker* worker;

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

}  // namespace ATROUS_EMULATOR_MODE
}  // namespace emulator
