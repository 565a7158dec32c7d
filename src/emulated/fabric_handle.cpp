// SPDX-License-Identifier: Apache-2.0
// Layout of the 64 bytes, native byte order: a handle never leaves the machine.
#include "emulated/fabric_handle.hpp"

#include <cstring>

#include "emulated/numbers.hpp"

namespace fabricmem::detail::emulated {

namespace {

struct Layout {
    std::uint32_t magic;
    std::uint32_t process_id;
    std::uint64_t process_start;
    // The real driver answers NOT_READY where byte 16 or 17 is damaged, NOT_PERMITTED for bytes 40 to 43, NOT_SUPPORTED
    // for 8 to 15 and 44, and does not look at most others (docs/driver-notes.md). So byte 16 is outside the checksum
    // and compared with `node`, which is inside, and the channel at 40 is outside, so that another one is another
    // channel. Damage anywhere else is found by the checksum: the emulator is stricter there.
    std::uint8_t node_byte;
    std::uint8_t location_kind;
    std::uint8_t rdma;
    std::uint8_t fabric;
    std::int32_t descriptor;
    std::uint64_t bytes;
    std::uint64_t inode;
    std::int32_t imex_channel;
    std::int32_t location_id;
    std::uint32_t filesystem;
    std::uint32_t node;
    std::uint64_t checksum;
};
static_assert(sizeof(Layout) == kFabricHandleBytes && offsetof(Layout, node_byte) == 16 &&
              offsetof(Layout, imex_channel) == 40);

constexpr std::uint32_t kMagic = 0x31464d45;  // "EMF1"

std::uint64_t checksum(Layout layout) noexcept {
    layout.node_byte = 0;
    layout.imex_channel = 0;
    layout.checksum = 0;
    char bytes[sizeof layout];
    std::memcpy(bytes, &layout, sizeof layout);
    return hash({bytes, sizeof bytes}, kMagic);
}

}  // namespace

FabricHandleBytes encode(const FabricHandle& handle) noexcept {
    Layout layout{.magic = kMagic,
                  .process_id = handle.process_id,
                  .process_start = handle.process_start,
                  .node_byte = static_cast<std::uint8_t>(handle.node),
                  .location_kind = static_cast<std::uint8_t>(handle.location_kind),
                  .rdma = static_cast<std::uint8_t>(handle.rdma ? 1 : 0),
                  .fabric = handle.fabric,
                  .descriptor = handle.descriptor,
                  .bytes = handle.bytes,
                  .inode = handle.inode,
                  .imex_channel = handle.imex_channel,
                  .location_id = handle.location_id,
                  .filesystem = static_cast<std::uint32_t>(handle.filesystem),
                  .node = handle.node,
                  .checksum = 0};
    layout.checksum = checksum(layout);
    FabricHandleBytes bytes;
    std::memcpy(bytes.data(), &layout, sizeof layout);
    return bytes;
}

CUresult decode(const FabricHandleBytes& bytes, FabricHandle* handle) noexcept {
    Layout layout;
    std::memcpy(&layout, bytes.data(), sizeof layout);
    if (layout.magic != kMagic || layout.checksum != checksum(layout)) return CUDA_ERROR_NOT_SUPPORTED;
    if (layout.node_byte != static_cast<std::uint8_t>(layout.node)) return CUDA_ERROR_NOT_READY;
    *handle = {.process_id = layout.process_id,
               .process_start = layout.process_start,
               .node = layout.node,
               .descriptor = layout.descriptor,
               .imex_channel = layout.imex_channel,
               .location_kind = layout.location_kind,
               .location_id = layout.location_id,
               .rdma = layout.rdma != 0,
               .fabric = layout.fabric,
               .inode = layout.inode,
               .filesystem = layout.filesystem,
               .bytes = layout.bytes};
    return CUDA_SUCCESS;
}

}  // namespace fabricmem::detail::emulated
