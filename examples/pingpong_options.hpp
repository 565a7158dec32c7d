// SPDX-License-Identifier: Apache-2.0
// What the command line of fabricmem-pingpong can say. Knows no driver and no socket.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/arguments.hpp"
#include "common/driver_choice.hpp"

namespace pingpong {

using namespace examples;  // what the programs share

/// How the bytes travel.
enum class Mode : std::uint8_t {
    copy,    ///< cuMemcpyAsync of the payload and then of the flag; the receiver looks at its flag
    stream,  ///< cuMemcpyAsync (cuStreamWriteValue64 for small payloads), cuStreamWriteValue32 and cuStreamWaitValue32:
             ///< the GPU waits, the host only watches
    cpu,     ///< loads and stores of the CPU
};
enum class Place : std::uint8_t { device, host };
enum class Role : std::uint8_t { start_peer, listen, connect };

[[nodiscard]] std::string_view to_string(Mode mode) noexcept;
[[nodiscard]] std::string_view to_string(Place place) noexcept;

/// A place to listen at or to connect to.
struct Endpoint {
    std::string host = "127.0.0.1";
    std::uint16_t port = 0;
};

/// "PORT", "HOST:PORT" or "[IPV6]:PORT". Throws WrongOption.
[[nodiscard]] Endpoint endpoint_of(std::string_view text, std::uint16_t least_port);

struct Options {
    Role role = Role::start_peer;
    Endpoint endpoint{};
    DriverChoice driver = DriverChoice::automatic;
    Mode mode = Mode::stream;
    Place location = Place::device;
    int device = 0;
    int peer_device = 0;  ///< of the peer that this process starts
    std::vector<std::size_t> sizes{};
    std::optional<std::uint32_t> iterations{};  ///< nullopt: fewer for large sizes
    std::optional<std::uint32_t> warmup{};      ///< nullopt: a tenth of the iterations
    std::chrono::seconds timeout{60};           ///< for each wait
    bool json = false;
    bool verbose = false;
    bool spawned = false;  ///< started by another fabricmem-pingpong, which does the talking
    bool help = false;
    bool version = false;

    [[nodiscard]] std::size_t largest_bytes() const noexcept;
    [[nodiscard]] std::uint32_t iterations_for(std::size_t bytes) const noexcept;
    [[nodiscard]] std::uint32_t warmup_for(std::size_t bytes) const noexcept;
};

/// Throws WrongOption.
[[nodiscard]] Options parse_options(std::span<const std::string> arguments);

[[nodiscard]] std::string help_text();

/// "4,64,4096": as --sizes takes it.
[[nodiscard]] std::string sizes_text(const std::vector<std::size_t>& sizes);

/// The command line of the peer that a process with these options starts.
[[nodiscard]] std::vector<std::string> peer_arguments(const Options& options, std::string_view driver,
                                                      const Endpoint& meeting_place);

}  // namespace pingpong
