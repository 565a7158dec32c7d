// SPDX-License-Identifier: Apache-2.0
// Loads NVML and asks it. What it answers is not trusted: nonsense is as no answer.
#include "platform/nvml.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include <dlfcn.h>

#include "log/log.hpp"
#include "platform/fork_epoch.hpp"
#include "platform/nvml_abi.hpp"
#include "platform/proc_text.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

using nvml_abi::Device;
using nvml_abi::kSuccess;
using nvml_abi::Return;

constexpr std::uint32_t kMostDevices = 1024;

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

// As cuDeviceGetPCIBusId writes it: letters are capitals (ggml-org/llama.cpp#22820), unlike those in /sys. Empty for
// numbers that no PCI device has.
std::string bus_id_of(const nvml_abi::PciInfo& info) {
    if (info.bus > 0xff || info.device > 0x1f) return {};
    return formatted("{:04X}:{:02X}:{:02X}.0", info.domain, info.bus, info.device);
}

// "GPU-" and a UUID. A "MIG-" one is no whole device's.
Id128 uuid_in(std::string_view text) {
    constexpr std::string_view kPrefix = "GPU-";
    if (text.substr(0, kPrefix.size()) != kPrefix) return {};
    return parse_id(text.substr(kPrefix.size())).value_or(Id128{});
}

// What `ask` writes into a buffer, up to its terminator, or to its end where there is none. It goes to terminals and
// into JSON: what is not printable ASCII is a question mark.
template <std::size_t Bytes, typename Ask>
std::string text_from(Ask ask) {
    std::array<char, Bytes> buffer{};
    if (ask(buffer.data(), static_cast<unsigned int>(Bytes)) != kSuccess) return {};
    std::string text(buffer.begin(), std::find(buffer.begin(), buffer.end(), '\0'));
    std::replace_if(
        text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
    return text;
}

template <typename Number>
std::optional<std::uint32_t> narrowed(const unsigned char (&value)[8]) {
    Number number{};
    std::memcpy(&number, value, sizeof number);
    const bool fits = std::in_range<std::uint32_t>(number);
    return fits ? std::optional(static_cast<std::uint32_t>(number)) : std::nullopt;
}

std::optional<std::uint32_t> number_in(const nvml_abi::FieldValue& field) {
    switch (field.value_type) {
        case nvml_abi::value_is_unsigned_int: return narrowed<unsigned int>(field.value);
        case nvml_abi::value_is_unsigned_long: return narrowed<unsigned long>(field.value);
        case nvml_abi::value_is_unsigned_long_long: return narrowed<unsigned long long>(field.value);
        case nvml_abi::value_is_signed_long_long: return narrowed<long long>(field.value);
        case nvml_abi::value_is_signed_int: return narrowed<int>(field.value);
        case nvml_abi::value_is_unsigned_short: return narrowed<unsigned short>(field.value);
        default: return std::nullopt;
    }
}

// Which process was the first to load which library. NVML's own state is one for a process, however many objects ask
// it, and a child inherits it with all descriptors and locks in it.
struct Loader {
    std::string library;
    std::uint64_t process;  // its fork_epoch()
    Loader* next;
};

// Without a lock, which a thread of the parent could hold for ever in a child. What is listed stays.
std::uint64_t first_loader_of(const std::string& library) {
    static constinit std::atomic<Loader*> all{nullptr};
    std::unique_ptr<Loader> own;
    Loader* first = all.load(std::memory_order_acquire);
    for (;;) {
        for (const Loader* known = first; known != nullptr; known = known->next) {
            if (known->library == library) return known->process;
        }
        if (own == nullptr) own = std::make_unique<Loader>(Loader{library, fork_epoch(), nullptr});
        own->next = first;
        if (all.compare_exchange_strong(first, own.get(), std::memory_order_acq_rel)) return own.release()->process;
    }
}

template <typename Function>
void find_symbol(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(::dlsym(library, name));
}

}  // namespace

// Null where NVML does not have it.
struct Nvml::Calls {
    Return (*init)() = nullptr;
    Return (*device_by_pci_bus_id)(const char* pci_bus_id, Device* device) = nullptr;
    Return (*fabric_info_versioned)(Device device, void* info) = nullptr;  // from v2 on
    Return (*fabric_info_v1)(Device device, void* info) = nullptr;
    Return (*driver_version)(char* text, unsigned int bytes) = nullptr;
    Return (*device_count)(unsigned int* count) = nullptr;
    Return (*device_by_index)(unsigned int index, Device* device) = nullptr;
    Return (*pci_info)(Device device, nvml_abi::PciInfo* info) = nullptr;
    Return (*name)(Device device, char* text, unsigned int bytes) = nullptr;
    Return (*uuid)(Device device, char* text, unsigned int bytes) = nullptr;
    Return (*field_values)(Device device, int count, nvml_abi::FieldValue* values) = nullptr;

