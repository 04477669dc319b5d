// Launches: kernels by name, blocks among workers, shared memory that is NaN until written.
#include "scheduler.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <link.h>
#include <map>
#include <numeric>
#include <thread>

namespace emulator {
inline namespace ATROUS_EMULATOR_MODE {

namespace {

std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> table;
    return table;
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
