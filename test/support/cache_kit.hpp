// SPDX-License-Identifier: Apache-2.0
// What tests of import caches say often: an exporter, a cache whose driver calls are counted and can fail, time that
// tests make themselves.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>

#include <fabricmem/fault_driver.hpp>
#include <fabricmem/import_cache.hpp>

#include "support/buffers.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

namespace fabricmem::test {

using std::chrono::milliseconds;

inline constexpr auto kCachePatience = std::chrono::seconds(60);

inline Id128 id_of(std::uint64_t number) {
    Id128 id;
    for (std::size_t i = 0; i < 8; ++i) id.bytes[i] = static_cast<std::uint8_t>(number >> (8 * i));
    return id;
}

/// Exporter and importer on one emulated node.
struct CacheKit {
    explicit CacheKit(ImportCacheOptions options = {}) : cache(driver, options) {}

    [[nodiscard]] FabricBuffer make(std::uint64_t peer = 0, std::uint64_t generation = 0,
                                    std::uint64_t bytes = 2 * kMiB) const {
        FabricBufferOptions options;
        options.location = Location::host_numa(0);
        options.peer = id_of(peer);
        options.generation = generation;
        return {emulated, bytes, options};
    }
    [[nodiscard]] std::ptrdiff_t imports() const { return count(driver->calls(), "mem_import_from_shareable_handle"); }
    /// Ends of imports are over; then what the importer and the exporters hold.
    [[nodiscard]] EmulatedCounts settled() {
        CHECK(cache.wait_until_torn_down(std::chrono::steady_clock::now() + kCachePatience));
        return emulated_counts(*emulated);
    }
    std::size_t collect_after(milliseconds time) { return cache.collect(start + time); }
    [[nodiscard]] ImportCacheStatistics now() const { return cache.statistics(); }

    std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
    std::shared_ptr<Driver> emulated = make_emulated_driver();
    std::shared_ptr<FaultDriver> driver = std::make_shared<FaultDriver>(emulated);
    ImportCache cache;
};

/// Waits for what another thread does; false where that takes a minute.
template <typename Condition>
bool comes_true(Condition&& condition) {
    const auto deadline = std::chrono::steady_clock::now() + kCachePatience;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::yield();
    }
    return true;
}

/// Ends with the driver's counts as before, once all views and the cache are gone.
inline bool comes_back(const std::shared_ptr<Driver>& emulated, const EmulatedCounts& before) {
    return comes_true([&] { return emulated_counts(*emulated) == before; });
}

}  // namespace fabricmem::test
