// SPDX-License-Identifier: Apache-2.0
// NVML's binary interface, written down by hand: nvml.h is not on every machine that builds this.
#include "platform/nvml.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <dlfcn.h>

#include "log/log.hpp"
#include "platform/fork_epoch.hpp"

namespace fabricmem::detail {
namespace {

using Device = void*;         // nvmlDevice_t
using Return = std::int32_t;  // nvmlReturn_t: any number may come from a newer NVML, so no enum
constexpr Return kSuccess = 0;

struct FabricInfoV1 {  // nvmlGpuFabricInfo_t
    std::uint8_t cluster_uuid[16];
    Return status;
    std::uint32_t clique;
    std::uint8_t state;
};
struct FabricInfoV2 {  // nvmlGpuFabricInfo_v2_t
    std::uint32_t version;
    std::uint8_t cluster_uuid[16];
    Return status;
    std::uint32_t clique;
    std::uint8_t state;
    std::uint32_t health_mask;
};
struct FabricInfoV3 {  // nvmlGpuFabricInfo_v3_t
    std::uint32_t version;
    std::uint8_t cluster_uuid[16];
    Return status;
    std::uint32_t clique;
    std::uint8_t state;
    std::uint32_t health_mask;
    std::uint8_t health_summary;
};
static_assert(sizeof(FabricInfoV1) == 28 && offsetof(FabricInfoV1, state) == 24);
static_assert(sizeof(FabricInfoV2) == 36 && offsetof(FabricInfoV2, state) == 28 &&
              offsetof(FabricInfoV2, health_mask) == 32);
static_assert(sizeof(FabricInfoV3) == 40 && offsetof(FabricInfoV3, state) == 28 &&
              offsetof(FabricInfoV3, health_mask) == 32 && offsetof(FabricInfoV3, health_summary) == 36);

/// NVML_STRUCT_VERSION
template <typename Info>
constexpr std::uint32_t struct_version(std::uint32_t version) {
    return static_cast<std::uint32_t>(sizeof(Info)) | (version << 24U);
}
static_assert(struct_version<FabricInfoV2>(2) == 0x02000024 && struct_version<FabricInfoV3>(3) == 0x03000028);

template <typename Info>
std::optional<FabricInfo> understand(const Info& info) {
    if (info.state > static_cast<std::uint8_t>(FabricInfo::State::completed)) return std::nullopt;
    FabricInfo result;
    result.state = static_cast<FabricInfo::State>(info.state);
    result.status = info.status;
    std::copy(std::begin(info.cluster_uuid), std::end(info.cluster_uuid), result.cluster_uuid.bytes.begin());
    result.clique = info.clique;
    return result;
}

}  // namespace

struct Nvml::Calls {
    Return (*init)() = nullptr;
    Return (*device_by_pci_bus_id)(const char* pci_bus_id, Device* device) = nullptr;
    Return (*fabric_info_versioned)(Device device, void* info) = nullptr;  // null before v2
    Return (*fabric_info_v1)(Device device, void* info) = nullptr;         // null where NVML knows no fabric

    /// False where one of the calls that nothing goes without is absent.
    [[nodiscard]] bool load(void* library) {
        init = reinterpret_cast<decltype(init)>(::dlsym(library, "nvmlInit_v2"));
        device_by_pci_bus_id =
            reinterpret_cast<decltype(device_by_pci_bus_id)>(::dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2"));
        fabric_info_versioned =
            reinterpret_cast<decltype(fabric_info_versioned)>(::dlsym(library, "nvmlDeviceGetGpuFabricInfoV"));
        fabric_info_v1 = reinterpret_cast<decltype(fabric_info_v1)>(::dlsym(library, "nvmlDeviceGetGpuFabricInfo"));
        return init != nullptr && device_by_pci_bus_id != nullptr;
    }

    template <typename Info>
    [[nodiscard]] std::optional<FabricInfo> ask(Device device, std::uint32_t version) const {
        if (fabric_info_versioned == nullptr) return std::nullopt;
        Info info{};
        info.version = struct_version<Info>(version);
        if (fabric_info_versioned(device, &info) != kSuccess) return std::nullopt;
        auto result = understand(info);
        if (result) result->health_mask = info.health_mask;
        return result;
    }
    [[nodiscard]] std::optional<FabricInfo> ask_v1(Device device) const {
        FabricInfoV1 info{};
        if (fabric_info_v1 == nullptr || fabric_info_v1(device, &info) != kSuccess) return std::nullopt;
        return understand(info);
    }
};

Nvml::Nvml(std::string library) : library_(std::move(library)) {}
Nvml::~Nvml() = default;

const Nvml::Calls* Nvml::calls() const {
    const std::uint64_t self = fork_epoch();
    std::uint64_t loader = 0;
    if (!loader_.compare_exchange_strong(loader, self) && loader != self) return nullptr;
    const DeferredLog later;  // a sink may ask NVML too
    std::call_once(loading_, [this] {
        void* const library = ::dlopen(library_.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr) {
            log(LogLevel::debug, "no NVML, so nothing is known of the NVLink fabric: {} can't be loaded", library_);
            return;
        }
        Calls calls;
        if (!calls.load(library)) {
            log(LogLevel::info, "nothing is known of the NVLink fabric: {} is not NVML, or too old", library_);
            return;
        }
        if (const Return result = calls.init(); result != kSuccess) {
            log(LogLevel::info, "nothing is known of the NVLink fabric: nvmlInit_v2 failed: {}", result);
            return;
        }
        calls_ = std::make_unique<const Calls>(calls);
    });
    return calls_.get();
}

std::optional<FabricInfo> Nvml::fabric_info(std::string_view pci_bus_id) const {
    const Calls* const nvml = calls();
    if (nvml == nullptr) return std::nullopt;
    Device device = nullptr;
    if (nvml->device_by_pci_bus_id(std::string(pci_bus_id).c_str(), &device) != kSuccess) return std::nullopt;
    if (auto info = nvml->ask<FabricInfoV3>(device, 3)) return info;
    if (auto info = nvml->ask<FabricInfoV2>(device, 2)) return info;
    return nvml->ask_v1(device);
}

}  // namespace fabricmem::detail
