// SPDX-License-Identifier: Apache-2.0
// NVML's health mask in words. It is no bitmap of faults: it is small enums side by side, in most of which 1 is the
// fault, 2 is none and 0 says nothing.
#include <fabricmem/platform.hpp>

#include "text/text.hpp"

namespace fabricmem {
namespace {

// The values are NVML's (NVML_GPU_FABRIC_HEALTH_MASK_*), of which 595 added a partition's and the last of the
// configuration. Two are of the kernel module's sources alone: 3 for a route, 8 for a configuration.
struct HealthFault {
    unsigned int shift;
    std::uint32_t field;  // the field's bits, shifted down
    std::uint32_t value;
    const char* words;
};
constexpr HealthFault kHealthFaults[] = {
    {0, 0x3, 1, "degraded bandwidth"},
    {2, 0x3, 1, "route recovery in progress"},
    {4, 0x3, 1, "route unhealthy"},
    {4, 0x3, 3, "route unhealthy until the GPU is reset"},
    {6, 0x3, 1, "access timeout recovery in progress"},
    {8, 0xf, 2, "incorrect system GUID"},
    {8, 0xf, 3, "incorrect chassis serial number"},
    {8, 0xf, 4, "no partition"},
    {8, 0xf, 5, "not enough NVLinks"},
    {8, 0xf, 6, "incompatible GPU firmware"},
    {8, 0xf, 7, "invalid location"},
    {8, 0xf, 8, "invalid GPU state"},
    {12, 0x3, 2, "no partition assigned"},
};

constexpr std::uint32_t kLastConfiguration = 8;

constexpr std::uint32_t configuration_of(std::uint32_t health_mask) noexcept { return (health_mask >> 8U) & 0xfU; }

constexpr bool has(std::uint32_t health_mask, const HealthFault& fault) noexcept {
    return ((health_mask >> fault.shift) & fault.field) == fault.value;
}

}  // namespace

std::string describe_fabric_health(std::uint32_t health_mask) {
    std::string text;
    const auto add = [&text](std::string_view words) { text.append(text.empty() ? "" : ", ").append(words); };
    for (const HealthFault& fault : kHealthFaults) {
        if (has(health_mask, fault)) add(fault.words);
    }
    // A newer NVML's: whatever it is, it is not the right one.
    const std::uint32_t configuration = configuration_of(health_mask);
    if (configuration > kLastConfiguration) add(detail::formatted("incorrect configuration ({})", configuration));
    return text.empty() ? "healthy" : text;
}

bool is_healthy_fabric(std::uint32_t health_mask) noexcept {
    for (const HealthFault& fault : kHealthFaults) {
        if (has(health_mask, fault)) return false;
    }
    return configuration_of(health_mask) <= kLastConfiguration;
}

}  // namespace fabricmem
