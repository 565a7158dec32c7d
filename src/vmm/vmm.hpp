// SPDX-License-Identifier: Apache-2.0
// The steps of an allocation's life, each returning an owner on the line after its driver call. Throw Error.
#pragma once

#include <cstdint>
#include <optional>

#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/types.hpp>

#include "vmm/unique_handle.hpp"

namespace fabricmem::detail {

[[nodiscard]] AddressRange reserve(Driver& driver, std::uint64_t bytes, std::uint64_t alignment,
                                   const CallContext& about);
[[nodiscard]] Allocation create(Driver& driver, std::uint64_t bytes, const CUmemAllocationProp& properties);
[[nodiscard]] Allocation import_fabric(Driver& driver, const HandleBlob& blob, const CallContext& about);
[[nodiscard]] Mapping map(Driver& driver, const Range& range, CUmemGenericAllocationHandle handle,
                          const CallContext& about);

/// Gives access to the mapping: `access` names who is to get it (ordinals that exist, ascending, no duplicates; the
/// host where `host` is not none) and afterwards who got it. One set-access call for all; where the driver refuses
/// that, one for each, and who is refused then is left out and named in the log. Throws where nobody is left, where
/// required host access is refused, and for any failure that is not a refusal (out of memory takes nobody's access away
/// silently).
void grant_access(Driver& driver, const Range& range, Access& access, HostAccess host, const CallContext& about);

}  // namespace fabricmem::detail
