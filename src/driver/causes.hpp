// SPDX-License-Identifier: Apache-2.0
// What a failed driver call most likely comes of: which check (fabricmem/checks.hpp) does not hold, and how that is
// known.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <fabricmem/driver.hpp>
#include <fabricmem/error.hpp>

#include "driver/check.hpp"

namespace fabricmem::detail {

struct Finding {
    std::string_view check{};  ///< its id
    std::string cause{};
    std::string cure{};               ///< empty: the check's own
    std::optional<ErrorKind> kind{};  ///< nullopt: the check's own
};

/// The table of causes. Of the driver nothing is asked; of the platform what costs no more than a look into /proc and
/// /dev.
[[nodiscard]] Finding find_cause(CUresult result, Driver& driver, const CallContext& context);
/// The rows of importing: import, map and set-access of an import. context.imported is set.
[[nodiscard]] Finding find_cause_of_import(CUresult result, Driver& driver, const CallContext& context);

// For both tables.
/// Why fabric handles are not permitted to this process: the channel nodes tell.
[[nodiscard]] Finding find_cause_in_channels(const Platform& platform);
[[nodiscard]] Finding find_cause_by_code(CUresult result, Driver& driver);
/// Whether the device there says that it has fabric handles, or, without a device there, any of this process's does.
[[nodiscard]] bool has_fabric_handles(Driver& driver, const std::optional<Location>& location);

}  // namespace fabricmem::detail
