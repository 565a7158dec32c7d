// SPDX-License-Identifier: Apache-2.0
// Flags: what is stored is loaded, by whichever way the memory is reached; what is being written is never taken for
// what was; waits end.
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include <fabricmem/flag_slots.hpp>

#include "flags/sealed_slot.hpp"
#include "support/buffers.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/fabric_kit.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

using Clock = std::chrono::steady_clock;

Clock::time_point in(std::chrono::milliseconds time) { return Clock::now() + time; }
constexpr std::chrono::seconds kPatience{60};

Arena arena_at(const std::shared_ptr<Driver>& driver, const Location& location) {
    return Arena(driver, kMiB, {.location = location});
}

SlotMessage message(std::uint64_t sequence, unsigned char fill) {
    SlotMessage made{.sequence = sequence, .payload = {}};
    made.payload.fill(static_cast<std::byte>(fill));
    return made;
}

template <typename Value>
void store_and_load(const std::shared_ptr<Driver>& driver, const Location& location, const Value& one,
                    const Value& other) {
    Arena arena = arena_at(driver, location);
    FlagSlots<Value> slots(arena.allocate(10 * FlagSlots<Value>::kSlotBytes));
    REQUIRE(slots.count() == 10);
    CHECK(slots.is_direct() == location.is_host());
    slots.reset_all();
    for (std::size_t i = 0; i < slots.count(); ++i) CHECK(slots.load(i) == Value{});
    slots.store(3, one);
    slots.store(9, other);
    CHECK(slots.load(3) == one);
    CHECK(slots.load(9) == other);
    CHECK(slots.load(2) == Value{});
    CHECK(slots.load(4) == Value{});
    slots.reset(3);
    CHECK(slots.load(3) == Value{});
    CHECK(slots.load(9) == other);
}

}  // namespace

TEST_CASE("Slots of every width hold what is stored, on a device and on the host", "[flags][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const Location location : {Location::device(0), Location::host_nearest(0)}) {
        store_and_load<std::uint32_t>(driver, location, 0x89abcdefU, 7);
        store_and_load<std::uint64_t>(driver, location, 0x0123456789abcdefULL, 7);
        store_and_load<SlotMessage>(driver, location, message(1, 0xff), message(~0ULL, 0));
    }
}

TEST_CASE("What is stored through an import is loaded by the exporter, and the other way round", "[flags][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const Location location : {Location::device(0), Location::host_nearest(0)}) {
        Arena arena = arena_at(driver, location);
        Block block = arena.allocate(640);
        const auto imported = std::make_shared<const ImportedFabricBuffer>(driver, block.blob());
        FlagSlots<SlotMessage> own(std::move(block));
        FlagSlots<SlotMessage> peers(imported, 64, 9);
        own.reset_all();
        peers.store(0, message(5, 0x11));
        CHECK(own.load(1) == message(5, 0x11));
        own.store(9, message(6, 0x12));
        CHECK(peers.load(8) == message(6, 0x12));
        CHECK(peers.is_direct() == location.is_host());
    }
}

TEST_CASE("Another node's host memory is never stored to by the CPU", "[flags]") {
    const Fabric fabric = ready_made("gb200-nvl72");
    const auto here = driver_on(fabric, "node0");
    const auto there = driver_on(fabric, "node1");
    Arena arena = arena_at(here, Location::host_numa(0));
    Block block = arena.allocate(64);
    const QuietLog quiet;  // the driver refuses the CPU there
    const auto imported = std::make_shared<const ImportedFabricBuffer>(there, block.blob());
    FlagSlots<std::uint64_t> own(std::move(block));
    FlagSlots<std::uint64_t> peers(imported, 0, 8);
    CHECK(own.is_direct());
    CHECK_FALSE(peers.is_direct());
    peers.store(7, 77);
    CHECK(own.load(7) == 77);
}

