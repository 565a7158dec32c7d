// SPDX-License-Identifier: Apache-2.0
// From an address to the buffer and the blob, while buffers come and go.
#include <fabricmem/owned_ranges.hpp>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include <fabricmem/arena.hpp>
#include <fabricmem/fault_driver.hpp>

#include "support/buffers.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

// A buffer that there is not, for tables alone.
struct Pretended {
    Pretended(std::uintptr_t base, std::uint64_t bytes, std::uint8_t id, std::uint64_t mapped = 0)
        : address(reinterpret_cast<void*>(base)) {
        blob.kinds = HandleKind::fabric;
        blob.mapped_bytes = mapped == 0 ? bytes : mapped;
        blob.bytes = bytes;
        blob.allocation_id = Id128{{id, 1}};
    }
    [[nodiscard]] BufferInfo info() const {
        return {address, blob.bytes, blob.mapped_bytes, Location::device(3), blob};
    }
    void* address;
    HandleBlob blob;
};

void* pointer_at(std::uintptr_t address) { return reinterpret_cast<void*>(address); }

OwnedState state_of(const OwnedRanges& ranges, std::uintptr_t address, std::uint64_t bytes = 1) {
    return ranges.look_up(pointer_at(address), bytes).state;
}

}  // namespace

TEST_CASE("Any address inside a watched buffer gives its offset and a blob that imports", "[ranges][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const OwnedRanges ranges;
    const FabricBuffer first(driver, 3 * kMiB, ranges.watch());
    const FabricBuffer second(driver, 100, ranges.watch({.location = Location::host_numa(0)}));
    CHECK(ranges.size() == 2);
    auto* const base = static_cast<std::byte*>(first.address());
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{12345}, 3 * kMiB - 1}) {
        CAPTURE(offset);
        const OwnedRange range = ranges.at(base + offset, 1);
        CHECK(range.base == first.address());
        CHECK(range.offset == offset);
        CHECK(range.buffer_bytes == 3 * kMiB);
        CHECK(range.location == Location::device(0));
        CHECK(range.blob == first.blob().sub_range(offset, 1));
    }
    CHECK(ranges.look_up(base + 3 * kMiB, 1).state == OwnedState::not_owned);  // mapped, and not the buffer's
    CHECK(ranges.look_up(base - 1, 1).state == OwnedState::not_owned);
    const OwnedRange host = ranges.at(static_cast<std::byte*>(second.address()) + 10, 90);
    CHECK(host.location == Location::host_numa(0));
    std::memset(second.address(), 0x2b, 100);
    const ImportedFabricBuffer imported(driver, HandleBlob::from_bytes(host.blob.to_bytes()));
    CHECK(imported.bytes() == 90);
    CHECK(*static_cast<const unsigned char*>(imported.address()) == 0x2b);
    const int on_stack = 0;
    FABRICMEM_CHECK_ERROR(ranges.at(&on_stack, 1), bad_argument, "begins in no buffer");
    FABRICMEM_CHECK_ERROR(ranges.at(base, 0), bad_argument, "0 bytes");
}

TEST_CASE("A buffer is in quarantine from the beginning of its tear-down to its end", "[ranges]") {
    // Asks while the driver takes the memory back.
    class AskAtUnmap : public ForwardingDriver {
    public:
        using ForwardingDriver::ForwardingDriver;
        CUresult mem_unmap(CUdeviceptr address, std::size_t bytes) noexcept override {
            seen = state_of(*ranges, static_cast<std::uintptr_t>(address));
            return ForwardingDriver::mem_unmap(address, bytes);
        }
        const OwnedRanges* ranges = nullptr;
        OwnedState seen = OwnedState::owned;
    };
    const auto driver = std::make_shared<AskAtUnmap>(make_emulated_driver());
    const OwnedRanges ranges;
    driver->ranges = &ranges;
    std::vector<std::string> events;
    const auto note = [&](const char* what) {
        return [&, what](const BufferInfo& info) {
            events.push_back(std::string(what) + " " +
                             std::string(to_string(ranges.look_up(info.address, info.bytes).state)));
        };
    };
    const FabricBufferOptions watched =
        ranges.watch({.on_make = note("make"), .before_tear_down = note("before"), .after_tear_down = note("after")});
    {
        const FabricBuffer buffer(driver, 7, watched);
        CHECK(ranges.look_up(buffer.address(), 7).state == OwnedState::owned);
    }
    CHECK(driver->seen == OwnedState::tearing_down);
    CHECK(events == std::vector<std::string>{"make not_owned", "before tearing_down", "after not_owned"});
    CHECK(ranges.size() == 0);
}

