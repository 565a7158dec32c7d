// SPDX-License-Identifier: Apache-2.0
// What tests of an emulated fabric say often: a driver of a node, memory that one node exports and another imports.
#pragma once

#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fabricmem/emulated_fabric.hpp>

#include "support/driver_kit.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

namespace fabricmem::test {

using Fabric = std::shared_ptr<EmulatedFabric>;

[[nodiscard]] inline Fabric ready_made(std::string_view name) {
    return make_emulated_fabric(Scenario::ready_made(name));
}

[[nodiscard]] inline std::shared_ptr<Driver> driver_on(const Fabric& fabric, const std::string& node) {
    return make_emulated_driver(fabric, {.node = node});
}

/// Device memory with a fabric handle, alive as long as this.
class Exported {
public:
    explicit Exported(Driver& driver, const CUmemAllocationProp& wanted = device_memory(kFabric))
        : driver_(driver), memory_(driver, wanted, {}) {
        REQUIRE(memory_.result() == CUDA_SUCCESS);
    }
    /// Exports anew.
    [[nodiscard]] FabricBytes bytes() const {
        FabricBytes bytes{};
        REQUIRE(export_fabric(driver_, memory_.handle(), &bytes) == CUDA_SUCCESS);
        return bytes;
    }
    [[nodiscard]] Mapped& memory() { return memory_; }

private:
    Driver& driver_;
    Mapped memory_;
};

/// Imports and lets go again.
inline CUresult try_import(Driver& driver, const FabricBytes& bytes) {
    CUmemGenericAllocationHandle handle = 0;
    const CUresult result = import_fabric(driver, bytes, &handle);
    if (result == CUDA_SUCCESS) driver.mem_release(handle);
    return result;
}

/// Imports, which has to work.
[[nodiscard]] inline CUmemGenericAllocationHandle imported(Driver& driver, const FabricBytes& bytes) {
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(import_fabric(driver, bytes, &handle) == CUDA_SUCCESS);
    return handle;
}

inline CUresult try_create(Driver& driver, const CUmemAllocationProp& wanted = device_memory(kFabric)) {
    CUmemGenericAllocationHandle handle = 0;
    const CUresult result = driver.mem_create(&handle, kTwoMiB, &wanted, 0);
    if (result == CUDA_SUCCESS) driver.mem_release(handle);
    return result;
}

/// Any call that asks nothing of the fabric.
inline CUresult any_call(Driver& driver) {
    int count = 0;
    return driver.device_get_count(&count);
}

inline int attribute_of(Driver& driver, int number, int device = 0) {
    int value = -1;
    REQUIRE(driver.device_get_attribute(&value, static_cast<CUdevice_attribute>(number), device) == CUDA_SUCCESS);
    return value;
}

inline FabricInfo info_of(Driver& driver, int device = 0) {
    char bus[32];
    REQUIRE(driver.device_get_pci_bus_id(bus, sizeof bus, device) == CUDA_SUCCESS);
    const auto info = driver.platform().fabric_info(bus);
    REQUIRE(info.has_value());
    return *info;
}

/// A call in a thread of its own. One that does not hang is over long before `still_hangs` looks.
class Call {
public:
    template <typename Function>
    explicit Call(Function&& function) : result_(std::async(std::launch::async, std::forward<Function>(function))) {}

    [[nodiscard]] bool still_hangs() const {
        return result_.wait_for(std::chrono::milliseconds(100)) == std::future_status::timeout;
    }
    /// What it returned; nullopt where it has not within a minute (and the test ends badly).
    [[nodiscard]] std::optional<CUresult> answer() {
        if (result_.wait_for(std::chrono::seconds(60)) != std::future_status::ready) return std::nullopt;
        return result_.get();
    }

private:
    std::future<CUresult> result_;
};

}  // namespace fabricmem::test
