// test                  the checks of a plain build: results in three orders of threads, and mistakes that the
//                       emulator itself finds
// test KERNEL           runs one kernel, for a build with a sanitizer to judge
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "emulator/runtime.h"

namespace {

int checks = 0, failures = 0;

void check(bool holds, const char* what) {
    checks++;
    failures += !holds;
    printf("%s: %s\n", holds ? "holds" : "FAILS", what);
}

std::string launch(const char* kernel, unsigned threads, size_t shared, std::vector<void*> arguments) {
    const unsigned grid[3] = {1, 1, 1}, block[3] = {threads, 1, 1};
    char message[512] = "";
    const int failed = atrous_emulator_launch(kernel, grid, block, shared, arguments.data(), message, sizeof message);
    return failed ? message : "";
}

std::vector<float> numbers(size_t n) {
    std::vector<float> values(n);
    for (size_t i = 0; i < n; i++) values[i] = (float)((i * 7919 + 13) % 1009) / 1009.0f - 0.5f;
    return values;
}

// Whether all good kernels compute what they should.
bool good() {
    bool right = true;
    {
        auto x = numbers(1000);
        float out = 0.0f, *in = x.data(), *result = &out;
        int n = 1000;
        right &= launch("good_sum", 256, 0, {&in, &result, &n}).empty();
        double sum = 0.0;
        for (float v : x) sum += v;
        right &= std::fabs(out - sum) < 1e-4;
    }
    {
        auto x = numbers(64);
        std::vector<float> y(64);
        float *in = x.data(), *result = y.data();
        right &= launch("good_reverse", 64, 64 * sizeof(float), {&in, &result}).empty();
        for (int i = 0; i < 64; i++) right &= y[i] == x[63 - i];
    }
    {
        auto x = numbers(96);
        std::vector<int> y(96);
        float* in = x.data();
        int* result = y.data();
        float limit = 0.4f;
        right &= launch("good_any", 96, 0, {&in, &result, &limit}).empty();
        for (int v : y) right &= v == 1;
    }
    {
        const int depth = 64;
        auto a = numbers(16 * depth), b = numbers(depth * 8);
        std::vector<float> c(16 * 8);
        float *left = a.data(), *right_factor = b.data(), *result = c.data();
        int k = depth;
        right &= launch("good_mma", 32, 0, {&left, &right_factor, &result, &k}).empty();
        for (int i = 0; i < 16; i++) {
            for (int j = 0; j < 8; j++) {
                double sum = 0.0;
                for (int d = 0; d < depth; d++) sum += (double)a[i * depth + d] * b[d * 8 + j];
                right &= std::fabs(c[i * 8 + j] - sum) < 2e-2;  // tf32: 10 bits of mantissa
            }
        }
    }
    return right;
}

std::vector<float> missing_barrier() {
    auto x = numbers(64);
    std::vector<float> y(64);
    float *in = x.data(), *result = y.data();
    launch("bad_missing_barrier", 64, 0, {&in, &result});
    return y;
}

int one(const std::string& kernel) {
    // Exactly as large as they should be: one more is out of bounds.
    float* x = (float*)malloc(64 * sizeof(float));
    float* y = (float*)malloc(64 * sizeof(float));
    for (int i = 0; i < 64; i++) x[i] = (float)i, y[i] = 0.0f;
    std::string message;
    if (kernel == "good") {
        message = good() ? "" : "wrong results";
    } else if (kernel == "bad_global_read" || kernel == "bad_missing_barrier") {
        message = launch(kernel.c_str(), 64, 0, {&x, &y});
    } else {
        message = launch(kernel.c_str(), 64, 0, {&y});
    }
    free(x);
    free(y);
    if (!message.empty()) fprintf(stderr, "%s\n", message.c_str());
    return message.empty() ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
    if (count > 1) return one(arguments[1]);
    for (int order = 0; order < 3; order++) {
        atrous_emulator_order(order, 7);
        const char* names[] = {"good kernels, forward", "good kernels, reverse", "good kernels, random order"};
        check(good(), names[order]);
    }
    atrous_emulator_workers(2);
    check(good(), "good kernels, two workers");
    atrous_emulator_workers(1);

    std::vector<std::vector<float>> orders;
    for (int order = 0; order < 3; order++) {
        atrous_emulator_order(order, 7);
        orders.push_back(missing_barrier());
    }
    auto bytes = [&](int i, int j) { return memcmp(orders[i].data(), orders[j].data(), 64 * sizeof(float)) != 0; };
    check(bytes(0, 1) && bytes(0, 2), "a missing barrier gives other results in another order");
    atrous_emulator_order(0, 0);

    std::vector<float> y(64);
    float* result = y.data();
    check(launch("bad_unwritten", 64, 0, {&result}).empty() && y[31] == 1.0f && std::isnan(y[32]),
          "shared memory that nobody wrote is NaN");
    const std::string message = launch("bad_divergent_barrier", 64, 0, {&result});
    check(message.find("planted.cu") != std::string::npos, "a divergent barrier is told with its place");
    printf("       %s\n", message.substr(0, message.find('\n')).c_str());
    check(good(), "good kernels after a launch that failed");
    check(!launch("no_such_kernel", 64, 0, {}).empty(), "an unknown kernel is told");
    check(!launch("good_reverse", 2048, 0, {&result, &result}).empty(), "a block of 2048 threads is told");
    printf("%d of %d checks hold\n", checks - failures, checks);
    return failures != 0;
}
