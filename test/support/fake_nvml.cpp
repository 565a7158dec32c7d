// SPDX-License-Identifier: Apache-2.0
// An NVML with devices in a fabric. It writes its answers byte by byte, at the offsets of nvml.h, and checks the
// version words, so that the library's own structs are held against numbers and not against themselves. With
// FAKE_NVML_V1 defined it is one of before nvmlDeviceGetGpuFabricInfoV, which tells no more of a device than its place;
// with FAKE_NVML_FILE a file says what it answers (fake_nvml_file.cpp).
#include "support/fake_nvml.hpp"

#include <strings.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstring>

#define FAKE_EXPORT extern "C" __attribute__((visibility("default")))

FAKE_EXPORT FakeNvml* fake_nvml() {
    static FakeNvml fake;
    return &fake;
}

namespace {

constexpr int kInvalidArgument = 2;
constexpr int kNotFound = 6;
constexpr int kNotSupported = 3;
[[maybe_unused]] constexpr int kInsufficientSize = 7;
[[maybe_unused]] constexpr int kVersionMismatch = 25;
constexpr int kUnknown = 999;

/// Never returns, or fails, where that is asked for.
int trip(const char* call) {
    const FakeNvml::Control& control = fake_nvml()->control;
    while (control.hanging == call) ::pause();
    return std::count(control.failing.begin(), control.failing.end(), call) == 0 ? 0 : kUnknown;
}

/// What each call but the first does before all else.
int enter(const char* call) {
    ++fake_nvml()->calls;
    return trip(call);
}

// A handle is a device's number, plus one.
void* handle_of(std::size_t index) { return reinterpret_cast<void*>(index + 1); }

const FakeNvml::Device* device_of(const void* handle) {
    const std::vector<FakeNvml::Device>& devices = fake_nvml()->control.devices;
    const auto number = reinterpret_cast<std::uintptr_t>(handle);
    return number >= 1 && number <= devices.size() ? &devices[number - 1] : nullptr;
}

void put(void* info, std::size_t offset, const void* value, std::size_t bytes) {
    std::memcpy(static_cast<unsigned char*>(info) + offset, value, bytes);
}

/// The fields that every version of the fabric info has, from `offset` on.
void put_common(void* info, std::size_t offset, const FakeNvml::Device& device) {
    const FakeNvml::Control& control = fake_nvml()->control;
    const int status = control.status.value_or(device.status);
    const std::uint8_t state = control.garbage_numbers ? 0xee : control.state.value_or(device.state);
    put(info, offset, device.cluster.data(), 16);
    put(info, offset + 16, &status, 4);
    put(info, offset + 20, &device.clique, 4);
    put(info, offset + 24, &state, 1);
}

[[maybe_unused]] int put_text(char* text, unsigned int bytes, const std::string& value) {
    if (fake_nvml()->control.garbage_texts) {
        std::memset(text, '\xfe', bytes);
        std::memcpy(text, value.data(), std::min<std::size_t>(bytes, value.size()));
        return 0;
    }
    if (value.size() >= bytes) return kInsufficientSize;
    std::memcpy(text, value.c_str(), value.size() + 1);
    return 0;
}

}  // namespace