TEST_CASE("What is being torn down, crosses buffers or leaves one is a typed error", "[ranges]") {
    const OwnedRanges ranges;
    const Pretended low(0x10000, 0x1000, 1, 0x2000);
    const Pretended high(0x12000, 0x2000, 2);
    ranges.add(high.info());
    ranges.add(low.info());
    CHECK(state_of(ranges, 0x10fff) == OwnedState::owned);
    CHECK(state_of(ranges, 0x10000, 0x1000) == OwnedState::owned);
    FABRICMEM_CHECK_ERROR(ranges.at(pointer_at(0x10000), 0x1001), bad_argument, "beyond the end");
    FABRICMEM_CHECK_ERROR(ranges.at(pointer_at(0x10000), 0x2000), bad_argument, "beyond the end");
    FABRICMEM_CHECK_ERROR(ranges.at(pointer_at(0x10000), 0x2001), bad_argument, "reaches into another");
    FABRICMEM_CHECK_ERROR(ranges.at(pointer_at(0x13fff), 2), bad_argument, "beyond the end");
    CHECK(state_of(ranges, 0x13fff, ~std::uint64_t{0}) == OwnedState::beyond_end);
    CHECK(state_of(ranges, 0x10000, ~std::uint64_t{0}) == OwnedState::crosses_buffers);
    CHECK(state_of(ranges, 0x11000) == OwnedState::not_owned);  // between the end of the buffer and of its mapping
    CHECK(ranges.at(pointer_at(0x12010), 0x10).blob == high.blob.sub_range(0x10, 0x10));
    ranges.begin_tear_down(high.info());
    FABRICMEM_CHECK_ERROR(ranges.at(pointer_at(0x12010), 1), conflict, "is being torn down");
    CHECK(state_of(ranges, 0x10000) == OwnedState::owned);
}

TEST_CASE("A buffer where another was is another entry, whatever the order of the ends", "[ranges]") {
    const OwnedRanges ranges;
    const Pretended old(0x10000, 0x1000, 1);
    const Pretended young(0x10800, 0x1000, 2);
    ranges.add(old.info());
    FABRICMEM_CHECK_ERROR(ranges.add(young.info()), conflict, "another buffer of 4096 bytes");
    FABRICMEM_CHECK_ERROR(ranges.add(old.info()), bad_argument, "known already");
    ranges.begin_tear_down(old.info());
    ranges.add(young.info());  // before the end of the other is told: that thread is late
    CHECK(ranges.size() == 1);
    CHECK(state_of(ranges, 0x10000) == OwnedState::not_owned);
    ranges.end_tear_down(old.info());
    ranges.begin_tear_down(old.info());
    CHECK(ranges.at(pointer_at(0x10800), 1).blob.allocation_id == young.blob.allocation_id);
    const Pretended same_place(0x10800, 0x1000, 3);
    ranges.begin_tear_down(same_place.info());  // not the one that is there
    ranges.end_tear_down(same_place.info());
    CHECK(state_of(ranges, 0x10800) == OwnedState::owned);
    ranges.end_tear_down(young.info());
    CHECK(ranges.size() == 0);
}

TEST_CASE("What is no buffer is not taken in", "[ranges]") {
    const OwnedRanges ranges;
    Pretended buffer(0x10000, 0x1000, 1);
    const auto add_with = [&](std::uint64_t bytes, std::uint64_t mapped) {
        ranges.add({buffer.address, bytes, mapped, Location::device(0), buffer.blob});
    };
    FABRICMEM_CHECK_ERROR(add_with(0, 0x1000), bad_argument, "0 bytes");
    FABRICMEM_CHECK_ERROR(add_with(0x1001, 0x2000), bad_argument, "4097 bytes");
    FABRICMEM_CHECK_ERROR(add_with(0x1000, 0x800), bad_argument, "2048 are mapped");
    FABRICMEM_CHECK_ERROR(add_with(0x1000, ~std::uint64_t{0}), bad_argument, "at 0x10000");
    buffer.blob.allocation_id.reset();
    FABRICMEM_CHECK_ERROR(ranges.add(buffer.info()), bad_argument, "no allocation id");
    CHECK(ranges.size() == 0);
}

