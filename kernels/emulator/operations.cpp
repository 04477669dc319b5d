// What a thread calls and may have to wait in: barriers, operations of a warp, asynchronous copies.
#include "scheduler.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emulator {
inline namespace ATROUS_EMULATOR_MODE {

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

}  // namespace ATROUS_EMULATOR_MODE
}  // namespace emulator
