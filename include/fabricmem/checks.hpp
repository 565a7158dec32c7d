// SPDX-License-Identifier: Apache-2.0
// What has to hold for fabric memory to work, each with an id that stays, and what to do where it does not. Errors and
// fabricmem-doctor name the check that failed. No CUDA.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include <fabricmem/error.hpp>
#include <fabricmem/export.hpp>

namespace fabricmem {

/// On which of two sides a failed check has to be mended, as this process sees it.
enum class Side : std::uint8_t {
    none,     ///< nothing failed
    here,     ///< in this process, or on its node
    there,    ///< with the peer
    between,  ///< each is well alone: they don't fit together
    unknown,
};
[[nodiscard]] FABRICMEM_API std::string_view to_string(Side side) noexcept;

/// What mends it, by who can: empty where nobody there can, or need not. Commands stand between backticks.
struct Cures {
    std::string_view user{};        ///< who runs the process
    std::string_view bare_metal{};  ///< the machine's administrator
    std::string_view container{};   ///< who starts the container
    std::string_view kubernetes{};  ///< who writes the pod, or runs the cluster
};

struct Check {
    std::string_view id;         ///< "FM-CHANNEL-001": never given to something else
    std::string_view statement;  ///< what has to hold, in the present tense
    ErrorKind kind;              ///< of an error that comes of it, as a rule
    Side side;                   ///< of an import that fails for it: whose business the cure is
    Cures cures;
};

/// All that this version knows, by area and number.
[[nodiscard]] FABRICMEM_API std::span<const Check> all_checks() noexcept;
/// Null for an id that this version does not know.
[[nodiscard]] FABRICMEM_API const Check* find_check(std::string_view id) noexcept;
/// Of an error that a process met with a peer's memory: that of its check, unknown where it names none.
[[nodiscard]] FABRICMEM_API Side side_of(const Error& error) noexcept;

}  // namespace fabricmem