TEST_CASE("A buffer that is undone by the caller's callback was never in", "[ranges][fault]") {
    const std::shared_ptr<Driver> driver = make_emulated_driver();
    const OwnedRanges ranges;
    const auto refuse = [](const BufferInfo&) { throw std::runtime_error("no"); };
    CHECK_THROWS_AS(FabricBuffer(driver, 1, ranges.watch({.on_make = refuse})), std::runtime_error);
    CHECK(ranges.size() == 0);
}

TEST_CASE("Blocks of a watched arena are found by their addresses, and buffers outlive the ranges", "[ranges]") {
    const std::shared_ptr<Driver> driver = make_emulated_driver();
    auto ranges = std::make_unique<OwnedRanges>();
    Arena arena(driver, kMiB, ranges->watch());
    const Block first = arena.allocate(100);
    const Block second = arena.allocate(100);
    CHECK(ranges->at(second.address(), 100).blob == second.blob());
    CHECK(ranges->at(second.address(), 100).offset == second.offset());
    ranges.reset();
}

TEST_CASE("Look-ups while buffers come and go find the right one or say why not", "[ranges][threads]") {
    constexpr std::uintptr_t kBase = 0x100000;
    constexpr std::uint64_t kBytes = 0x1000;
    constexpr int kPlaces = 8;
    constexpr int kRounds = 100;
    const OwnedRanges ranges;
    constexpr int kReaders = 4;
    std::atomic<int> reading{0};
    std::atomic<int> writing{2};
    std::atomic<std::uint64_t> wrong{0};
    // Each place has ids of its own; even places are always there.
    for (std::uint8_t place = 0; place < kPlaces; place += 2)
        ranges.add(Pretended(kBase + place * kBytes, kBytes, place).info());
    const auto look = [&] {
        reading.fetch_add(1, std::memory_order_relaxed);
        while (writing.load(std::memory_order_acquire) != 0) {
            for (std::uint8_t place = 0; place < kPlaces; ++place) {
                const std::uintptr_t address = kBase + place * kBytes + 16;
                const OwnedRange range = ranges.look_up(pointer_at(address), 16);
                const bool right = range.state == OwnedState::owned
                                       ? range.blob.allocation_id->bytes[0] == place && range.blob.offset == 16 &&
                                             range.blob.bytes == 16 && range.base == pointer_at(address - 16)
                                       : place % 2 == 1 && range.state != OwnedState::crosses_buffers;
                if (!right) ++wrong;
            }
            std::this_thread::yield();  // a writer waits for who is off its CPU in the middle of a look-up
        }
    };
    const auto change = [&](std::uint8_t first) {
        while (reading.load(std::memory_order_relaxed) != kReaders) std::this_thread::yield();
        for (int round = 0; round < kRounds; ++round) {
            for (std::uint8_t place = first; place < kPlaces; place = static_cast<std::uint8_t>(place + 4)) {
                Pretended buffer(kBase + place * kBytes, kBytes, place);
                buffer.blob.allocation_id->bytes[4] = static_cast<std::uint8_t>(round & 0xff);
                buffer.blob.allocation_id->bytes[5] = static_cast<std::uint8_t>(round >> 8);
                ranges.add(buffer.info());
                if (state_of(ranges, kBase + place * kBytes) != OwnedState::owned) ++wrong;
                ranges.begin_tear_down(buffer.info());
                if (state_of(ranges, kBase + place * kBytes) != OwnedState::tearing_down) ++wrong;
                ranges.end_tear_down(buffer.info());
            }
        }
        writing.fetch_sub(1, std::memory_order_release);
    };
    std::vector<std::thread> threads;
    for (int i = 0; i < kReaders; ++i) threads.emplace_back(look);
    threads.emplace_back(change, std::uint8_t{1});
    threads.emplace_back(change, std::uint8_t{3});
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
    CHECK(ranges.size() == kPlaces / 2);
}

TEST_CASE("A forked child looks up what its parent had, and changes nothing", "[ranges][fork]") {
    const OwnedRanges ranges;
    const Pretended buffer(0x10000, 0x1000, 1);
    ranges.add(buffer.info());
    const pid_t child = ::fork();
    if (child == 0) {
        const Pretended other(0x20000, 0x1000, 2);
        const auto error = error_of([&] { ranges.add(other.info()); });
        ranges.end_tear_down(buffer.info());
        const bool well = error.has_value() && error->kind() == ErrorKind::unsupported &&
                          state_of(ranges, 0x10000) == OwnedState::owned && ranges.size() == 1;
        ::_exit(well ? 0 : 1);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
}
