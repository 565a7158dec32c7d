// SPDX-License-Identifier: Apache-2.0
// Replaces the program's operator new to count, so it is a program of its own.
#include <cstdlib>
#include <new>
#include <random>
#include <vector>

#include <fabricmem/arena.hpp>
#include <fabricmem/fault_driver.hpp>

#include "support/buffers.hpp"
#include "support/test.hpp"

namespace {
thread_local int allocations = 0;
}  // namespace

// Not inlined: GCC 13 would see free() beside what it takes for its own operator new.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
    ++allocations;
    if (void* const memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
    throw std::bad_alloc();
}
// The nothrow forms too: a sanitizer's own would not match the delete below.
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
    ++allocations;
    return std::malloc(bytes == 0 ? 1 : bytes);
}
[[gnu::noinline]] void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

TEST_CASE("Blocks are made, asked and freed without an allocation or a driver call", "[arena]") {
    using namespace fabricmem;
    const auto driver = std::make_shared<FaultDriver>(make_emulated_driver());
    Arena arena(driver, 64 * test::kMiB);
    std::vector<Block> blocks(1000);
    std::mt19937 random(1);
    driver->forget();
    allocations = 0;
    std::uint64_t seen = 0;
    int refused = 0;
    for (int i = 0; i < 20'000; ++i) {
        Block& block = blocks[random() % blocks.size()];
        if (block.is_open()) block.free();
        std::optional<Block> made = arena.try_allocate(1 + random() % 200'000, std::uint64_t{64} << (random() % 8));
        if (!made.has_value()) ++refused;
        if (made.has_value()) block = std::move(*made);
        if (block.is_open())
            seen += block.blob().bytes + block.access().devices.size() + arena.statistics().live_blocks;
    }
    const int counted = allocations;
    CHECK(counted == 0);
    CHECK(refused > 0);
    CHECK(seen > 0);
    CHECK(driver->calls().empty());
    (void)arena.blob().to_hex();
    CHECK(allocations > counted);  // the counter works
}
