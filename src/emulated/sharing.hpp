// SPDX-License-Identifier: Apache-2.0
// Brings an allocation from one process to another: by fabric handle or by descriptor.
#pragma once

#include <cstdint>
#include <memory>

#include <cuda.h>

#include "emulated/fabric_handle.hpp"
#include "emulated/memory.hpp"

namespace fabricmem::detail::emulated {

/// Who exports.
struct Exporter {
    std::uint32_t process_id = 0;
    std::uint64_t process_start = 0;
    std::uint32_t node = 0;
    int imex_channel = 0;
    std::uint8_t fabric = 0;  ///< HandleFabric
};

/// The same bytes for the same exporter, as long as the memory lives.
[[nodiscard]] FabricHandleBytes export_fabric(const Memory& memory, const Exporter& exporter) noexcept;

/// Opens the exporter's descriptor through /proc and checks that the process and the memory are the ones meant.
CUresult import_fabric(const FabricHandle& handle, MemoryTable& table, std::shared_ptr<Memory>* memory);

/// `descriptor` stays the caller's.
CUresult import_descriptor(int descriptor, MemoryTable& table, std::shared_ptr<Memory>* memory);

}  // namespace fabricmem::detail::emulated
