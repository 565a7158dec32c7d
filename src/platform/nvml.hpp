// SPDX-License-Identifier: Apache-2.0
// NVML at run time: what the library asks of it, and no more. Knows no CUDA and needs no nvml.h.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include <fabricmem/platform.hpp>

namespace fabricmem::detail {

/// NVML, loaded when it is first asked for; a failure is remembered. Thread-safe.
///
/// Neither nvmlShutdown nor dlclose is called: the object may die in a static's destructor, when NVML's own statics are
/// gone, and NVML counts its initializations, so one too many costs nothing.
class Nvml {
public:
    explicit Nvml(std::string library);
    ~Nvml();
    Nvml(const Nvml&) = delete;
    Nvml& operator=(const Nvml&) = delete;

    /// nullopt where NVML is absent, doesn't know the device, says what this library doesn't understand, or was loaded
    /// by the process that this one was forked from, through whichever of these objects: its descriptors and locks are
    /// the parent's.
    [[nodiscard]] std::optional<FabricInfo> fabric_info(std::string_view pci_bus_id) const;
    /// nullopt where NVML is absent or the parent's. What one of its calls does not answer is not known, and a device
    /// whose place it does not tell is left out; so are all where it counts more than a machine can have.
    [[nodiscard]] std::optional<NvmlFacts> facts() const;

private:
    struct Calls;

    [[nodiscard]] const Calls* calls() const;

    std::string library_;
    // The process that was the first to load the library; 0: not looked for yet. Looked at before loading_, which a
    // thread of the parent may have held during the fork.
    mutable std::atomic<std::uint64_t> loader_{0};
    mutable std::once_flag loading_;
    mutable std::unique_ptr<const Calls> calls_;
};

}  // namespace fabricmem::detail
