// SPDX-License-Identifier: Apache-2.0
#include "doctor/words.hpp"

#include "common/text.hpp"

namespace doctor {

using fabricmem::FabricInfo;

std::string_view name_of(FabricInfo::State state) noexcept {
    switch (state) {
        case FabricInfo::State::not_supported: return "not_supported";
        case FabricInfo::State::not_started: return "not_started";
        case FabricInfo::State::in_progress: return "in_progress";
        case FabricInfo::State::completed: return "completed";
    }
    return "unknown";
}

std::string describe_fabric(const FabricInfo& info) {
    std::string text = examples::formatted("NVLink fabric: {}", name_of(info.state));
    if (info.state == FabricInfo::State::completed) text += examples::formatted(", status {}", info.status);
    text += info.cluster_uuid.is_zero()
                ? std::string(", no multi-node domain")
                : examples::formatted(", cluster {} clique {}", to_string(info.cluster_uuid), info.clique);
    if (info.health_mask.has_value())
        text += examples::formatted(", health 0x{:x}: {}", *info.health_mask,
                                    fabricmem::describe_fabric_health(*info.health_mask));
    return text;
}

std::string_view describe_recovery(std::uint32_t action) noexcept {
    switch (action) {
        case 0: return "none";
        case 1: return "reset the GPU";
        case 2: return "reboot the node";
        case 3: return "drain P2P";
        case 4: return "drain and reset";
        case 5: return "the IMEX daemon died with memory exported";
        default: return "unknown to this version";
    }
}

std::string_view check_of(const Failure& failure) noexcept {
    if (!failure.check.empty()) return failure.check;
    switch (failure.code) {
        case 3: return "FM-DRIVER-007";
        case 100: return "FM-DRIVER-003";
        case 802: return "FM-FABRIC-004";
        case 803:
        case 804: return "FM-DRIVER-005";
        default: return "FM-DRIVER-006";
    }
}

std::string describe_cuda(int version) {
    return version == 0 ? std::string() : examples::formatted("CUDA {}.{}", version / 1000, version % 1000 / 10);
}

}  // namespace doctor