    /// False where one of the calls that nothing goes without is absent.
    [[nodiscard]] bool load(void* library);
    [[nodiscard]] std::optional<FabricInfo> fabric_of(Device device) const;
    [[nodiscard]] std::string driver_version_text() const;
    [[nodiscard]] std::uint32_t count_devices() const;
    /// nullopt where the device's place can't be told.
    [[nodiscard]] std::optional<NvmlDevice> describe(std::uint32_t index) const;

private:
    template <typename Info>
    [[nodiscard]] std::optional<FabricInfo> ask(Device device, std::uint32_t version) const;
    [[nodiscard]] std::optional<FabricInfo> ask_v1(Device device) const;
    [[nodiscard]] std::optional<std::uint32_t> recovery_action_of(Device device) const;
};

bool Nvml::Calls::load(void* library) {
    find_symbol(library, "nvmlInit_v2", init);
    find_symbol(library, "nvmlDeviceGetHandleByPciBusId_v2", device_by_pci_bus_id);
    find_symbol(library, "nvmlDeviceGetGpuFabricInfoV", fabric_info_versioned);
    find_symbol(library, "nvmlDeviceGetGpuFabricInfo", fabric_info_v1);
    find_symbol(library, "nvmlSystemGetDriverVersion", driver_version);
    find_symbol(library, "nvmlDeviceGetCount_v2", device_count);
    find_symbol(library, "nvmlDeviceGetHandleByIndex_v2", device_by_index);
    find_symbol(library, "nvmlDeviceGetPciInfo_v3", pci_info);
    find_symbol(library, "nvmlDeviceGetName", name);
    find_symbol(library, "nvmlDeviceGetUUID", uuid);
    find_symbol(library, "nvmlDeviceGetFieldValues", field_values);
    return init != nullptr && device_by_pci_bus_id != nullptr;
}

template <typename Info>
std::optional<FabricInfo> Nvml::Calls::ask(Device device, std::uint32_t version) const {
    if (fabric_info_versioned == nullptr) return std::nullopt;
    Info info{};
    info.version = nvml_abi::struct_version<Info>(version);
    if (fabric_info_versioned(device, &info) != kSuccess) return std::nullopt;
    auto result = understand(info);
    if (result) result->health_mask = info.health_mask;
    return result;
}

std::optional<FabricInfo> Nvml::Calls::ask_v1(Device device) const {
    nvml_abi::FabricInfoV1 info{};
    if (fabric_info_v1 == nullptr || fabric_info_v1(device, &info) != kSuccess) return std::nullopt;
    return understand(info);
}

std::optional<FabricInfo> Nvml::Calls::fabric_of(Device device) const {
    if (auto info = ask<nvml_abi::FabricInfoV3>(device, 3)) return info;
    if (auto info = ask<nvml_abi::FabricInfoV2>(device, 2)) return info;
    return ask_v1(device);
}

std::string Nvml::Calls::driver_version_text() const {
    if (driver_version == nullptr) return {};
    return text_from<nvml_abi::kDriverVersionBytes>(driver_version);
}

std::uint32_t Nvml::Calls::count_devices() const {
    unsigned int count = 0;
    if (device_count == nullptr || device_by_index == nullptr || pci_info == nullptr) return 0;
    if (device_count(&count) != kSuccess) return 0;
    return count <= kMostDevices ? count : 0;
}

std::optional<std::uint32_t> Nvml::Calls::recovery_action_of(Device device) const {
    nvml_abi::FieldValue field{};
    field.field = nvml_abi::kFieldRecoveryAction;
    if (field_values == nullptr || field_values(device, 1, &field) != kSuccess) return std::nullopt;
    return field.result == kSuccess ? number_in(field) : std::nullopt;
}

std::optional<NvmlDevice> Nvml::Calls::describe(std::uint32_t index) const {
    Device device = nullptr;
    nvml_abi::PciInfo place{};
    if (device_by_index(index, &device) != kSuccess || pci_info(device, &place) != kSuccess) return std::nullopt;
    NvmlDevice result{.pci_bus_id = bus_id_of(place)};
    if (result.pci_bus_id.empty()) return std::nullopt;
    const auto text_of = [device](Return (*call)(Device, char*, unsigned int)) -> std::string {
        if (call == nullptr) return {};
        return text_from<nvml_abi::kTextBytes>(
            [&](char* text, unsigned int bytes) { return call(device, text, bytes); });
    };
    result.name = text_of(name);
    result.uuid = uuid_in(text_of(uuid));
    result.fabric = fabric_of(device);
    result.recovery_action = recovery_action_of(device);
    return result;
}

Nvml::Nvml(std::string library) : library_(std::move(library)) {}
Nvml::~Nvml() = default;

const Nvml::Calls* Nvml::calls() const {
    std::uint64_t loader = loader_.load(std::memory_order_acquire);
    if (loader == 0) {
        loader = first_loader_of(library_);
        loader_.store(loader, std::memory_order_release);
    }
    if (loader != fork_epoch()) return nullptr;
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
    return nvml->fabric_of(device);
}

std::optional<NvmlFacts> Nvml::facts() const {
    const Calls* const nvml = calls();
    if (nvml == nullptr) return std::nullopt;
    NvmlFacts facts{.driver_version = nvml->driver_version_text()};
    const std::uint32_t count = nvml->count_devices();
    for (std::uint32_t index = 0; index < count; ++index) {
        if (auto device = nvml->describe(index)) facts.devices.push_back(*std::move(device));
    }
    return facts;
}

}  // namespace fabricmem::detail
