// SPDX-License-Identifier: Apache-2.0
// One cache in many threads that acquire, let go, evict and invalidate, while exporters start anew and calls fail.
// FABRICMEM_CACHE_SECONDS and FABRICMEM_CACHE_SEED make it longer, and another one: `./dev soak cache` does.
#include <fabricmem/import_cache.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "cache/striped_refs.hpp"
#include "support/build.hpp"
#include "support/cache_kit.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr std::size_t kThreads = 16;
constexpr std::uint64_t kExporters = 12;
constexpr std::uint32_t kEntries = 20;  // views that are kept may be of all of them, and more at times

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* const value = std::getenv(name);
    return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

// One of them is a peer's memory, at an address that all its incarnations have. Its first words say which it is.
struct Marks {
    std::uint64_t exporter;
    std::uint64_t generation;
};

class Exporters {
public:
    explicit Exporters(const CacheKit& kit) : kit_(kit) {
        for (std::uint64_t i = 0; i < kExporters; ++i) own_.push_back(make(i, 1));
    }
    [[nodiscard]] std::pair<HandleBlob, Marks> of(std::uint64_t exporter) {
        const std::lock_guard lock(mutex_);
        const HandleBlob& blob = own_[exporter]->blob();
        return {blob, {exporter, blob.generation}};
    }
    void start_anew(std::uint64_t exporter) {
        const std::lock_guard lock(mutex_);
        const std::uint64_t generation = own_[exporter]->blob().generation + 1;
        own_[exporter].reset();
        own_[exporter] = make(exporter, generation);
    }

private:
    [[nodiscard]] std::unique_ptr<FabricBuffer> make(std::uint64_t exporter, std::uint64_t generation) const {
        auto made = std::make_unique<FabricBuffer>(kit_.make(exporter + 1, generation));
        *static_cast<Marks*>(made->address()) = {exporter, generation};
        return made;
    }

    const CacheKit& kit_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<FabricBuffer>> own_;
};

enum class Faults { none, some };

// What one thread does, and what it has.
class Actor {
public:
    Actor(CacheKit& kit, Exporters& exporters, Faults faults, std::uint64_t seed)
        : kit_(kit), exporters_(exporters), faults_(faults), random_(seed) {}

    void step() {
        const std::uint64_t exporter = random_() % kExporters;
        switch (random_() % 128) {
            case 0: exporters_.start_anew(exporter); break;
            case 1: kit_.cache.evict(id_of(exporter + 1)); break;
            case 2: kit_.cache.invalidate(*exporters_.of(exporter).first.allocation_id); break;
            case 3: kit_.cache.collect(std::chrono::steady_clock::now() + std::chrono::hours(random_() % 2)); break;
            case 4: add_range(exporter); break;
            case 5: defer(); break;
            case 6: check_bounds(); break;
            case 7: acquire_all(); break;
            case 8:
            case 9: translate(exporter); break;
            default: acquire(exporter); break;
        }
    }
    [[nodiscard]] int wrong() const { return wrong_; }
    [[nodiscard]] std::uint64_t acquired() const { return acquired_; }

private:
    struct Held {
        ImportView view;
        Marks marks;
    };

