// SPDX-License-Identifier: Apache-2.0
// Random operations on an import cache beside a slow and plain model of it.
#include <fabricmem/import_cache.hpp>

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include <fabricmem/forwarding_driver.hpp>

#include "support/build.hpp"
#include "support/cache_kit.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr std::size_t kEntries = 6;
constexpr std::uint64_t kMaxBytes = 20 * kMiB;
constexpr std::uint64_t kPeers = 3;
constexpr milliseconds kIdle{1000};

// What the cache is to have, oldest first.
struct Entry {
    std::size_t allocation;
    std::uint64_t bytes;
    std::uint64_t peer;
    int views = 0;
    milliseconds used{0};
    bool used_since = false;  // the last look at the time
    bool retired = false;

    [[nodiscard]] bool is_older_than(const Entry& other) const {
        return std::pair(used, used_since) < std::pair(other.used, other.used_since);
    }
};

struct Allocation {
    FabricBuffer buffer;
    std::uint64_t peer;
    std::uint64_t number;  // what its first bytes say
};

struct Held {
    ImportView view;
    std::size_t allocation;
    std::uint64_t serial;  // of the import
};

// One step after the other, by a clock that moves a millisecond each time.
class Trial {
public:
    explicit Trial(std::uint64_t seed)
        : random_(seed), kit_({.max_entries = kEntries, .max_bytes = kMaxBytes, .idle_timeout = kIdle}) {
        for (int i = 0; i < 12; ++i) make_allocation();
    }

    void step() {
        time_ += milliseconds(1 + (random_() % 50 == 0 ? 1100 : 0));
        collect();
        switch (random_() % 12) {
            case 0: replace_allocation(); break;
            case 1: evict(); break;
            case 2: invalidate(); break;
            case 3:
            case 4:
            case 5: let_go(); break;
            case 6: copy(); break;
            default: acquire(); break;
        }
        check();
    }
    void let_all_go() {
        while (!held_.empty()) let_go();
    }
    CacheKit& kit() { return kit_; }
    [[nodiscard]] std::uint64_t refused() const { return refused_; }

private:
    struct Import {
        Entry entry;
        std::uint64_t serial;
    };

    void make_allocation() {
        const std::uint64_t peer = 1 + random_() % kPeers;
        const std::uint64_t bytes = random_() % 4 == 0 ? 8 * kMiB : 2 * kMiB;
        allocations_.push_back({kit_.make(peer, 0, bytes), peer, ++numbers_});
        std::memcpy(allocations_.back().buffer.address(), &numbers_, sizeof numbers_);
    }
    // The exporter frees it: the cache does not know, and keeps what it has.
    void replace_allocation() {
        const std::size_t at = random_() % allocations_.size();
        for (Import& import : model_) {
            if (import.entry.allocation == at) import.entry.allocation = kGone;
        }
        std::swap(allocations_[at], allocations_.back());
        for (Import& import : model_) {
            if (import.entry.allocation == allocations_.size() - 1) import.entry.allocation = at;
        }
        allocations_.pop_back();
        make_allocation();
    }

    [[nodiscard]] Import* find(std::size_t allocation) {
        for (Import& import : model_) {
            if (import.entry.allocation == allocation && !import.entry.retired) return &import;
        }
        return nullptr;
    }
    [[nodiscard]] std::uint64_t bytes() const {
        std::uint64_t bytes = 0;
        for (const Import& import : model_) bytes += import.entry.bytes;
        return bytes;
    }
    [[nodiscard]] bool has_room(std::uint64_t bytes_more) const {
        return model_.size() < kEntries && bytes() + bytes_more <= kMaxBytes;
    }
    // False where all that is older is in use.
    bool end_oldest() {
        auto oldest = model_.end();
        for (auto import = model_.begin(); import != model_.end(); ++import) {
            if (import->entry.views != 0 || import->entry.retired) continue;
            if (oldest == model_.end() || import->entry.is_older_than(oldest->entry)) oldest = import;
        }
        if (oldest == model_.end()) return false;
        model_.erase(oldest);
        return true;
    }

