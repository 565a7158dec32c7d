// SPDX-License-Identifier: Apache-2.0
// What the command line of fabricmem-doctor can say.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pingpong_options.hpp"

namespace doctor {

/// The emulated driver is never taken unless it is asked for.
enum class DriverKind : std::uint8_t { cuda, emulated };

/// What the machine is measured against.
enum class Expectation : std::uint8_t { node, multinode };
[[nodiscard]] std::string_view to_string(Expectation expectation) noexcept;

enum class Colour : std::uint8_t { automatic, always, never };

/// What a child process is told by its parent.
struct ChildTask {
    enum class Part : std::uint8_t { examine, export_memory, import_memory };

    Part part = Part::examine;
    std::vector<std::string> done{};  ///< steps that are not to be made again
    bool without_nvml = false;        ///< it hung or crashed: it is not asked again
};

/// Where two doctors meet.
struct Pair {
    enum class Role : std::uint8_t { listen, connect };

    Role role = Role::listen;
    pingpong::Endpoint endpoint{};
};

/// What a rank of a job knows of the others.
struct Job {
    static constexpr std::uint32_t kMostRanks = 256;

    std::string store{};  ///< for fabricmem::make_store()
    std::optional<std::uint32_t> rank{};
    std::optional<std::uint32_t> size{};
};

struct Options {
    DriverKind driver = DriverKind::cuda;
    std::string scenario{};  ///< a name or a file; empty: what the environment says
    std::string root{};      ///< put before /dev, /proc and so on; empty: the machine's own
    std::optional<Expectation> expect{};
    bool json = false;
    bool verbose = false;
    Colour colour = Colour::automatic;
    std::string explain{};                             ///< a check's id, or "all"
    std::optional<std::chrono::seconds> time_limit{};  ///< of a step
    std::optional<Pair> pair{};
    std::optional<Job> job{};
    bool help = false;
    bool version = false;
    std::optional<ChildTask> child{};  ///< this process is a child
};

/// Throws examples::WrongOption.
[[nodiscard]] Options parse_options(std::span<const std::string> arguments);

[[nodiscard]] std::string help_text();

/// The command line of a child of a run with these options.
[[nodiscard]] std::vector<std::string> child_arguments(const Options& options, const ChildTask& task);

}  // namespace doctor
