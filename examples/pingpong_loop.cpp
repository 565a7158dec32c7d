// SPDX-License-Identifier: Apache-2.0
// The order of a round, and the bytes that travel. How they travel is pingpong_transport.cpp.
#include "pingpong_loop.hpp"

#include <algorithm>
#include <cstring>

#include "common/text.hpp"
#include "pingpong_spin.hpp"

namespace pingpong {
namespace {

/// The pattern of a round: cheap to make, and different in all its words from any other round's.
class Pattern {
public:
    Pattern(std::size_t bytes, std::uint32_t round) noexcept : seed_(mix((std::uint64_t{round} << 32) ^ bytes)) {}

    [[nodiscard]] std::uint64_t word(std::size_t index) const noexcept { return seed_ + index * kStep; }

private:
    static constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15;

    // The finaliser of splitmix64.
    static std::uint64_t mix(std::uint64_t x) noexcept {
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
        x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
        return x ^ (x >> 31);
    }

    std::uint64_t seed_;
};

constexpr std::size_t kWordBytes = sizeof(std::uint64_t);

void write_pattern(std::byte* to, std::size_t bytes, const Pattern& pattern) {
    for (std::size_t offset = 0; offset < bytes; offset += kWordBytes) {
        const std::uint64_t word = pattern.word(offset / kWordBytes);
        std::memcpy(to + offset, &word, std::min(kWordBytes, bytes - offset));
    }
}

[[noreturn]] void throw_wrong_byte(const std::byte* from, std::size_t offset, std::uint64_t expected, std::size_t bytes,
                                   std::uint32_t round) {
    const auto* const wanted = reinterpret_cast<const std::byte*>(&expected);
    const auto* const wrong = std::mismatch(from + offset, from + std::min(offset + kWordBytes, bytes), wanted).first;
    const auto at = static_cast<std::size_t>(wrong - from);
    throw WrongByte(formatted("a wrong byte arrived: round {}, {} bytes, offset {}: expected 0x{:02x}, got 0x{:02x}",
                              round, bytes, at, std::to_integer<unsigned>(wanted[at - offset]),
                              std::to_integer<unsigned>(*wrong)));
}

void check_pattern(const std::byte* from, std::size_t bytes, std::uint32_t round) {
    const Pattern pattern(bytes, round);
    for (std::size_t offset = 0; offset < bytes; offset += kWordBytes) {
        const std::uint64_t expected = pattern.word(offset / kWordBytes);
        if (std::memcmp(from + offset, &expected, std::min(kWordBytes, bytes - offset)) != 0) {
            throw_wrong_byte(from, offset, expected, bytes, round);
        }
    }
}

}  // namespace

Payload::Payload(Mode mode, const std::shared_ptr<fabricmem::Driver>& driver, const Memory& memory,
                 std::size_t most_bytes, Watch& watch)
    : mode_(mode), memory_(memory), watch_(watch) {
    if (mode == Mode::cpu) {
        heap_.resize(most_bytes);
        bytes_ = heap_.data();
        return;
    }
    pinned_.emplace(driver, most_bytes);
    bytes_ = pinned_->get();
    stream_.emplace(driver);
    if (memory.place == Place::device) on_device_.emplace(driver, most_bytes);
}

void Payload::copy(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) {
    stream_->copy(destination, source, bytes);
    spin_until(watch_, "a copy by this side's GPU", [this] { return stream_->is_idle(); });
}

Source Payload::prepare(std::size_t bytes, std::uint32_t round) {
    write_pattern(bytes_, bytes, Pattern(bytes, round));
    if (travels_as_values(mode_, bytes)) return {.bytes = bytes, .address = 0, .host = bytes_};
    Source source{.bytes = bytes, .address = reinterpret_cast<CUdeviceptr>(bytes_), .host = nullptr};
    if (on_device_) {
        copy(on_device_->get(), source.address, bytes);
        source.address = on_device_->get();
    }
    return source;
}

Source Payload::prepare_answer(std::size_t bytes, std::uint32_t round) {
    // From host memory a copy of what came would first fetch it from the other side's CPU, within the round.
    if (!on_device_ || travels_as_values(mode_, bytes)) return prepare(bytes, round);
    return {.bytes = bytes, .address = memory_.own + kPayloadOffset, .host = nullptr};
}

void Payload::check(std::size_t bytes, std::uint32_t round) {
    const CUdeviceptr arrived = memory_.own + kPayloadOffset;
    if (memory_.own_access == CpuAccess::yes) {
        check_pattern(reinterpret_cast<const std::byte*>(arrived), bytes, round);
        return;
    }
    std::memset(bytes_, 0, bytes);  // the right bytes may still be here: this side made them
    copy(reinterpret_cast<CUdeviceptr>(bytes_), arrived, bytes);
    check_pattern(bytes_, bytes, round);
}

std::vector<double> play_first(Transport& transport, Payload& payload, const Rounds& rounds,
                               const AfterRound& after_round) {
    std::vector<double> round_trips_us;
    round_trips_us.reserve(rounds.measured);
    for (std::uint32_t i = 0; i < rounds.count(); ++i) {
        const std::uint32_t round = rounds.first + i;
        const Source source = payload.prepare(rounds.bytes, round);
        transport.await_ready(round);

        const Clock::time_point start = Clock::now();
        transport.ping(source, round);
        const std::chrono::duration<double, std::micro> took = Clock::now() - start;

        transport.say_ready(round);
        payload.check(rounds.bytes, round);
        if (i >= rounds.warmup) round_trips_us.push_back(took.count());
        if (after_round) after_round();
    }
    return round_trips_us;
}

void play_second(Transport& transport, Payload& payload, const Rounds& rounds, const AfterRound& after_round) {
    for (std::uint32_t i = 0; i < rounds.count(); ++i) {
        const std::uint32_t round = rounds.first + i;
        transport.pong(payload.prepare_answer(rounds.bytes, round), round);
        payload.check(rounds.bytes, round);
        if (after_round) after_round();
    }
}

}  // namespace pingpong