    void acquire() {
        const std::size_t at = random_() % allocations_.size();
        const Allocation& wanted = allocations_[at];
        const std::uint64_t offset = random_() % 2 == 0 ? 0 : kMiB;
        const HandleBlob blob = wanted.buffer.blob().sub_range(offset, 64);
        bool fits = true;
        Import* found = find(at);
        const bool hit = found != nullptr;
        if (!hit) {
            while (!has_room(wanted.buffer.mapped_bytes()) && fits) fits = end_oldest();
        }
        const std::uint64_t imports = kit_.now().imports;
        std::optional<ImportView> view;
        const std::optional<Error> error = error_of([&] { view = kit_.cache.acquire(blob); });
        REQUIRE(error.has_value() == !fits);
        if (!fits) {
            ++refused_;
            REQUIRE(error->kind() == ErrorKind::out_of_memory);
            return;
        }
        REQUIRE(kit_.now().imports == imports + (hit ? 0 : 1));
        if (!hit) {
            model_.push_back({{at, wanted.buffer.mapped_bytes(), wanted.peer}, ++serials_});
            found = &model_.back();
        }
        if (offset == 0) REQUIRE(std::memcmp(view->address(), &wanted.number, sizeof wanted.number) == 0);
        use(found->entry);
        if (random_() % 3 != 0) return;
        ++found->entry.views;
        held_.push_back({std::move(*view), at, found->serial});
    }
    void use(Entry& entry) const {
        entry.used = time_;
        entry.used_since = true;
    }
    [[nodiscard]] std::vector<Import>::iterator import_of(const Held& held) {
        return std::find_if(model_.begin(), model_.end(),
                            [&](const Import& import) { return import.serial == held.serial; });
    }
    void let_go() {
        if (held_.empty()) return;
        std::swap(held_[random_() % held_.size()], held_.back());
        const auto import = import_of(held_.back());
        REQUIRE(held_.back().view.buffer().is_open());
        held_.pop_back();
        use(import->entry);
        if (--import->entry.views == 0 && import->entry.retired) model_.erase(import);
    }
    void copy() {
        if (held_.empty()) return;
        held_.push_back(held_[random_() % held_.size()]);
        ++import_of(held_.back())->entry.views;
    }
    template <typename IsIt>
    std::size_t retire(IsIt is_it) {
        std::size_t retired = 0;
        for (auto import = model_.begin(); import != model_.end();) {
            const bool ends = !import->entry.retired && is_it(import->entry);
            if (ends) ++retired;
            if (ends) import->entry.retired = true;
            import = ends && import->entry.views == 0 ? model_.erase(import) : std::next(import);
        }
        return retired;
    }
    void evict() {
        const std::uint64_t peer = 1 + random_() % kPeers;
        REQUIRE(kit_.cache.evict(id_of(peer)) == retire([&](const Entry& entry) { return entry.peer == peer; }));
    }
    void invalidate() {
        const std::size_t at = random_() % allocations_.size();
        REQUIRE(kit_.cache.invalidate(*allocations_[at].buffer.blob().allocation_id) ==
                retire([&](const Entry& entry) { return entry.allocation == at; }));
    }
    // What was used since the last time is taken to have been used by now.
    void collect() {
        for (Import& import : model_) {
            if (std::exchange(import.entry.used_since, false)) import.entry.used = time_;
        }
        const std::size_t ended = retire([&](Entry& entry) {
            if (time_ - entry.used < kIdle) return false;
            if (entry.views != 0) entry.used = time_;
            return entry.views == 0;
        });
        REQUIRE(kit_.collect_after(kFuture + time_) == ended);
    }
    void check() {
        const ImportCacheStatistics now = kit_.now();
        REQUIRE(now.entries == model_.size());
        REQUIRE(now.bytes == bytes());
        REQUIRE(now.entries_peak <= kEntries);
        REQUIRE(now.bytes_peak <= kMaxBytes);
        REQUIRE(now.retired == static_cast<std::uint64_t>(std::count_if(
                                   model_.begin(), model_.end(), [](const Import& i) { return i.entry.retired; })));
        REQUIRE(now.misses == now.imports + now.failed_imports + refused_);
    }

    static constexpr std::size_t kGone = ~std::size_t{0};
    // So far ahead that the misses' own look at the clock finds nothing idle.
    static constexpr milliseconds kFuture{1'000'000'000};

    std::mt19937_64 random_;
    CacheKit kit_;
    std::vector<Allocation> allocations_;
    std::vector<Import> model_;  // in the order of their making
    std::vector<Held> held_;
    milliseconds time_{0};
    std::uint64_t numbers_ = 0;
    std::uint64_t serials_ = 0;
    std::uint64_t refused_ = 0;
};

}  // namespace