TEST_CASE("A wait ends with the value, by whichever way it comes, and at the deadline without", "[flags][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const Location location : {Location::device(0), Location::host_nearest(0)}) {
        Arena arena = arena_at(driver, location);
        FlagSlots<std::uint32_t> slots(arena.allocate(64));
        slots.reset_all();
        CHECK_FALSE(slots.wait_until(0, 5, in(std::chrono::milliseconds(3))).has_value());
        CHECK_FALSE(slots.wait_until(0, 5, Clock::now() - std::chrono::seconds(1)).has_value());
        std::thread writer([&] { slots.store(0, 5); });
        CHECK(slots.wait_until(0, 5, Clock::now() + kPatience) == 5U);
        writer.join();
        // Beyond it is there too; behind it, counted around, is not.
        CHECK(slots.wait_until(0, 4, Clock::now() + kPatience, Until::reached) == 5U);
        CHECK(slots.wait_until(0, 0xfffffff0U, Clock::now() + kPatience, Until::reached) == 5U);
        CHECK_FALSE(slots.wait_until(0, 6, in(std::chrono::milliseconds(1)), Until::reached).has_value());
        CHECK_FALSE(slots.wait_until(0, 4, in(std::chrono::milliseconds(1))).has_value());
    }
}

TEST_CASE("Whoever sees a flag sees what was stored before it", "[flags]") {
    Arena arena = arena_at(make_emulated_driver(), Location::host_numa(0));
    FlagSlots<std::uint64_t> flags(arena.allocate(64));
    flags.reset_all();
    std::vector<int> payload(64, 0);
    std::thread writer([&] {
        for (int round = 1; round <= 200; ++round) {
            if (!flags.wait_until(1, static_cast<std::uint64_t>(round - 1), Clock::now() + kPatience)) return;
            payload.assign(64, round);
            flags.store(0, static_cast<std::uint64_t>(round));
        }
    });
    for (int round = 1; round <= 200; ++round) {
        REQUIRE(flags.wait_until(0, static_cast<std::uint64_t>(round), Clock::now() + kPatience).has_value());
        CHECK(payload == std::vector<int>(64, round));
        flags.store(1, static_cast<std::uint64_t>(round));
    }
    writer.join();
}

