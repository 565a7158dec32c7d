// SPDX-License-Identifier: Apache-2.0
// The drop-in libcuda's devices.
#include <cctype>
#include <cstdio>
#include <cstring>

#include "libcuda/libcuda.hpp"

using namespace fabricmem;
using namespace fabricmem::detail::libcuda;

namespace {

struct PciAddress {
    unsigned int domain = 0;
    unsigned int bus = 0;
    unsigned int device = 0;
    unsigned int function = 0;

    friend bool operator==(const PciAddress&, const PciAddress&) = default;
};

// The three spellings that cuda.h names: with domain and function, without function, without domain.
bool parse(const char* text, PciAddress* address) {
    int end = 0;
    const auto whole = [&](int fields, int wanted) { return fields == wanted && end != 0 && text[end] == '\0'; };
    *address = {};
    if (whole(std::sscanf(text, "%x:%x:%x.%x%n", &address->domain, &address->bus, &address->device, &address->function,
                          &end),
              4)) {
        return true;
    }
    *address = {};
    end = 0;
    if (whole(std::sscanf(text, "%x:%x:%x%n", &address->domain, &address->bus, &address->device, &end), 3)) return true;
    *address = {};
    end = 0;
    return whole(std::sscanf(text, "%x:%x.%x%n", &address->bus, &address->device, &address->function, &end), 3);
}

CUresult find_by_pci(Driver& driver, const char* wanted, CUdevice* device) {
    PciAddress asked;
    if (!parse(wanted, &asked)) return CUDA_ERROR_INVALID_VALUE;
    int count = 0;
    if (const CUresult result = driver.device_get_count(&count); result != CUDA_SUCCESS) return result;
    for (int i = 0; i < count; ++i) {
        char text[32] = {};
        PciAddress here;
        if (driver.device_get_pci_bus_id(text, sizeof text, i) != CUDA_SUCCESS || !parse(text, &here)) continue;
        if (here == asked) return driver.device_get(device, i);
    }
    return CUDA_ERROR_INVALID_DEVICE;
}

}  // namespace

FABRICMEM_CUDA cuDeviceGetCount(int* count) {
    return with_driver([&](Driver& driver) { return driver.device_get_count(count); });
}
FABRICMEM_CUDA cuDeviceGet(CUdevice* device, int ordinal) {
    return with_driver([&](Driver& driver) { return driver.device_get(device, ordinal); });
}
FABRICMEM_CUDA cuDeviceGetName(char* name, int bytes, CUdevice device) {
    return with_driver([&](Driver& driver) { return driver.device_get_name(name, bytes, device); });
}
FABRICMEM_CUDA cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
    return with_driver([&](Driver& driver) { return driver.device_get_uuid(uuid, device); });
}
FABRICMEM_CUDA cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) { return cuDeviceGetUuid(uuid, device); }
FABRICMEM_CUDA cuDeviceGetPCIBusId(char* pci_bus_id, int bytes, CUdevice device) {
    return with_driver([&](Driver& driver) { return driver.device_get_pci_bus_id(pci_bus_id, bytes, device); });
}
FABRICMEM_CUDA cuDeviceGetByPCIBusId(CUdevice* device, const char* pci_bus_id) {
    return with_driver([&](Driver& driver) {
        if (device == nullptr || pci_bus_id == nullptr) return CUDA_ERROR_INVALID_VALUE;
        return find_by_pci(driver, pci_bus_id, device);
    });
}
FABRICMEM_CUDA cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
    return with_driver([&](Driver& driver) { return driver.device_get_attribute(value, attribute, device); });
}
FABRICMEM_CUDA cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
    return with_driver([&](Driver& driver) {
        CUresult result = driver.device_get_attribute(major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
        if (result == CUDA_SUCCESS)
            result = driver.device_get_attribute(minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
        return result;
    });
}
FABRICMEM_CUDA cuDeviceTotalMem_v2(std::size_t* bytes, CUdevice device) {
    return with_driver([&](Driver& driver) { return driver.device_total_mem(bytes, device); });
}
FABRICMEM_CUDA cuDeviceCanAccessPeer(int* can_access, CUdevice device, CUdevice peer) {
    return with_driver([&](Driver& driver) { return driver.device_can_access_peer(can_access, device, peer); });
}

// invented: all of it but ACCESS_SUPPORTED.
FABRICMEM_CUDA cuDeviceGetP2PAttribute(int* value, CUdevice_P2PAttribute attribute, CUdevice device, CUdevice peer) {
    return with_driver([&](Driver& driver) {
        int reachable = 0;
        if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
        if (device == peer) return CUDA_ERROR_INVALID_DEVICE;
        if (const CUresult result = driver.device_can_access_peer(&reachable, device, peer); result != CUDA_SUCCESS)
            return result;
        switch (static_cast<int>(attribute)) {
            case CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK: *value = 0; return CUDA_SUCCESS;
            case CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED:
            case CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED:
            case CU_DEVICE_P2P_ATTRIBUTE_CUDA_ARRAY_ACCESS_SUPPORTED: *value = reachable; return CUDA_SUCCESS;
            default: return CUDA_ERROR_INVALID_VALUE;
        }
    });
}
