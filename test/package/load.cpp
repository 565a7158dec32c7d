// SPDX-License-Identifier: Apache-2.0
// Prints how many microseconds dlopen of argv[1] takes. A process of its own each time, as a second dlopen finds it
// loaded.
#include <chrono>
#include <cstdio>

#include <dlfcn.h>

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    const auto start = std::chrono::steady_clock::now();
    if (dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) == nullptr) {
        std::fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    const auto end = std::chrono::steady_clock::now();
    std::printf("%lld\n",
                static_cast<long long>(std::chrono::duration_cast<std::chrono::microseconds>(end - start).count()));
    return 0;
}
