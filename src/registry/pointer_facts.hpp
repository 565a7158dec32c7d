// SPDX-License-Identifier: Apache-2.0
// What the driver, or else the kernel, tells of one address.
#pragma once

#include <cstdint>
#include <optional>

#include <fabricmem/driver.hpp>

#include "driver/foreign_ids.hpp"
#include "vmm/unique_handle.hpp"

namespace fabricmem::detail {

/// Bytes at an address, as cuPointerGetAttributes tells them in one call; zeros where it does not know the address.
struct PointerFacts {
    Range mapping;      // of cuMemCreate memory: one handle's
    Range reservation;  // the allocation, or what cuMemAddressReserve gave
    std::uint64_t buffer_id = 0;
    std::uint64_t handle_types = 0;
    std::uint64_t pool = 0;
    unsigned int memory_type = 0;  // 0: the driver does not know it
    unsigned int is_managed = 0;
    unsigned int is_rdma_capable = 0;
    unsigned int is_ipc_capable = 0;
    int device = -1;
};

/// Needs no context. Throws as the failing call says.
[[nodiscard]] PointerFacts facts_of(Driver& driver, std::uintptr_t address);

/// Where the one handle at the address is mapped. Throws Error{unsupported} where the driver does not say.
[[nodiscard]] Range mapping_around(const PointerFacts& facts, std::uintptr_t address);

/// Whether the mapping is there yet. Throws as the failing call says.
[[nodiscard]] bool is_mapped(Driver& driver, const MappingKey& key);

/// The handle of the cuMemCreate memory at the address, with a reference of its own; empty where it is other memory.
/// Throws as the failing call says.
[[nodiscard]] Allocation retain(Driver& driver, std::uintptr_t address, const PointerFacts& facts);

/// Whether the CPU can read the byte, found out without reading it. Throws Error{system} where that can't be done.
[[nodiscard]] bool is_readable(std::uintptr_t address);

}  // namespace fabricmem::detail