FAKE_EXPORT int nvmlInit_v2() {
    ++fake_nvml()->inits;
#if defined(FAKE_NVML_FILE)
    if (!read_fake_nvml_file(fake_nvml()->control)) return kUnknown;
#endif
    const int result = trip("nvmlInit_v2");
    return result != 0 ? result : fake_nvml()->control.init_result;
}
FAKE_EXPORT int nvmlShutdown() {
    ++fake_nvml()->shutdowns;
    return 0;
}
FAKE_EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char* pci_bus_id, void** device) {
    if (const int result = enter("nvmlDeviceGetHandleByPciBusId_v2"); result != 0) return result;
    const std::vector<FakeNvml::Device>& devices = fake_nvml()->control.devices;
    for (std::size_t i = 0; i < devices.size(); ++i) {
        char text[64];
        std::snprintf(text, sizeof text, "%04x:%02x:%02x.0", devices[i].domain, devices[i].bus, devices[i].device);
        if (::strcasecmp(pci_bus_id, text) != 0) continue;
        *device = handle_of(i);
        return 0;
    }
    return kNotFound;
}
FAKE_EXPORT int nvmlDeviceGetGpuFabricInfo(void* handle, void* info) {
    if (const int result = enter("nvmlDeviceGetGpuFabricInfo"); result != 0) return result;
    const FakeNvml::Device* const device = device_of(handle);
    if (device == nullptr || !fake_nvml()->control.answers_v1) return kNotSupported;
    put_common(info, 0, *device);
    return 0;
}
FAKE_EXPORT int nvmlDeviceGetCount_v2(unsigned int* count) {
    if (const int result = enter("nvmlDeviceGetCount_v2"); result != 0) return result;
    const FakeNvml::Control& control = fake_nvml()->control;
    *count = control.count.value_or(static_cast<std::uint32_t>(control.devices.size()));
    if (control.garbage_numbers) *count = 0xfffffffe;
    return 0;
}
FAKE_EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void** device) {
    if (const int result = enter("nvmlDeviceGetHandleByIndex_v2"); result != 0) return result;
    if (index >= fake_nvml()->control.devices.size()) return kInvalidArgument;
    *device = handle_of(index);
    return 0;
}
FAKE_EXPORT int nvmlDeviceGetPciInfo_v3(void* handle, void* info) {
    if (const int result = enter("nvmlDeviceGetPciInfo_v3"); result != 0) return result;
    const FakeNvml::Device* const device = device_of(handle);
    if (device == nullptr) return kInvalidArgument;
    std::memset(info, 0x7e, 68);
    put(info, 16, &device->domain, 4);
    put(info, 20, &device->bus, 4);
    put(info, 24, &device->device, 4);
    return 0;
}

#if !defined(FAKE_NVML_V1)
FAKE_EXPORT int nvmlDeviceGetGpuFabricInfoV(void* handle, void* info) {
    if (const int result = enter("nvmlDeviceGetGpuFabricInfoV"); result != 0) return result;
    const FakeNvml::Control& control = fake_nvml()->control;
    const FakeNvml::Device* const device = device_of(handle);
    if (device == nullptr) return kNotFound;
    std::uint32_t version = 0;
    std::memcpy(&version, info, 4);
    const bool v3 = version == 0x03000028 && control.answers_v3;
    const bool v2 = version == 0x02000024 && control.answers_v2;
    if (!v3 && !v2) return kVersionMismatch;
    put_common(info, 4, *device);
    const std::uint32_t health = v3 ? device->health : device->health - 1;
    put(info, 32, &health, 4);
    const std::uint8_t summary = 1;
    if (v3) put(info, 36, &summary, 1);
    return 0;
}
FAKE_EXPORT int nvmlSystemGetDriverVersion(char* version, unsigned int bytes) {
    if (const int result = enter("nvmlSystemGetDriverVersion"); result != 0) return result;
    return put_text(version, bytes, fake_nvml()->control.driver_version);
}
FAKE_EXPORT int nvmlDeviceGetName(void* handle, char* name, unsigned int bytes) {
    if (const int result = enter("nvmlDeviceGetName"); result != 0) return result;
    const FakeNvml::Device* const device = device_of(handle);
    return device == nullptr ? kInvalidArgument : put_text(name, bytes, device->name);
}
FAKE_EXPORT int nvmlDeviceGetUUID(void* handle, char* uuid, unsigned int bytes) {
    if (const int result = enter("nvmlDeviceGetUUID"); result != 0) return result;
    const FakeNvml::Device* const device = device_of(handle);
    return device == nullptr ? kInvalidArgument : put_text(uuid, bytes, device->uuid);
}
FAKE_EXPORT int nvmlDeviceGetFieldValues(void* handle, int count, void* values) {
    if (const int result = enter("nvmlDeviceGetFieldValues"); result != 0) return result;
    const FakeNvml::Control& control = fake_nvml()->control;
    const FakeNvml::Device* const device = device_of(handle);
    std::uint32_t asked[2];
    std::memcpy(asked, values, sizeof asked);
    if (device == nullptr || count != 1 || asked[0] != 230 || asked[1] != 0) return kInvalidArgument;
    const int type = control.garbage_numbers ? 77 : control.value_type;
    put(values, 24, &type, 4);
    put(values, 28, &control.field_result, 4);
    put(values, 32, &device->recovery_action, 8);
    return 0;
}
#endif