TEST_CASE("A cache does what a plain model of it does, whatever is asked of it", "[cache]") {
    for (const std::uint64_t seed : {1U, 2U, 3U, 4U}) {
        CAPTURE(seed);
        Trial trial(seed);
        for (int i = 0; i < (kSlowBuild ? 500 : 4000); ++i) trial.step();
        if (!kSlowBuild) CHECK(trial.refused() > 0);
        const ImportCacheStatistics now = trial.kit().now();
        CHECK(now.hits > 0);
        CHECK(now.evicted_for_room > 0);
        CHECK(now.evicted_idle > 0);
        trial.let_all_go();
        trial.kit().cache.close();
    }
}

namespace {

std::uint64_t resident_bytes() {
    std::ifstream file("/proc/self/statm");
    std::uint64_t pages = 0;
    file >> pages >> pages;
    return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

// Imports that cost nothing: what is left is the cache and its threads. Counts what there is at a time.
class NoMemory final : public ForwardingDriver {
public:
    using ForwardingDriver::ForwardingDriver;
    CUresult mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void*,
                                              CUmemAllocationHandleType) noexcept override {
        *handle = 1;
        raise(most_imports, ++imports);
        return CUDA_SUCCESS;
    }
    CUresult mem_release(CUmemGenericAllocationHandle) noexcept override {
        --imports;
        return CUDA_SUCCESS;
    }
    CUresult mem_address_reserve(CUdeviceptr* address, std::size_t bytes, std::size_t, CUdeviceptr,
                                 unsigned long long) noexcept override {
        *address = next_address.fetch_add(bytes);
        ++ranges;
        return CUDA_SUCCESS;
    }
    CUresult mem_address_free(CUdeviceptr, std::size_t) noexcept override {
        --ranges;
        return CUDA_SUCCESS;
    }
    CUresult mem_map(CUdeviceptr, std::size_t, std::size_t, CUmemGenericAllocationHandle,
                     unsigned long long) noexcept override {
        return CUDA_SUCCESS;
    }
    CUresult mem_unmap(CUdeviceptr, std::size_t) noexcept override { return CUDA_SUCCESS; }
    CUresult mem_set_access(CUdeviceptr, std::size_t, const CUmemAccessDesc*, std::size_t) noexcept override {
        return CUDA_SUCCESS;
    }
    static void raise(std::atomic<std::int64_t>& most, std::int64_t value) {
        std::int64_t seen = most.load();
        while (seen < value && !most.compare_exchange_weak(seen, value)) {
        }
    }

    std::atomic<std::int64_t> imports{0};
    std::atomic<std::int64_t> most_imports{0};
    std::atomic<std::int64_t> ranges{0};
    std::atomic<CUdeviceptr> next_address{CUdeviceptr{1} << 40};
};

}  // namespace

TEST_CASE("However many allocations come along, the cache stays within its bounds", "[cache]") {
    constexpr std::int64_t kMost = 64;
    constexpr int kSettleEach = 1000;
    const auto emulated = make_emulated_driver();
    const auto driver = std::make_shared<NoMemory>(emulated);
    const FabricBuffer own(emulated, 1);
    ImportCache cache(driver, {.max_entries = kMost});
    HandleBlob blob = own.blob();
    // Each has a thread for its import, so a million is for those who ask for it: .ci/run does.
    const char* const asked = std::getenv("FABRICMEM_CACHE_BLOBS");
    const int blobs = asked != nullptr ? std::atoi(asked) : kSlowBuild ? 2'000 : 20'000;
    std::uint64_t resident = 0;
    for (int i = 0; i < blobs; ++i) {
        blob.allocation_id = id_of(static_cast<std::uint64_t>(i) + 1);
        blob.peer = id_of(static_cast<std::uint64_t>(i) + 1);
        static_cast<void>(cache.acquire(blob));
        if (i % kSettleEach != 0) continue;
        // What has no bound of its own is what is ending; it ends as fast as others are made.
        REQUIRE(cache.wait_until_torn_down(std::chrono::steady_clock::now() + kCachePatience));
        REQUIRE(driver->imports <= kMost);
        if (i == blobs / 2 / kSettleEach * kSettleEach) resident = resident_bytes();
    }
    if (!kSanitized) CHECK(resident_bytes() < resident + 16 * kMiB);  // sanitizers keep what is freed
    const ImportCacheStatistics now = cache.statistics();
    CHECK(now.imports == static_cast<std::uint64_t>(blobs));
    CHECK(now.entries == kMost);
    CHECK(now.entries_peak == kMost);
    CHECK(now.evicted_for_room == static_cast<std::uint64_t>(blobs) - kMost);
    CHECK(driver->most_imports < kMost + kSettleEach);
    cache.close();
    CHECK(driver->imports == 0);
    CHECK(driver->ranges == 0);
}
