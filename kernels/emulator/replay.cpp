// Runs recorded launches again, under a sanitizer: `replay FILE`.
//
// A sanitizer inside a Rust program is awkward, so the emulated device writes its launches to a file
// (`atrous::backend::cuda::emulated::record_to`), and this program, built with the same kernels, replays them. Every buffer
// has exactly its size, so that AddressSanitizer sees the first byte past the end; ThreadSanitizer takes barriers for
// the only order there is between a block's threads. After each launch the buffers must hold what they held, bit for
// bit: a replay that computes something else proves nothing.
//
// The file, little-endian: `ATROUSR1`, then launches: u16 length and name; u32 grid[3], block[3], shared bytes; u16 number
// of buffers, each u64 bytes, content before, content after; u16 number of arguments, each u8 kind and 0: u16 bytes and
// value, or 1: u16 which buffer.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "runtime.h"

namespace {

FILE* file;

// False at the end of the file; ends the program in the middle of something.
bool read_bytes(void* to, size_t bytes, bool may_end = false) {
    const size_t got = fread(to, 1, bytes, file);
    if (got == bytes) return true;
    if (got == 0 && may_end) return false;
    fprintf(stderr, "replay: the recording is cut off\n");
    exit(2);
}

template <class T> T read_number() {
    T value;
    read_bytes(&value, sizeof value);
    return value;
}

struct Buffer {
    void* memory = nullptr;
    std::vector<char> after;
};

}  // namespace

int main(int count, char** words) {
    file = count > 1 ? fopen(words[1], "rb") : nullptr;
    char magic[8];
    if (!file || !read_bytes(magic, 8) || memcmp(magic, "ATROUSR1", 8)) {
        fprintf(stderr, "usage: replay FILE (a recording of launches)\n");
        return 2;
    }
    size_t launches = 0;
    std::set<std::string> kernels;
    for (uint16_t length; read_bytes(&length, sizeof length, true);) {
        std::string name(length, 0);
        read_bytes(name.data(), length);
        unsigned sizes[7];
        read_bytes(sizes, sizeof sizes);
        std::vector<Buffer> buffers(read_number<uint16_t>());
        for (Buffer& b : buffers) {
            const size_t bytes = read_number<uint64_t>();
            if (posix_memalign(&b.memory, 256, bytes)) abort();
            read_bytes(b.memory, bytes);
            b.after.resize(bytes);
            read_bytes(b.after.data(), bytes);
        }
        // An argument is words, each a number or the place of a buffer.
        std::vector<std::vector<uint64_t>> values(read_number<uint16_t>());
        std::vector<void*> arguments;
        for (auto& value : values) {
            value.resize(read_number<uint16_t>());
            for (uint64_t& word : value) {
                const bool is_buffer = read_number<uint8_t>();
                word = read_number<uint64_t>();
                if (is_buffer) word = reinterpret_cast<uint64_t>(buffers.at(word).memory);
            }
            arguments.push_back(value.data());
        }
        char message[512] = "";
        if (atrous_emulator_launch(name.c_str(), sizes, sizes + 3, sizes[6], arguments.data(), message, sizeof message)) {
            fprintf(stderr, "replay: launch %zu, %s: %s\n", launches, name.c_str(), message);
            return 1;
        }
        for (size_t i = 0; i < buffers.size(); i++) {
            const char* is = static_cast<char*>(buffers[i].memory);
            for (size_t at = 0; at < buffers[i].after.size(); at++) {
                if (is[at] != buffers[i].after[at]) {
                    fprintf(stderr, "replay: launch %zu, %s: buffer %zu has other bits at byte %zu\n", launches, name.c_str(), i, at);
                    return 1;
                }
            }
            free(buffers[i].memory);
        }
        launches++;
        kernels.insert(name);
    }
    printf("%zu launches of %zu kernels clean\n", launches, kernels.size());
    for (const std::string& name : kernels) printf("  %s\n", name.c_str());
    return 0;
}
