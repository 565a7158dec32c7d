// SPDX-License-Identifier: Apache-2.0
// The rounds themselves: what lies where in a side's memory, how bytes and flags get there, and what is timed. Takes
// plain addresses, so it neither knows nor cares who made the memory. The rest of the program is talk around this.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <vector>

#include <fabricmem/driver.hpp>

#include "common/deadline.hpp"
#include "pingpong_gpu.hpp"
#include "pingpong_options.hpp"

namespace pingpong {

// What lies where in each side's memory. Only the other side writes there: two 32-bit flags, a cache line each, and
// the payload. All zero at the start.
inline constexpr std::size_t kArrivedOffset = 0;  // number of the round whose payload is here
inline constexpr std::size_t kReadyOffset = 64;   // number of the round whose next phase the other side is ready for
inline constexpr std::size_t kPayloadOffset = 4096;

/// Whole words: write-values write no less.
[[nodiscard]] constexpr std::size_t buffer_bytes(std::size_t payload_bytes) noexcept {
    return kPayloadOffset + (payload_bytes + 7) / 8 * 8;
}

/// Whether the payload is write-values too, and no copy. A copy needs an engine of the GPU's, and two processes that
/// share one GPU take turns on its engines, which takes longer than all else in a round. Each value is a call and a
/// fence more, so for larger payloads a copy is the better one.
[[nodiscard]] constexpr bool travels_as_values(Mode mode, std::size_t payload_bytes) noexcept {
    return mode == Mode::stream && payload_bytes <= 64;
}

enum class CpuAccess : std::uint8_t { no, yes };

/// One side's view of both sides' memory.
struct Memory {
    CUdeviceptr own = 0;   ///< what the peer writes to
    CUdeviceptr peer = 0;  ///< what the peer looks at, as it is mapped here
    Place place = Place::device;
    CpuAccess own_access = CpuAccess::no;
    CpuAccess peer_access = CpuAccess::no;
};

/// Asked every so often by whoever waits for the peer.
class Watch {
public:
    virtual ~Watch() = default;
    /// Throws where the wait that began at `since` makes no sense any more.
    virtual void check(Clock::time_point since, std::string_view awaited) = 0;

protected:
    Watch() = default;
    Watch(const Watch&) = default;
    Watch& operator=(const Watch&) = default;
};

/// The bytes that are sent in a round.
struct Source {
    std::size_t bytes = 0;
    CUdeviceptr address = 0;          ///< for those who copy them
    const std::byte* host = nullptr;  ///< for those who send them as values; else null
};

/// How one side of a round is played, in one of the modes. A round has a number, from 1 on, and goes like this:
///
///     first side                                second side
///     await_ready(n)                  <-ready-  pong(n): says that it is ready
///     ping(n): payload, flag          ------->           waits for the flag
///              waits for the flag     <-------           sends payload and flag back
///     say_ready(n)                    -ready->           waits until the first side's clock has stopped
///     ...looks at what came                     ...looks at what came
///
/// What goes back from device memory is what came; but where the payload travels as values, which only a host knows,
/// and from host memory, the second side makes the same bytes itself. Both sides look at every byte that came.
///
/// So neither side's looking takes time from the other's measuring. When a member returns, what it put on a stream may
/// still be under way, except that what it waited for has come. The destructor sees to it that nothing is under way
/// any more, if need be by writing itself what a stream still waits for: memory has to be idle when it is unmapped.
class Transport {
public:
    virtual ~Transport() = default;
    Transport(const Transport&) = delete;
    Transport& operator=(const Transport&) = delete;

    virtual void await_ready(std::uint32_t round) = 0;
    virtual void ping(const Source& source, std::uint32_t round) = 0;
    virtual void say_ready(std::uint32_t round) = 0;

    virtual void pong(const Source& source, std::uint32_t round) = 0;

protected:
    Transport() = default;
};

/// A context has to be current, but for Mode::cpu, where `driver` may be null. `watch` outlives the transport. Throws
/// std::runtime_error where the CPU has to reach the memory and can't.
[[nodiscard]] std::unique_ptr<Transport> make_transport(Mode mode, const std::shared_ptr<fabricmem::Driver>& driver,
                                                        const Memory& memory, Watch& watch);

/// A byte that arrived is not the one that was sent.
class WrongByte : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// Where the first side's bytes come from, and how both sides look at the bytes that arrived.
class Payload {
public:
    /// As make_transport().
    Payload(Mode mode, const std::shared_ptr<fabricmem::Driver>& driver, const Memory& memory, std::size_t most_bytes,
            Watch& watch);

    /// Makes the bytes of this round and says where they are. No two rounds have the same.
    [[nodiscard]] Source prepare(std::size_t bytes, std::uint32_t round);
    /// What the second side sends: what came, or the same bytes.
    [[nodiscard]] Source prepare_answer(std::size_t bytes, std::uint32_t round);
    /// Looks at every byte in this side's memory. Throws WrongByte.
    void check(std::size_t bytes, std::uint32_t round);

private:
    void copy(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes);

    Mode mode_;
    Memory memory_;
    Watch& watch_;
    std::vector<std::byte> heap_;            // Mode::cpu
    std::optional<PinnedMemory> pinned_;     // the other modes
    std::optional<DeviceMemory> on_device_;  // and device memory
    std::optional<Stream> stream_;
    std::byte* bytes_ = nullptr;  // of heap_ or pinned_
};

/// Some rounds of one size.
struct Rounds {
    std::size_t bytes = 0;
    std::uint32_t first = 1;   ///< number of the first; has to be the same on both sides, and grow
    std::uint32_t warmup = 0;  ///< rounds that are not measured
    std::uint32_t measured = 0;

    [[nodiscard]] std::uint32_t count() const noexcept { return warmup + measured; }
};

/// Called after each round, outside the timed part.
using AfterRound = std::function<void()>;

/// The side with the clock. Returns how long each measured round trip took, in microseconds.
[[nodiscard]] std::vector<double> play_first(Transport& transport, Payload& payload, const Rounds& rounds,
                                             const AfterRound& after_round = {});
/// The side that answers.
void play_second(Transport& transport, Payload& payload, const Rounds& rounds, const AfterRound& after_round = {});

}  // namespace pingpong
