// SPDX-License-Identifier: Apache-2.0
// The emulated driver's words, devices and contexts.
#include <cstdio>
#include <cstring>

#include "emulated/emulated_driver.hpp"
#include "emulated/numbers.hpp"

namespace fabricmem::detail::emulated {

namespace {

struct Word {
    CUresult code;
    const char* name;
    const char* text;
};

constexpr Word kWords[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_DEINITIALIZED, "CUDA_ERROR_DEINITIALIZED", "driver shutting down"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_PEER_ACCESS_UNSUPPORTED, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED",
     "peer access is not supported between these two devices"},
    {CUDA_ERROR_NVLINK_UNCORRECTABLE, "CUDA_ERROR_NVLINK_UNCORRECTABLE",
     "uncorrectable NVLink error detected during the execution"},
    {static_cast<CUresult>(226), "CUDA_ERROR_CONTAINED",
     "Invalid access of peer GPU memory over nvlink or a hardware error"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CUDA_ERROR_CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_NOT_PERMITTED, "CUDA_ERROR_NOT_PERMITTED", "operation not permitted"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CUDA_ERROR_SYSTEM_NOT_READY, "CUDA_ERROR_SYSTEM_NOT_READY", "system not yet initialized"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "attempt to terminate a thread-local capture sequence from another thread"},
    {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

CUresult find_word(CUresult code, const char* Word::*member, const char** result) noexcept {
    if (result == nullptr) return CUDA_ERROR_INVALID_VALUE;
    for (const Word& word : kWords) {
        if (word.code != code) continue;
        *result = word.*member;
        return CUDA_SUCCESS;
    }
    *result = nullptr;
    return CUDA_ERROR_INVALID_VALUE;
}

struct Attribute {
    int number;
    int value;
};

// Of every device: what an H100 80GB HBM3 answered, driver 580.159.04. Its PCI numbers are left out.
constexpr Attribute kAttributes[] = {
    // by the numbers of cuda.h
    {1, 1024},   {2, 1024},     {3, 1024},    {4, 64},          {5, 2147483647},  {6, 65535},      {7, 65535},
    {8, 49152},  {9, 65536},    {10, 32},     {11, 2147483647}, {12, 65536},      {13, 1980000},   {14, 512},
    {15, 1},     {16, 132},     {19, 1},      {21, 131072},     {22, 131072},     {23, 65536},     {24, 16384},
    {25, 16384}, {26, 16384},   {27, 32768},  {28, 32768},      {29, 2048},       {30, 512},       {31, 1},
    {32, 1},     {36, 2619000}, {37, 5120},   {38, 52428800},   {39, 2048},       {40, 3},         {41, 1},
    {42, 32768}, {43, 2048},    {44, 1},      {45, 32768},      {46, 32768},      {47, 8192},      {48, 8192},
    {49, 32768}, {51, 32},      {52, 32768},  {53, 32768},      {54, 2046},       {55, 32768},     {56, 131072},
    {57, 65536}, {58, 16384},   {59, 16384},  {60, 16384},      {61, 32768},      {62, 2048},      {63, 32768},
    {64, 32768}, {65, 2048},    {66, 32768},  {67, 32768},      {68, 2046},       {69, 268435456}, {70, 131072},
    {71, 65000}, {72, 2097120}, {73, 32768},  {74, 32768},      {75, 9},          {77, 32768},     {78, 1},
    {79, 1},     {80, 1},       {81, 233472}, {82, 65536},      {83, 1},          {87, 2},         {89, 1},
    {90, 1},     {91, 1},       {95, 1},      {96, 1},          {97, 232448},     {99, 1},         {102, 1},
    {103, 1},    {106, 32},     {107, 1},     {108, 32768000},  {109, 134217728}, {110, 1},        {111, 1024},
    {112, 1},    {113, 1},      {114, 1},     {115, 1},         {116, 1},         {117, 1},        {118, 100},
    {119, 9},    {120, 1},      {121, 1},     {122, 1},         {123, 1},         {124, 1},        {125, 1},
    {126, 4},    {127, 1},      {129, 1},     {131, -1},        {141, 1},         {142, 1},        {144, 1},
    {145, 1},
};
constexpr int kPageableMemoryAccess = 88;
constexpr int kPageableMemoryByHostTables = 100;
constexpr int kManagedMemoryByHost = 101;
constexpr int kFabricSupported = 128;
constexpr int kHostNumaId = 134;
constexpr int kHostNumaMultinodeIpc = 143;
constexpr int kLastAttribute = 147;

int attribute_of(const World& world, int attribute, int device) noexcept {
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID: return kFirstPciBus + world.fabric.number_of(device);
        case kFabricSupported: return world.fabric.has_fabric(device) ? 1 : 0;
        case kHostNumaId: return world.fabric.device(device).numa_node;
        case kHostNumaMultinodeIpc: return world.fabric.node().host_memory == HostMemoryReach::fabric ? 1 : 0;
        // invented: of these alone a coherent node says that it is one.
        case kPageableMemoryAccess:
        case kPageableMemoryByHostTables:
        case kManagedMemoryByHost: return world.fabric.node().coherence == Coherence::cpu_and_gpu ? 1 : 0;
        default: break;
    }
    for (const Attribute& known : kAttributes) {
        if (known.number == attribute) return known.value;
    }
    return 0;
}

}  // namespace

CUresult error_name(CUresult error, const char** name) noexcept { return find_word(error, &Word::name, name); }
CUresult error_text(CUresult error, const char** text) noexcept { return find_word(error, &Word::text, text); }

CUresult EmulatedDriver::init(unsigned int flags) noexcept {
    return call([&](World&) { return flags == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; });
}

CUresult EmulatedDriver::driver_get_version(int* version) noexcept {
    return call([&](World&) {
        if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *version = kDriverVersion;
        return CUDA_SUCCESS;
    });
}

// Words are had in a forked child too: they are wanted for the text of its NOT_INITIALIZED.
CUresult EmulatedDriver::get_error_name(CUresult error, const char** name) noexcept { return error_name(error, name); }
CUresult EmulatedDriver::get_error_string(CUresult error, const char** text) noexcept {
    return error_text(error, text);
}

CUresult EmulatedDriver::device_get_count(int* count) noexcept {
    return call([&](World& world) {
        if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *count = world.fabric.device_count();
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::device_get(CUdevice* device, int ordinal) noexcept {
    return call([&](World& world) {
        if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
        if (!world.has_device(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
        *device = ordinal;
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::device_get_name(char* name, int name_bytes, CUdevice device) noexcept {
    return call([&](World& world) {
        if (name == nullptr || name_bytes <= 0) return CUDA_ERROR_INVALID_VALUE;
        if (!world.has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
        std::snprintf(name, static_cast<std::size_t>(name_bytes), "%s", world.fabric.device(device).name.c_str());
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::device_get_uuid(CUuuid* uuid, CUdevice device) noexcept {
    return call([&](World& world) {
        if (uuid == nullptr) return CUDA_ERROR_INVALID_VALUE;
        if (!world.has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
        const Id128& id = world.uuids[static_cast<std::size_t>(device)];
        static_assert(sizeof uuid->bytes == sizeof id.bytes);
        std::memcpy(uuid->bytes, id.bytes.data(), sizeof uuid->bytes);
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::device_get_pci_bus_id(char* pci_bus_id, int pci_bus_id_bytes, CUdevice device) noexcept {
    return call([&](World& world) {
        if (!world.has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
        const std::string text = pci_bus_id_of(world.fabric.number_of(device));
        if (pci_bus_id == nullptr || pci_bus_id_bytes <= static_cast<int>(text.size())) return CUDA_ERROR_INVALID_VALUE;
        std::memcpy(pci_bus_id, text.c_str(), text.size() + 1);
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) noexcept {
    return call([&](World& world) {
        const int number = static_cast<int>(attribute);
        if (value == nullptr || number < 1 || number > kLastAttribute) return CUDA_ERROR_INVALID_VALUE;
        if (!world.has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
        *value = attribute_of(world, number, device);
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::device_total_mem(std::size_t* bytes, CUdevice device) noexcept {
    return call([&](World& world) {
        if (bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
        if (!world.has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
        *bytes = world.fabric.device(device).memory_bytes;
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::device_can_access_peer(int* can_access, CUdevice device, CUdevice peer) noexcept {
    return call([&](World& world) {
        if (can_access == nullptr) return CUDA_ERROR_INVALID_VALUE;
        if (!world.has_device(device) || !world.has_device(peer)) return CUDA_ERROR_INVALID_DEVICE;
        *can_access = device != peer && world.fabric.can_access(device, world.fabric.number_of(peer)) ? 1 : 0;
        return CUDA_SUCCESS;
    });
}

}  // namespace fabricmem::detail::emulated
