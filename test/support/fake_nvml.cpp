// SPDX-License-Identifier: Apache-2.0
// An NVML with one device in a fabric. It writes its answers byte by byte, at the offsets of nvml.h, and checks the
// version words, so that the library's own structs are held against numbers and not against themselves. With
// FAKE_NVML_V1 defined it is one of before nvmlDeviceGetGpuFabricInfoV.
#include "support/fake_nvml.hpp"

#include <cstddef>
#include <cstring>

#define FAKE_EXPORT extern "C" __attribute__((visibility("default")))

FAKE_EXPORT FakeNvml* fake_nvml() {
    static FakeNvml fake;
    return &fake;
}

namespace {

constexpr int kNotFound = 6;
constexpr int kNotSupported = 3;
[[maybe_unused]] constexpr int kVersionMismatch = 25;
int the_device = 0;

void put(void* info, std::size_t offset, const void* value, std::size_t bytes) {
    std::memcpy(static_cast<unsigned char*>(info) + offset, value, bytes);
}

/// The fields that every version has, from `offset` on.
void put_common(void* info, std::size_t offset) {
    const FakeNvml::Control& control = fake_nvml()->control;
    const unsigned char uuid[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    const std::uint32_t clique = 0x00c0ffee;
    put(info, offset, uuid, 16);
    put(info, offset + 16, &control.status, 4);
    put(info, offset + 20, &clique, 4);
    put(info, offset + 24, &control.state, 1);
}

}  // namespace

FAKE_EXPORT int nvmlInit_v2() {
    ++fake_nvml()->inits;
    return fake_nvml()->control.init_result;
}
FAKE_EXPORT int nvmlShutdown() {
    ++fake_nvml()->shutdowns;
    return 0;
}
FAKE_EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char* pci_bus_id, void** device) {
    ++fake_nvml()->calls;
    if (std::strcmp(pci_bus_id, "0000:1b:00.0") != 0) return kNotFound;
    *device = &the_device;
    return 0;
}
FAKE_EXPORT int nvmlDeviceGetGpuFabricInfo(void* device, void* info) {
    ++fake_nvml()->calls;
    if (device != &the_device || !fake_nvml()->control.answers_v1) return kNotSupported;
    put_common(info, 0);
    return 0;
}
#if !defined(FAKE_NVML_V1)
FAKE_EXPORT int nvmlDeviceGetGpuFabricInfoV(void* device, void* info) {
    const FakeNvml::Control& control = fake_nvml()->control;
    ++fake_nvml()->calls;
    if (device != &the_device) return kNotFound;
    std::uint32_t version = 0;
    std::memcpy(&version, info, 4);
    const bool v3 = version == 0x03000028 && control.answers_v3;
    const bool v2 = version == 0x02000024 && control.answers_v2;
    if (!v3 && !v2) return kVersionMismatch;
    put_common(info, 4);
    const std::uint32_t health = v3 ? 0xaa : 0xa9;
    put(info, 32, &health, 4);
    const std::uint8_t summary = 1;
    if (v3) put(info, 36, &summary, 1);
    return 0;
}
#endif
