// SPDX-License-Identifier: Apache-2.0
// The command line of fabricmem_soak, and the choices that follow from a seed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace fabricmem::soak {

struct Options {
    std::uint64_t rounds = 0;   ///< 0: as long as `seconds` allow
    std::uint64_t seconds = 0;  ///< 0: no limit
    std::uint64_t seed = 0;
    std::uint64_t user = 0;  ///< whose the processes are; 0: the caller's
    std::string driver = "emulated";
    bool help = false;
};

/// nullopt, after a line on stderr, for arguments that are none.
[[nodiscard]] std::optional<Options> parse(const std::vector<std::string>& arguments);
[[nodiscard]] const char* usage_text();

/// What is left to chance in a round. The same seed and round give the same choices; what the machine makes of the
/// moment does not come back.
struct Choices {
    bool exporter_dies = false;  ///< else the importer does
    std::string place;           ///< device or host
    unsigned int lives = 1;      ///< memories that a dying exporter publishes, 1 to 3
    bool race = false;           ///< the memory is closed while its import may still go on
    double moment = 0;           ///< of the kill, as a part of the time that the whole round would take
};
[[nodiscard]] Choices choose(std::uint64_t seed, std::uint64_t round);
[[nodiscard]] std::string to_string(const Choices& choices);

}  // namespace fabricmem::soak
