// SPDX-License-Identifier: Apache-2.0
// NVML's binary interface, written down by hand: nvml.h is not on every machine that builds this.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fabricmem::detail::nvml_abi {

using Device = void*;         // nvmlDevice_t
using Return = std::int32_t;  // nvmlReturn_t: any number may come from a newer NVML, so no enum
inline constexpr Return kSuccess = 0;

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

struct PciInfo {  // nvmlPciInfo_t, as nvmlDeviceGetPciInfo_v3 fills it
    char legacy_bus_id[16];
    std::uint32_t domain;
    std::uint32_t bus;
    std::uint32_t device;
    std::uint32_t device_and_vendor_id;
    std::uint32_t subsystem_id;
    char bus_id[32];  // of eight digits in the domain, and so no driver's spelling
};
static_assert(sizeof(PciInfo) == 68 && offsetof(PciInfo, domain) == 16 && offsetof(PciInfo, bus) == 20 &&
              offsetof(PciInfo, device) == 24 && offsetof(PciInfo, bus_id) == 36);

/// nvmlValueType_t
enum ValueType : std::int32_t {
    value_is_double = 0,
    value_is_unsigned_int = 1,
    value_is_unsigned_long = 2,
    value_is_unsigned_long_long = 3,
    value_is_signed_long_long = 4,
    value_is_signed_int = 5,
    value_is_unsigned_short = 6,
};
struct FieldValue {  // nvmlFieldValue_t
    std::uint32_t field;
    std::uint32_t scope;
    std::int64_t timestamp_us;
    std::int64_t latency_us;
    std::int32_t value_type;
    Return result;
    unsigned char value[8];  // a union
};
static_assert(sizeof(FieldValue) == 40 && offsetof(FieldValue, value_type) == 24 &&
              offsetof(FieldValue, result) == 28 && offsetof(FieldValue, value) == 32);

inline constexpr std::uint32_t kFieldRecoveryAction = 230;  // NVML_FI_DEV_GET_GPU_RECOVERY_ACTION

// With their terminators; the first is the longest of all texts.
inline constexpr std::size_t kTextBytes = 96;  // NVML_DEVICE_NAME_V2_BUFFER_SIZE, NVML_DEVICE_UUID_V2_BUFFER_SIZE
inline constexpr std::size_t kDriverVersionBytes = 80;  // NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE

}  // namespace fabricmem::detail::nvml_abi
