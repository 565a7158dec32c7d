// SPDX-License-Identifier: Apache-2.0
// The GPUs' places in the NVLink fabric, and the node's in its IMEX domain.
#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "common/text.hpp"
#include "doctor/findings.hpp"
#include "doctor/words.hpp"

namespace doctor {
namespace {

using examples::formatted;
using fabricmem::FabricInfo;
using fabricmem::HandleReach;
using fabricmem::Location;
using fabricmem::NvmlDevice;

constexpr std::uint32_t kImexDaemonDied = 5;

struct FabricTrouble {
    std::string_view check{};
    std::string cause{};
};

FabricTrouble trouble_of(const FabricInfo& info) {
    switch (info.state) {
        case FabricInfo::State::not_started:
            return {"FM-FABRIC-003", "the GPU has not begun to join the NVLink fabric"};
        case FabricInfo::State::in_progress:
            return {"FM-FABRIC-003", "the GPU has not finished joining the NVLink fabric"};
        case FabricInfo::State::completed:
            if (info.status != 0)
                return {"FM-FABRIC-006",
                        formatted("joining the NVLink fabric ended with NVML's status {}", info.status)};
            break;
        case FabricInfo::State::not_supported: break;
    }
    if (info.health_mask.has_value() && !fabricmem::is_healthy_fabric(*info.health_mask))
        return {"FM-FABRIC-005", fabricmem::describe_fabric_health(*info.health_mask)};
    return {};
}

/// Where a finding about a device of NVML's is: the place, or the GPU's name where CUDA does not see it.
Finding at_device(const Facts& facts, const NvmlDevice& device) {
    Finding finding;
    if (const DeviceFacts* const seen = cuda_device(facts, device); seen != nullptr)
        finding.places = {Location::device(seen->ordinal)};
    else
        finding.about = "GPU " + device.pci_bus_id;
    return finding;
}

void judge_device(const Facts& facts, const NvmlDevice& device, Findings& findings) {
    const DeviceFacts* const seen = cuda_device(facts, device);
    const PlaceFacts* const place = seen == nullptr ? nullptr : facts.at(Location::device(seen->ordinal));
    // Of a device that was probed, the probe has told it; one that CUDA does not see is nobody's business here.
    if (device.fabric.has_value() && place == nullptr && (seen != nullptr || !driver_made(facts))) {
        if (FabricTrouble trouble = trouble_of(*device.fabric); !trouble.check.empty()) {
            Finding finding = at_device(facts, device);
            finding.facts = describe_fabric(*device.fabric);
            finding.cause = std::move(trouble.cause);
            findings.add(trouble.check, CheckState::warning, std::move(finding));
        }
    }
    const std::uint32_t action = device.recovery_action.value_or(0);
    if (action == 0) return;
    Finding finding = at_device(facts, device);
    finding.facts = formatted("NVML's recovery action is {} ({})", action, describe_recovery(action));
    finding.cause = action == kImexDaemonDied
                        ? std::string("the IMEX daemon died while other nodes had this GPU's memory")
                        : formatted("the GPU asks for: {}", describe_recovery(action));
    const bool in_the_way = place != nullptr && !works(*place);
    findings.add(action == kImexDaemonDied ? "FM-IMEX-002" : "FM-FABRIC-008",
                 in_the_way ? CheckState::failed : CheckState::warning, std::move(finding));
}

// A multi-node domain was expected: which devices that work are in none.
void judge_domain(const Facts& facts, Findings& findings) {
    for (const DeviceFacts& device : facts.devices) {
        const Location place = Location::device(device.ordinal);
        const PlaceFacts* const probed = facts.at(place);
        if (probed == nullptr || probed->reach != HandleReach::fabric_node) continue;
        const NvmlDevice* const known = nvml_device(facts, device);
        if (known == nullptr || !known->fabric.has_value()) {
            findings.add("FM-FABRIC-007", CheckState::unknown, {.places = {place}, .facts = "NVML does not tell"});
        } else if (known->fabric->cluster_uuid.is_zero()) {
            findings.add("FM-FABRIC-007", CheckState::failed,
                         {.places = {place},
                          .facts = describe_fabric(*known->fabric),
                          .cause = "NVML names no NVLink domain (its cluster UUID is zero)"});
        }
    }
    for (const DeviceFacts& device : facts.devices) {
        const NvmlDevice* const known = nvml_device(facts, device);
        const bool joined = known != nullptr && known->fabric.has_value() && in_domain(*known->fabric);
        if (!joined || device.host_memory_travels.value_or(true)) continue;
        findings.add("FM-FABRIC-010", CheckState::warning,
                     {.places = {Location::host_numa(device.numa_node)},
                      .cause = "the device says that host memory stays on its node (attribute 143 is 0)"});
    }
}

}  // namespace

void judge_fabric(const Facts& facts, Expectation expected, Findings& findings) {
    if (facts.nvml.has_value()) {
        for (const NvmlDevice& device : facts.nvml->devices) judge_device(facts, device, findings);
    }
    if (expected == Expectation::multinode) judge_domain(facts, findings);
}

}  // namespace doctor
