// SPDX-License-Identifier: Apache-2.0
// The 64 bytes of an emulated fabric handle: whose descriptor it names, and what an importer checks it against.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <cuda.h>

namespace fabricmem::detail::emulated {

struct FabricHandle {
    std::uint32_t process_id = 0;
    std::uint64_t process_start = 0;
    std::uint32_t node = 0;
    std::int32_t descriptor = -1;
    std::int32_t imex_channel = 0;
    std::int32_t location_kind = 0;
    std::int32_t location_id = 0;
    bool rdma = false;
    std::uint64_t inode = 0;
    std::uint64_t filesystem = 0;  ///< st_dev; 32 bits of it travel
    std::uint64_t bytes = 0;
};

inline constexpr std::size_t kFabricHandleBytes = 64;
using FabricHandleBytes = std::array<unsigned char, kFabricHandleBytes>;

[[nodiscard]] FabricHandleBytes encode(const FabricHandle& handle) noexcept;
/// NOT_SUPPORTED for bytes that are no handle, NOT_READY where the node's number alone is damaged.
[[nodiscard]] CUresult decode(const FabricHandleBytes& bytes, FabricHandle* handle) noexcept;

}  // namespace fabricmem::detail::emulated
