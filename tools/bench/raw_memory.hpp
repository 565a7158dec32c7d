// SPDX-License-Identifier: Apache-2.0
// Fabric memory by the bare driver calls, in the order in which the library makes them: what it is compared with.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include <fabricmem/driver.hpp>
#include <fabricmem/fabricmem.hpp>

namespace bench {

using RawHandle = std::array<std::byte, fabricmem::HandleBlob::kHandleBytes>;

/// What to make: as a buffer of the library's was made.
struct RawPlan {
    std::size_t bytes = 0;
    CUmemAllocationProp properties{};
    std::vector<CUmemAccessDesc> access{};
};

[[nodiscard]] RawPlan plan_like(const fabricmem::FabricBuffer& buffer);

[[nodiscard]] RawHandle raw_handle_of(const fabricmem::HandleBlob& blob);

class RawMemory {
public:
    /// Makes and exports it.
    RawMemory(fabricmem::Driver& driver, const RawPlan& plan);
    /// Imports it.
    RawMemory(fabricmem::Driver& driver, const RawPlan& plan, RawHandle handle);
    RawMemory(const RawMemory&) = delete;
    RawMemory& operator=(const RawMemory&) = delete;
    ~RawMemory();

    [[nodiscard]] CUdeviceptr address() const noexcept { return address_; }
    [[nodiscard]] const RawHandle& handle() const noexcept { return handle_; }

private:
    void reserve();
    void map(const RawPlan& plan);
    void read_back();

    fabricmem::Driver& driver_;
    std::size_t bytes_;
    RawHandle handle_{};
    CUdeviceptr address_ = 0;
    CUmemGenericAllocationHandle allocation_ = 0;
};

}  // namespace bench