TEST_CASE("A slot of which a part was written is no message", "[flags]") {
    const detail::SlotBytes before = detail::seal(message(7, 0xa5));
    const detail::SlotBytes after = detail::seal(message(8, 0x5a));
    REQUIRE(detail::unseal(after) == message(8, 0x5a));
    for (std::size_t written = 1; written < 64; ++written) {
        for (const bool from_the_front : {true, false}) {
            detail::SlotBytes torn = from_the_front ? before : after;
            std::copy_n((from_the_front ? after : before).begin(), written, torn.begin());
            if (torn == before || torn == after) continue;
            INFO(written << (from_the_front ? " bytes of the new one" : " bytes of the old one"));
            CHECK_FALSE(detail::unseal(torn).has_value());
        }
    }
    CHECK(SlotMessage::from_bytes(after) == message(8, 0x5a));
    CHECK(message(8, 0x5a).to_bytes() == after);
    CHECK(SlotMessage::from_bytes({}) == SlotMessage{});
    // Any one bit.
    for (std::size_t bit = 0; bit < 512; ++bit) {
        detail::SlotBytes wrong = after;
        wrong[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
        CHECK_FALSE(detail::unseal(wrong).has_value());
    }
}

TEST_CASE("A message that is torn in the memory is not loaded, and is waited out", "[flags][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Arena arena = arena_at(driver, Location::host_nearest(0));
    Block block = arena.allocate(64);
    auto* const bytes = static_cast<std::byte*>(block.address());
    FlagSlots<SlotMessage> slots(std::move(block));
    slots.store(0, message(3, 0x33));
    const detail::SlotBytes next = detail::seal(message(4, 0x44));
    std::memcpy(bytes, next.data(), 32);
    CHECK_FALSE(slots.load(0).has_value());
    CHECK_FALSE(slots.wait_until(0, 4, in(std::chrono::milliseconds(2))).has_value());
    std::memcpy(bytes + 32, next.data() + 32, 32);
    CHECK(slots.load(0) == message(4, 0x44));
    CHECK(slots.wait_until(0, 4, Clock::now() + kPatience) == message(4, 0x44));
}

TEST_CASE("Messages that are written while they are read are read whole or not at all", "[flags]") {
    Arena arena = arena_at(make_emulated_driver(), Location::host_numa(0));
    FlagSlots<SlotMessage> slots(arena.allocate(64));
    slots.reset_all();
    std::atomic<bool> stop{false};
    std::thread writer([&] {
        for (std::uint64_t i = 1; !stop.load(); ++i) slots.store(0, message(i, static_cast<unsigned char>(i)));
    });
    std::uint64_t last = 0;
    for (int seen = 0; seen < 2000;) {
        const auto held = slots.load(0);
        if (!held.has_value()) continue;
        ++seen;
        if (*held == SlotMessage{}) continue;
        REQUIRE(*held == message(held->sequence, static_cast<unsigned char>(held->sequence)));
        REQUIRE(held->sequence >= last);
        last = held->sequence;
    }
    stop = true;
    writer.join();
}

TEST_CASE("Work that holds the null stream up does not stop flags on a device", "[flags][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Arena arena = arena_at(driver, Location::device(0));
    Arena held = arena_at(driver, Location::device(0));
    FlagSlots<std::uint32_t> gate(held.allocate(64));
    gate.reset_all();
    const PrimaryContext context(driver, 0);
    FlagSlots<std::uint32_t> slots(arena.allocate(64));
    REQUIRE(driver->stream_wait_value32(nullptr, pointer(held.address()), 1, CU_STREAM_WAIT_VALUE_GEQ) == CUDA_SUCCESS);
    slots.store(0, 21);
    CHECK(slots.load(0) == 21);
    CHECK(driver->stream_query(nullptr) == CUDA_ERROR_NOT_READY);
    gate.store(0, 1);
    CHECK(driver->stream_synchronize(nullptr) == CUDA_SUCCESS);
}

TEST_CASE("Wrong slots are refused", "[flags]") {
    const auto driver = make_emulated_driver();
    Arena arena = arena_at(driver, Location::host_numa(0));
    Arena device_arena = arena_at(driver, Location::device(0));
    FlagSlots<std::uint64_t> slots(arena.allocate(80));
    CHECK(slots.count() == 10);
    FABRICMEM_CHECK_ERROR(slots.store(10, 1), bad_argument, "slot 10 of 10");
    FABRICMEM_CHECK_ERROR(slots.load(10), bad_argument, "slot 10 of 10");
    FABRICMEM_CHECK_ERROR(FlagSlots<SlotMessage>(arena.allocate(63)), bad_argument, "63 bytes");
    FABRICMEM_CHECK_ERROR(FlagSlots<std::uint32_t>(Block()), bad_argument, "not open");
    FABRICMEM_CHECK_ERROR(FlagSlots<std::uint32_t>(nullptr, 0, 1), bad_argument, "not open");
    FABRICMEM_CHECK_ERROR(FlagSlots<std::uint32_t>(device_arena.allocate(64), {.device = 5}), bad_argument, "device 5");
    FABRICMEM_CHECK_ERROR(FlagSlots<std::uint32_t>(arena.allocate(64), {.copy_timeout = std::chrono::milliseconds(0)}),
                          bad_argument, "time limit");
    const auto imported = std::make_shared<const ImportedFabricBuffer>(driver, arena.blob());
    const std::uint64_t bytes = imported->bytes();
    FABRICMEM_CHECK_ERROR(FlagSlots<std::uint64_t>(imported, bytes, 1), bad_argument, "slots of 8 bytes");
    FABRICMEM_CHECK_ERROR(FlagSlots<std::uint64_t>(imported, 0, bytes), bad_argument, "slots of 8 bytes");
    FABRICMEM_CHECK_ERROR(FlagSlots<std::uint64_t>(imported, ~std::uint64_t{0}, 2), bad_argument, "slots of 8 bytes");
    FABRICMEM_CHECK_ERROR(FlagSlots<std::uint64_t>(imported, 4, 1), bad_argument, "not aligned");
    FlagSlots<std::uint64_t> moved(std::move(slots));
    FABRICMEM_CHECK_ERROR(slots.store(0, 1), closed, "moved from");
    moved.store(0, 1);
}

TEST_CASE("Slots give back what they were made of, and keep the memory alive until then", "[flags]") {
    const auto driver = make_emulated_driver();
    const auto before = emulated_counts(*driver);
    {
        std::optional<Arena> arena(arena_at(driver, Location::device(0)));
        FlagSlots<std::uint32_t> slots(arena->allocate(64));
        arena.reset();
        slots.store(0, 9);
        CHECK(slots.load(0) == 9);
    }
    CHECK(emulated_counts(*driver) == before);
}
