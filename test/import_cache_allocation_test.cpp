// SPDX-License-Identifier: Apache-2.0
// Replaces the program's operator new to count, so it is a program of its own.
#include <fabricmem/import_cache.hpp>

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <new>
#include <vector>

#include "support/cache_kit.hpp"

namespace {
thread_local int allocations = 0;
thread_local int looks_at_time = 0;
}  // namespace

// Not inlined: GCC 13 would see free() beside what it takes for its own operator new.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
    ++allocations;
    if (void* const memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
    throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
    ++allocations;
    return std::malloc(bytes == 0 ? 1 : bytes);
}
[[gnu::noinline]] void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

// All clocks of the standard library's come here, so that nobody looks at the time unseen.
extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
    ++looks_at_time;
    return static_cast<int>(::syscall(SYS_clock_gettime, clock, now));
}

TEST_CASE("A hit, a copy of a view, its end and a translation take no memory and no time, log nothing, call no driver",
          "[cache]") {
    using namespace fabricmem;
    test::CacheKit kit;
    const Id128 peer = test::id_of(1);
    std::vector<FabricBuffer> own;
    std::vector<HandleBlob> blobs;
    for (std::uint64_t i = 0; i < 100; ++i) {
        own.push_back(kit.make(1));
        blobs.push_back(own.back().blob());
        kit.cache.add_range(peer, i * 2 * test::kMiB, blobs.back());
    }
    const test::CapturedLog log(LogLevel::trace);
    kit.driver->forget();
    allocations = 0;
    looks_at_time = 0;
    std::uint64_t seen = 0;
    for (std::uint64_t i = 0; i < 20'000; ++i) {
        const ImportView view = kit.cache.acquire(blobs[i * 7 % 100]);
        const ImportView copy = view;
        seen += copy.bytes();
        seen += kit.cache.translate(peer, i * 11 % 100 * 2 * test::kMiB + 5, 100).bytes();
    }
    const int counted = allocations;
    const int looked = looks_at_time;
    CHECK(counted == 0);
    CHECK(looked == 0);
    CHECK(seen == 20'000 * (2 * test::kMiB + 100));
    CHECK(kit.driver->calls().empty());
    CHECK(log.text().empty());
    CHECK(kit.now().hits == 20'000);
    (void)blobs[0].to_hex();
    CHECK(allocations > counted);  // the counters work
    kit.cache.collect();
    CHECK(looks_at_time > looked);
}
