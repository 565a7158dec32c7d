// SPDX-License-Identifier: Apache-2.0
// What the command line of fabricmem-warmup can say.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/handshake.hpp>

#include "common/driver_choice.hpp"

namespace warmup {

/// Which rank is killed, and when.
struct Kill {
    enum class Moment : std::uint8_t { random, hello };
    std::uint32_t rank = 0;
    Moment moment = Moment::random;
};

/// What a process that is a rank is told by the one that started it.
struct RankTask {
    std::uint32_t rank = 0;
    int device = 0;
    fabricmem::Id128 job{};  ///< of one run: the group, and the prefix of its keys
    std::chrono::steady_clock::time_point until{};
};

struct Options {
    std::uint32_t ranks = 4;
    examples::DriverChoice driver = examples::DriverChoice::automatic;
    std::string store{};     ///< empty: a fresh directory
    std::string scenario{};  ///< a name or a file; empty: FABRICMEM_EMULATOR, else gb200-nvl72
    std::optional<Kill> kill{};
    std::chrono::seconds deadline{30};
    std::optional<int> device{};  ///< nullopt: all, in turns
    fabricmem::SlotPlacement placement = fabricmem::SlotPlacement::host_first;
    fabricmem::ProofPolicy policy = fabricmem::ProofPolicy::verify;
    bool json = false;
    bool help = false;
    bool version = false;
    std::optional<RankTask> task{};  ///< this process is a rank
};

/// Throws examples::WrongOption.
[[nodiscard]] Options parse_options(std::span<const std::string> arguments);

[[nodiscard]] std::string help_text();

[[nodiscard]] std::string_view to_string(fabricmem::SlotPlacement placement) noexcept;
[[nodiscard]] std::string_view to_string(fabricmem::ProofPolicy policy) noexcept;

/// The command line of a rank of a run with these options. `driver` and `store` are what the run settled on.
[[nodiscard]] std::vector<std::string> rank_arguments(const Options& options, std::string_view driver,
                                                      std::string_view store, const RankTask& task);

}  // namespace warmup
