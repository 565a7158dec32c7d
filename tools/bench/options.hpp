// SPDX-License-Identifier: Apache-2.0
// What the command line of fabricmem-bench can say.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "pingpong_options.hpp"

namespace bench {

/// Whether the processes hold the device's primary context while memory is made and imported. Without one the driver
/// makes set-access and unmap 30 times slower (docs/hardware.md), which no program that computes meets.
enum class Context : std::uint8_t { held, none };

/// Whether the processes stay on CPUs of their own.
enum class Pin : std::uint8_t { yes, no };

struct Options {
    examples::DriverChoice driver = examples::DriverChoice::automatic;
    int device = 0;
    Context context = Context::held;
    Pin pin = Pin::yes;
    std::string nccl{};  ///< libnccl.so.2; empty: where the loader finds it
    std::string only{};  ///< empty: all
    std::uint32_t rounds = 1000;
    std::uint32_t runs = 5;
    bool json = false;
    std::string json_file{};         ///< empty: stdout
    std::string cpus{};              ///< of the second process; none: any
    std::uint16_t connect_port = 0;  ///< not 0: this is the second process, started by the first
    bool help = false;

    [[nodiscard]] bool wants(std::string_view name) const noexcept { return only.empty() || only == name; }
};

/// Throws examples::WrongOption.
[[nodiscard]] Options parse_options(std::span<const std::string> arguments);

[[nodiscard]] std::string help_text();

}  // namespace bench
