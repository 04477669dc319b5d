// cuda_emu_rt.cpp - fiber scheduler. Never compile this file with -fsanitize=thread (link with it); -fsanitize=address is fine.
// env: EMU_THREADS=n workers, EMU_ORDER=fwd|rev|rand, EMU_SEED=n, EMU_STACK=bytes
#include "emulator.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include <atomic>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>
#include <sys/mman.h>
#include <pthread.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef EMU_TSAN
extern "C" { void* __tsan_create_fiber(unsigned); void __tsan_switch_to_fiber(void*, unsigned); void* __tsan_get_current_fiber();
             void __tsan_acquire(void*); void __tsan_release(void*);
             void __tsan_ignore_thread_begin(); void __tsan_ignore_thread_end(); }
struct Ign { Ign() { __tsan_ignore_thread_begin(); } ~Ign() { __tsan_ignore_thread_end(); } };   // the emulator's own state is not the kernel's
#define IGN_BEGIN() __tsan_ignore_thread_begin()
#define IGN_END() __tsan_ignore_thread_end()
#define HB_REL(p) __tsan_release(p)
#define HB_ACQ(p) __tsan_acquire(p)
#else
struct Ign { Ign() {} };
#define IGN_BEGIN() ((void)0)
#define IGN_END() ((void)0)
#define HB_REL(p) ((void)0)
#define HB_ACQ(p) ((void)0)
#endif
static int g_order = 0; static unsigned g_seed = 1;
namespace emu {
__thread ThreadCtx* cur; __thread BlockCtx* blk;
namespace {
enum St : uint8_t { NEW, RUN, READY, BAR, WARP, DONE };
struct Fiber { void* sp; char* stk; size_t len; void* fake; void* tsan; 
#ifndef __x86_64__
    ucontext_t uc;
#endif
};
struct Copy { void* d; const void* s; int n, valid, group; };
struct Thr { ThreadCtx c; St st; Fiber* fib; const char* file; int line; int bar; unsigned wmask; unsigned gen; std::vector<Copy> cp; int groups; };
struct Warp { alignas(16) char slot[2][32][SLOT]; char hb[2]; };   // two phases: a late waiter must not acquire the next phase
struct Bar { int n; unsigned gen; const char* file; int line; char hb[2]; };
struct Worker {
    std::vector<Thr> t; std::vector<Warp> w; std::vector<int> order, ready; size_t head = 0, next = 0; int alive = 0;
    std::vector<Fiber*> pool, used; Fiber main{}; Fiber* self = nullptr; Bar bar[16]; BlockCtx b; Thunk f; void** args; char hb;
    std::mt19937 rng; int mode = 0;
};
__thread Worker* W;
#ifdef __x86_64__
extern "C" void emu_switch(void** save, void* to);
asm(".text\n.globl emu_switch\n.hidden emu_switch\nemu_switch:\n push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp,(%rdi)\n mov %rsi,%rsp\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
#endif
void go(Fiber* to) {
    Fiber* me = W->self; if (me == to) return; W->self = to;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&me->fake, to->stk, to->len);
#endif
#ifdef EMU_TSAN
    __tsan_switch_to_fiber(to->tsan, 1);
#endif
#ifdef __x86_64__
    emu_switch(&me->sp, to->sp);
#else
    swapcontext(&me->uc, &to->uc);
#endif
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(me->fake, nullptr, nullptr);
#endif
}
void fiber_main();
Fiber* fresh() {
    if (!W->pool.empty()) { Fiber* f = W->pool.back(); W->pool.pop_back(); return f; }
    static size_t len = getenv("EMU_STACK") ? strtoul(getenv("EMU_STACK"), 0, 0) : 64 << 10;
    Fiber* f = new Fiber{}; f->len = len;
    f->stk = (char*)mmap(0, len + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    mprotect(f->stk, 4096, PROT_NONE); f->stk += 4096;               // guard page: stack overflow = SIGSEGV
#ifdef EMU_TSAN
    f->tsan = __tsan_create_fiber(0);
#endif
#ifdef __x86_64__
    static std::atomic<unsigned> color{0}; // stagger stack tops: equal offsets mod 4 KiB would share L1 sets
    void** s = (void**)(f->stk + len - (color++ % 31) * 128) - 2; *s = (void*)fiber_main; s -= 6; memset(s, 0, 48); f->sp = s;
#else
    getcontext(&f->uc); f->uc.uc_stack.ss_sp = f->stk; f->uc.uc_stack.ss_size = len; makecontext(&f->uc, fiber_main, 0);
#endif
    return f;
}
[[noreturn]] void deadlock() {
    fprintf(stderr, "emu: barrier divergence/deadlock in block (%u,%u,%u):\n", W->b.bid.x, W->b.bid.y, W->b.bid.z);
    int shown = 0; for (auto& t : W->t) if (shown < 8) { shown++; fprintf(stderr, "  thread %d: %s %s:%d mask=%08x\n", t.c.lin,
        t.st == DONE ? "exited" : t.st == BAR ? "at block barrier" : "at warp op", t.file ? t.file : "-", t.st == BAR ? t.line / 1000 : t.line, t.wmask); }
    abort();
}
void next_fiber() {                                                   // switch to whatever may run
    if (W->head < W->ready.size()) {
        if (W->mode == 2) std::swap(W->ready[W->head], W->ready[W->head + W->rng() % (W->ready.size() - W->head)]);
        Thr& t = W->t[W->ready[W->head++]]; if (W->head == W->ready.size()) W->ready.clear(), W->head = 0;
        t.st = RUN; cur = &t.c; go(t.fib); return; }
    if (W->next < W->order.size()) { go(fresh()); return; }
    if (W->alive) deadlock();
    go(&W->main);
}
void park(Thr& t) { t.fib = W->self; next_fiber(); }
void release_bar(Bar& b, int id) { b.n = 0; b.gen++; for (int i : W->order) if (W->t[i].st == BAR && W->t[i].bar == id) W->t[i].st = READY, W->ready.push_back(i); }
void thread_exit(Thr& t) {                                            // exited threads no longer count at barrier 0
    t.st = DONE; W->alive--; HB_REL(&W->hb);
    Bar& b = W->bar[0]; if (b.n && b.n == W->alive) release_bar(b, 0);
    int lo = t.c.lin & ~31, hi = std::min(lo + 32, (int)W->t.size()); // lanes waiting only for this one?
    for (int i = lo; i < hi; i++) if (W->t[i].st == WARP && W->t[i].wmask >> t.c.lane & 1) { unsigned m = W->t[i].wmask; bool all = true;
        for (int j = lo; j < hi; j++) if (m >> (j - lo) & 1 && W->t[j].st != WARP && W->t[j].st != DONE) all = false;
        if (all) for (int j = lo; j < hi; j++) if (W->t[j].st == WARP && W->t[j].wmask == m) { // exited lanes read as NaN
            for (int k = lo; k < hi; k++) if (W->t[k].st == DONE) memset(W->w[lo >> 5].slot[(W->t[j].gen - 1) & 1][k - lo], 0xff, SLOT);
            W->t[j].st = READY; W->ready.push_back(j); }
        break; }
}
void fiber_main() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    IGN_BEGIN();
    for (;;) {
        while (W->next < W->order.size()) {                           // a thread that meets no barrier costs no switch
            Thr& t = W->t[W->order[W->next++]]; t.st = RUN; cur = &t.c; HB_ACQ(&W->hb);
            IGN_END(); W->f(W->args); IGN_BEGIN(); thread_exit(t);
#ifdef EMU_TSAN
            break;                                                    // one CUDA thread per TSan fiber
#endif
        }
        W->used.push_back(W->self); next_fiber();
    }
}
void run_block(uint3 bid) {
    Ign ig; Worker& w = *W; w.b.bid = bid; blk = &w.b; w.next = w.head = 0; w.ready.clear(); w.alive = (int)w.t.size();
    for (auto& x : w.bar) x.n = 0;
    for (auto& t : w.t) { t.st = NEW; t.gen = 0; t.file = nullptr; t.cp.clear(); t.groups = 0; }
    if (w.mode == 2) std::shuffle(w.order.begin(), w.order.end(), w.rng);
    w.self = &w.main; HB_REL(&w.hb); next_fiber(); HB_ACQ(&w.hb);
    w.pool.insert(w.pool.end(), w.used.begin(), w.used.end()); w.used.clear();
}
std::map<std::string, Thunk>& table() { static std::map<std::string, Thunk> m; return m; }
}
void block_sync(int id, int count, const char* file, int line) {
    Ign ig; Thr& t = W->t[cur->lin]; Bar& b = W->bar[id]; [[maybe_unused]] char* hb = &b.hb[b.gen & 1]; HB_REL(hb);
    if (b.n && id == 0 && b.line != line) { fprintf(stderr, "emu: __syncthreads mismatch: %s:%d vs %s:%d\n", b.file, b.line / 1000, file, line / 1000); abort(); }
    t.st = BAR; t.bar = id; t.file = b.file = file; t.line = b.line = line; 
    if (++b.n == (count < 0 ? W->alive : count)) release_bar(b, id);
    park(t); HB_ACQ(hb);
}
const char* warp_exchange(unsigned mask, const void* v, size_t n, const char* file, int line) {
    Ign ig; Thr& t = W->t[cur->lin]; int wi = cur->lin >> 5; Warp& w = W->w[wi]; auto& sl = w.slot[t.gen & 1]; [[maybe_unused]] char* hb = &w.hb[t.gen++ & 1];
    if (!(mask >> cur->lane & 1)) { fprintf(stderr, "emu: lane %d not in its own mask %08x %s:%d\n", cur->lane, mask, file, line); abort(); }
    memcpy(sl[cur->lane], v, n); HB_REL(hb);
    t.st = WARP; t.wmask = mask; t.file = file; t.line = line; int lo = wi * 32, hi = std::min(lo + 32, (int)W->t.size());
    bool all = true; for (int i = lo; i < hi && all; i++) if (mask >> (i - lo) & 1) { Thr& o = W->t[i];
        if (o.st == DONE) memset(sl[i - lo], 0xff, SLOT); else if (o.st != WARP || o.wmask != mask || o.line != line) all = false; }
    if (all) { for (int i = lo; i < hi; i++) if (mask >> (i - lo) & 1 && i != cur->lin && W->t[i].st == WARP) W->t[i].st = READY, W->ready.push_back(i); t.st = RUN; }
    else park(t);
    HB_ACQ(hb); return sl[0];
}
void cp_async(void* d, const void* s, int n, int valid) { Ign ig; Thr& t = W->t[cur->lin]; t.cp.push_back({d, s, n, valid, t.groups}); memset(d, 0xff, n); }
void cp_commit() { W->t[cur->lin].groups++; }
void cp_wait(int keep) { Thr& t = W->t[cur->lin]; size_t i = 0;
    for (; i < t.cp.size() && t.cp[i].group < t.groups - keep; i++) { auto& c = t.cp[i]; memcpy(c.d, c.s, c.valid); memset((char*)c.d + c.valid, 0, c.n - c.valid); }
    t.cp.erase(t.cp.begin(), t.cp.begin() + i); }
void register_kernel(const char* n, Thunk f) { table()[n] = f; }
void launch(dim3 g, dim3 b, size_t smem, Thunk f, void** args) {
    size_t nb = (size_t)g.x * g.y * g.z; int nt = b.x * b.y * b.z; std::atomic<size_t> ctr{0};
    if (nt == 0 || nt > 1024 || smem > 227 * 1024) { fprintf(stderr, "emu: bad launch\n"); abort(); }
    int mode = g_order;
    unsigned seed = g_seed;
    int nw = getenv("EMU_THREADS") ? atoi(getenv("EMU_THREADS")) : 1;
#ifdef EMU_SAN
    nw = 1;
#endif
    auto body = [&](int wi) {
        static thread_local Worker wk; W = &wk; wk.mode = mode; wk.rng.seed(seed + wi); wk.f = f; wk.args = args; wk.b.bdim = b; wk.b.gdim = g;
        std::vector<char> dyn(smem); wk.b.dyn = dyn.data(); wk.t.resize(nt); wk.w.resize((nt + 31) / 32); wk.order.resize(nt);
        for (int i = 0; i < nt; i++) { wk.t[i].c = {{i % b.x, i / b.x % b.y, i / (b.x * b.y)}, i, i & 31}; wk.order[i] = mode == 1 ? nt - 1 - i : i; }
#ifdef __SANITIZE_ADDRESS__
        pthread_attr_t a; void* p; size_t n; pthread_getattr_np(pthread_self(), &a); pthread_attr_getstack(&a, &p, &n); pthread_attr_destroy(&a); wk.main.stk = (char*)p; wk.main.len = n;
#endif
#ifdef EMU_TSAN
        wk.main.tsan = __tsan_get_current_fiber();
#endif
        for (size_t k; (k = ctr++) < nb;) { size_t i = mode == 1 ? nb - 1 - k : k; if (smem) memset(dyn.data(), 0xff, smem);
            run_block({unsigned(i % g.x), unsigned(i / g.x % g.y), unsigned(i / g.x / g.y)}); }
    };
    std::vector<std::thread> th; for (int i = 1; i < nw; i++) th.emplace_back(body, i); body(0); for (auto& t : th) t.join();
}
}
extern "C" int atrous_emulator_launch(const char* name, const unsigned* g, const unsigned* b, size_t smem, void** args, char* m, size_t n) {
    auto it = emu::table().find(name); if (it == emu::table().end()) { snprintf(m, n, "unknown kernel"); return 500; }
    emu::launch({g[0], g[1], g[2]}, {b[0], b[1], b[2]}, smem, it->second, args); return 0; }
extern "C" void atrous_emulator_order(int o, unsigned s) { g_order = o; g_seed = s; }