    // What may be thrown at all: without faults an exporter can only have gone, and all may be referenced.
    template <typename Action>
    void attempt(Action&& action) {
        try {
            action();
        } catch (const Error& error) {
            const bool expected = error.kind() == ErrorKind::peer_gone || error.kind() == ErrorKind::out_of_memory ||
                                  error.kind() == ErrorKind::bad_argument;
            if (!expected && faults_ == Faults::none) ++wrong_;
        }
    }
    void keep(ImportView view, const Marks& marks) {
        ++acquired_;
        const Marks seen = *static_cast<const Marks*>(view.address());
        if (seen.exporter != marks.exporter || seen.generation != marks.generation) ++wrong_;
        if (random_() % 2 == 0) return;
        const std::size_t at = random_() % 2;
        if (held_.size() <= at) {
            held_.push_back({std::move(view), marks});
            return;
        }
        check_held(held_[at]);
        held_[at] = random_() % 4 == 0 ? held_[random_() % held_.size()] : Held{std::move(view), marks};
    }
    void check_held(const Held& held) {
        if (!held.view.is_open()) return;
        const Marks seen = *static_cast<const Marks*>(held.view.address());
        if (seen.exporter != held.marks.exporter || seen.generation != held.marks.generation) ++wrong_;
        if (!held.view.buffer().is_open()) ++wrong_;
    }
    void acquire(std::uint64_t exporter) {
        const auto [blob, marks] = exporters_.of(exporter);
        attempt([&, &blob = blob, &marks = marks] { keep(kit_.cache.acquire(blob), marks); });
    }
    void acquire_all() {
        std::vector<HandleBlob> blobs;
        for (std::uint64_t i = 0; i < kExporters; ++i) blobs.push_back(exporters_.of(i).first);
        std::vector<AcquireResult> results = kit_.cache.acquire_all(blobs);
        for (std::uint64_t i = 0; i < kExporters; ++i) {
            if (results[i].view.is_open()) keep(std::move(results[i].view), {i, blobs[i].generation});
        }
    }
    void add_range(std::uint64_t exporter) {
        attempt([&] { kit_.cache.add_range(id_of(exporter + 1), kMiB, exporters_.of(exporter).first); });
    }
    void translate(std::uint64_t exporter) {
        attempt([&] {
            const ImportView view = kit_.cache.translate(id_of(exporter + 1), kMiB, sizeof(Marks));
            if (static_cast<const Marks*>(view.address())->exporter != exporter) ++wrong_;
        });
    }
    void defer() {
        if (held_.empty() || !held_.back().view.is_open()) return;
        held_.back().view.retire_after([asked = random_() % 4]() mutable { return asked-- == 0; });
        held_.pop_back();
    }
    void check_bounds() {
        const ImportCacheStatistics now = kit_.now();
        if (now.entries_peak > kEntries || now.bytes_peak > 2 * kMiB * kEntries) ++wrong_;
    }

    CacheKit& kit_;
    Exporters& exporters_;
    Faults faults_;
    std::mt19937_64 random_;
    std::vector<Held> held_;
    int wrong_ = 0;
    std::uint64_t acquired_ = 0;
};

}  // namespace

TEST_CASE("Sixteen threads that do all that a cache can never see other memory than they asked for, and leave none",
          "[cache][threads]") {
    const QuietLog quiet;
    const std::uint64_t seed = from_environment("FABRICMEM_CACHE_SEED", 1);
    const std::uint64_t seconds = from_environment("FABRICMEM_CACHE_SECONDS", 0);
    const int steps = kSlowBuild ? 1'500 : 5'000;
    for (const Faults faults : {Faults::none, Faults::some}) {
        CAPTURE(seed, static_cast<int>(faults));
        CacheKit kit(
            {.max_entries = kEntries, .max_bytes = 2 * kMiB * kEntries, .idle_timeout = std::chrono::minutes(30)});
        const EmulatedCounts before = emulated_counts(*kit.emulated);
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(seconds / 2);
        if (faults == Faults::some) {
            for (const char* call : {"mem_import_from_shareable_handle", "mem_map", "mem_set_access", "mem_unmap"})
                kit.driver->add({.call = call, .probability = 0.02, .result = CUDA_ERROR_UNKNOWN});
        }
        int wrong = 0;
        std::uint64_t acquired = 0;
        {
            Exporters exporters(kit);
            std::vector<std::unique_ptr<Actor>> actors;
            for (std::size_t i = 0; i < kThreads; ++i)
                actors.push_back(std::make_unique<Actor>(kit, exporters, faults, seed * 1000 + i));
            {
                std::vector<std::jthread> threads;
                for (const auto& actor : actors) {
                    threads.emplace_back([&] {
                        for (int i = 0; i < steps || std::chrono::steady_clock::now() < until; ++i) actor->step();
                    });
                }
            }
            for (const auto& actor : actors) {
                wrong += actor->wrong();
                acquired += actor->acquired();
            }
        }
        CHECK(wrong == 0);
        CHECK(acquired > 1000);
        if (seconds != 0) {
            std::printf("%zu threads, seed %llu, %llu s %s: %llu acquires, %d wrong\n", kThreads,
                        static_cast<unsigned long long>(seed), static_cast<unsigned long long>(seconds / 2),
                        faults == Faults::some ? "with failing calls" : "without faults",
                        static_cast<unsigned long long>(acquired), wrong);
            std::fflush(stdout);
        }
        const ImportCacheStatistics now = kit.now();
        CHECK(now.hits > 0);
        CHECK(now.outdated + now.evicted_for_room + now.evicted_by_peer + now.invalidated > 0);
        CHECK(now.entries_peak <= kEntries);
        for (int i = 0; i < 5; ++i) kit.cache.collect();  // those that wait for something
        kit.cache.close();
        CHECK(emulated_counts(*kit.emulated) == before);
    }
}

