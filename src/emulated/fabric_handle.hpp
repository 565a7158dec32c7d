// SPDX-License-Identifier: Apache-2.0
// The 64 bytes of an emulated fabric handle: whose descriptor it names, and what an importer checks it against.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <cuda.h>

namespace fabricmem::detail::emulated {

/// What a handle says of the fabric that it comes from, in one byte.
struct HandleFabric {
    bool scenario = false;     ///< false: of a driver that is in no scenario
    bool single_node = false;  ///< exported while the exporter's IMEX daemon was down: no other node takes it
    std::uint32_t boots = 0;   ///< of the exporter's node; six bits of it travel

    static constexpr std::uint32_t kBootMask = 63;
    [[nodiscard]] constexpr std::uint8_t to_byte() const noexcept {
        return static_cast<std::uint8_t>((scenario ? 1U : 0U) | (single_node ? 2U : 0U) | (boots & kBootMask) << 2);
    }
    [[nodiscard]] static constexpr HandleFabric from_byte(std::uint8_t byte) noexcept {
        return {(byte & 1U) != 0, (byte & 2U) != 0, static_cast<std::uint32_t>(byte) >> 2};
    }
};

struct FabricHandle {
    std::uint32_t process_id = 0;
    std::uint64_t process_start = 0;
    std::uint32_t node = 0;
    std::int32_t descriptor = -1;
    std::int32_t imex_channel = 0;
    std::int32_t location_kind = 0;
    std::int32_t location_id = 0;
    bool rdma = false;
    std::uint8_t fabric = 0;  ///< HandleFabric
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
