// SPDX-License-Identifier: Apache-2.0
// Every allocation of every public operation fails: std::bad_alloc or out_of_memory, nothing leaked, and the next try
// succeeds. Replaces the program's operator new, so it is a program of its own.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <new>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fabricmem/log.hpp>

#include "buffer/deadline.hpp"
#include "support/buffers.hpp"
#include "support/operations.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

enum class Memory { once_gone, gone_for_good };

// Which allocation from now on fails, counted from 1 over all threads; 0: none.
std::atomic<long> allocations_left{0};
std::atomic<bool> failed{false};
std::atomic<bool> stays_gone{false};

void* allocate(std::size_t bytes) noexcept {
    if (allocations_left.load() > 0 && allocations_left.fetch_sub(1) == 1) {
        failed = true;
        return nullptr;
    }
    if (failed && stays_gone) return nullptr;
    return std::malloc(bytes == 0 ? 1 : bytes);
}

// Fails an allocation within the scope.
class NoMemory {
public:
    NoMemory(long number, Memory memory) {
        stays_gone = memory == Memory::gone_for_good;
        allocations_left = number;
    }
    NoMemory(const NoMemory&) = delete;
    NoMemory& operator=(const NoMemory&) = delete;
    ~NoMemory() { end(); }

    /// Whether there were so many.
    static bool end() {
        allocations_left = 0;
        stays_gone = false;
        return failed.exchange(false);
    }
};

}  // namespace

// Not inlined: GCC 13 would see free() beside what it takes for its own operator new.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
    if (void* const memory = allocate(bytes)) return memory;
    throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return allocate(bytes); }
[[gnu::noinline]] void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

class Loop {
public:
    void run(const Operation& operation, Memory memory) {
        before_ = emulated_counts(*world_.emulated);
        const std::size_t descriptors = open_descriptors();
        for (long number = 1;; ++number) {
            Scene scene(world_);
            operation.prepare(scene);
            const bool met = fails(operation, scene, number, memory);
            give_back(scene, operation, number, "after the failure");
            operation.prepare(scene);
            operation.act(scene);
            if (scene.answer().has_value()) wrong(operation, number, "the next one fails");
            give_back(scene, operation, number, "after the next one");
            if (!met) break;
            ++faults_;
        }
        if (open_descriptors() != descriptors) leak(operation, 0, "descriptors");
    }

    [[nodiscard]] std::string text() const {
        std::ostringstream text;
        for (const std::string& line : wrong_) text << line << '\n';
        return text.str();
    }
    [[nodiscard]] std::size_t faults() const { return faults_; }
    [[nodiscard]] std::size_t leaks() const { return leaks_; }

private:
    bool fails(const Operation& operation, Scene& scene, long number, Memory memory) {
        bool met = false;
        try {
            const NoMemory none(number, memory);
            operation.act(scene);
            met = NoMemory::end();
            if (!scene.answer().has_value()) return met;
            if (scene.answer()->kind() != ErrorKind::out_of_memory) wrong(operation, number, "answers otherwise");
        } catch (const std::bad_alloc&) {
            met = true;
        } catch (const Error& error) {
            met = true;
            if (error.kind() != ErrorKind::out_of_memory) wrong(operation, number, error.what());
        } catch (const std::exception& error) {
            met = true;
            wrong(operation, number, std::string("throws something else: ") + error.what());
        }
        return met;
    }

    void give_back(Scene& scene, const Operation& operation, long number, const char* when) {
        scene.clear();
        // A tear-down that got no thread waits for the next one that there is.
        if (stuck_calls(*scene.driver) != 0) {
            ImportedFabricBuffer(scene.driver, world_.exporters[0].blob(), {.timeout = std::chrono::minutes(10)})
                .close();
            if (!detail::wait_until_stuck(*scene.driver, 0, std::chrono::minutes(1)))
                wrong(operation, number, "a call stays stuck");
        }
        before_.ranges += std::exchange(scene.retired, 0);
        const EmulatedCounts now = emulated_counts(*world_.emulated);
        if (now == before_) return;
        leak(operation, number, when);
        before_ = now;  // told once
    }

    void leak(const Operation& operation, long number, const char* what) {
        ++leaks_;
        wrong(operation, number, std::string("leaks ") + what);
    }

    void wrong(const Operation& operation, long number, const std::string& what) {
        if (wrong_.size() < 20)
            wrong_.push_back(operation.name + ", allocation " + std::to_string(number) + ": " + what);
    }

    World world_;
    EmulatedCounts before_;
    std::vector<std::string> wrong_;
    std::size_t faults_ = 0;
    std::size_t leaks_ = 0;
};

}  // namespace

TEST_CASE("Each allocation of the making of a driver can fail without a leak", "[fault][loop]") {
    const World world;
    const std::size_t descriptors = open_descriptors();
    const EmulatedCounts before = emulated_counts(*world.emulated);
    const std::vector<std::function<void()>> makers{
        [] { static_cast<void>(make_emulated_driver({.devices = 2, .node = "a node with a long name"})); },
        [&] { static_cast<void>(FaultDriver(world.emulated)); },
    };
    for (const auto& make : makers) {
        long number = 1;
        for (bool met = true; met; ++number) {
            try {
                const NoMemory none(number, Memory::once_gone);
                make();
                met = NoMemory::end();  // made all the same where only a file could not be read
            } catch (const std::bad_alloc&) {
                met = true;
            }
            CAPTURE(number);
            CHECK(open_descriptors() == descriptors);
        }
        CHECK(number > 3);
    }
    CHECK(emulated_counts(*world.emulated) == before);
}

TEST_CASE("A tear-down that no thread could be had for is done by the next one whose work is over", "[fault]") {
    using std::chrono::minutes;
    const QuietLog quiet;
    const auto emulated = make_emulated_driver();
    const auto driver = std::make_shared<FaultDriver>(emulated);
    const FabricBuffer own(emulated, 1);
    const EmulatedCounts before = emulated_counts(*emulated);
    std::optional<ImportedFabricBuffer> imported(std::in_place, driver, own.blob(),
                                                 ImportOptions{.tear_down_timeout = minutes(10)});
    driver->add({.effect = Fault::Effect::hang, .call = "mem_map"});
    std::optional<std::jthread> importing(std::in_place, [&] {
        ImportedFabricBuffer(driver, own.blob(), {.timeout = minutes(10), .tear_down_timeout = minutes(0)}).close();
    });
    REQUIRE(driver->wait_until_hanging(1, minutes(1)));
    {
        const NoMemory none(1, Memory::once_gone);
        imported.reset();
    }
    CHECK(stuck_calls(*driver) == 1);
    driver->clear();
    CHECK(detail::wait_until_stuck(*driver, 0, minutes(1)));
    importing.reset();
    CHECK(emulated_counts(*emulated) == before);
}

TEST_CASE("Each allocation of each operation can fail without a leak", "[fault][loop]") {
    // Formats every line, so that this can fail too.
    set_log_level(LogLevel::trace);
    set_log_sink([](LogLevel, std::string_view) {});
    Loop loop;
    for (const Operation& operation : operations()) {
        loop.run(operation, Memory::once_gone);
        loop.run(operation, Memory::gone_for_good);
    }
    set_log_sink({});
    set_log_level(LogLevel::warning);
    INFO(loop.text());
    CHECK(loop.text().empty());
    CHECK(loop.leaks() == 0);
    CHECK(loop.faults() > 5'000);
    std::printf("allocation loop: %zu operations, %zu failed allocations, %zu leaks\n", operations().size(),
                loop.faults(), loop.leaks());
}