TEST_CASE("All hits are counted, whoever has them", "[cache][threads]") {
    CacheKit kit;
    const FabricBuffer own = kit.make();
    const int each = kSlowBuild ? 2'000 : 20'000;
    static_cast<void>(kit.cache.acquire(own.blob()));
    {
        std::vector<std::jthread> threads;
        for (std::size_t i = 0; i < kThreads + 3; ++i) {
            threads.emplace_back([&] {
                for (int k = 0; k < each; ++k) static_cast<void>(kit.cache.acquire(own.blob()));
            });
        }
    }
    CHECK(kit.now().hits == static_cast<std::uint64_t>(each) * (kThreads + 3));
    kit.cache.close();
}

TEST_CASE("The last view of a cache that is gone takes all down, whichever thread has it", "[cache][threads]") {
    const auto emulated = make_emulated_driver();
    const FabricBuffer own(emulated, 1), other(emulated, 1);
    const EmulatedCounts before = emulated_counts(*emulated);
    const int rounds = kSlowBuild ? 30 : 200;
    for (int round = 0; round < rounds; ++round) {
        auto cache = std::make_unique<ImportCache>(emulated, ImportCacheOptions{.max_entries = 4});
        std::vector<std::jthread> threads;
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([view = cache->acquire(i % 2 == 0 ? own.blob() : other.blob())]() mutable {
                const ImportView copy = view;
                view.let_go();
            });
        }
        cache.reset();
    }
    CHECK(comes_back(emulated, before));
}

TEST_CASE("A counter that is closed under its users has one who is the last", "[cache][threads]") {
    using detail::StripedRefs;
    const int rounds = kSlowBuild ? 200 : 2'000;
    for (int round = 0; round < rounds; ++round) {
        StripedRefs refs;
        refs.open(0);
        std::atomic<int> last{0};
        std::vector<std::jthread> threads;
        for (int i = 0; i < 3; ++i) {
            threads.emplace_back([&] {
                const std::uint32_t stripe = detail::stripe_of_thread();
                for (int k = 0; k < 50; ++k) {
                    if (!refs.try_take(stripe, StripedRefs::As::reference)) return;
                    refs.take_another(stripe);
                    if (refs.give_back(stripe)) ++last;
                    if (refs.give_back(stripe)) ++last;
                }
            });
        }
        CHECK_FALSE(refs.close_if_unused());  // the first reference is out
        if (refs.close()) ++last;
        if (refs.give_back(0)) ++last;
        threads.clear();
        REQUIRE(last == 1);
        REQUIRE(refs.count() == 0);
        REQUIRE_FALSE(refs.try_take(0, StripedRefs::As::hit));
        refs.open(3);
        REQUIRE(refs.give_back(3) == false);
        REQUIRE(refs.close_if_unused());
    }
}

TEST_CASE("Who takes a counter sees what was written before it was opened, and is over before it is written again",
          "[cache][threads]") {
    using detail::StripedRefs;
    StripedRefs refs;
    std::uint64_t written = 0;  // plain: a sanitizer sees where nothing orders its accesses
    std::atomic<bool> drained{false};
    std::atomic<bool> over{false};
    std::atomic<std::uint64_t> seen{0};
    std::atomic<int> wrong{0};
    {
        std::vector<std::jthread> readers;
        for (int i = 0; i < 3; ++i) {
            readers.emplace_back([&] {
                const std::uint32_t stripe = detail::stripe_of_thread();
                for (std::uint64_t last = 0; !over;) {
                    if (!refs.try_take(stripe, StripedRefs::As::reference)) continue;
                    if (written < last) ++wrong;
                    last = written;
                    seen.fetch_add(1, std::memory_order_relaxed);
                    if (refs.give_back(stripe)) drained.store(true, std::memory_order_release);
                }
            });
        }
        const std::uint64_t rounds = kSlowBuild ? 2'000 : 50'000;
        for (std::uint64_t round = 1; round <= rounds || seen < 1000; ++round) {
            written = round;
            refs.open(0);
            if (refs.give_back(0)) ++wrong;
            const bool by_use = round % 2 == 0;
            if (by_use ? comes_true([&] { return refs.close_if_unused(); }) : refs.close()) continue;
            if (!comes_true([&] { return drained.exchange(false, std::memory_order_acquire); })) ++wrong;
        }
        over = true;
    }
    CHECK(wrong == 0);
}
