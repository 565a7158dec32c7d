// SPDX-License-Identifier: Apache-2.0
// The rows of the table of causes that two sides take part in: importing, and mapping an import.
#include <algorithm>

#include <fabricmem/handle_blob.hpp>
#include <fabricmem/platform.hpp>

#include "driver/causes.hpp"
#include "driver/driver_state.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

// Whether the fabric places of exporter and importer are both known and differ.
bool foreign(const HandleBlob& blob, Driver& driver) {
    if (!blob.fabric.has_value()) return false;
    DriverState& state = DriverState::of(driver);
    const auto topology = state.known_topology();
    if (topology == nullptr) return false;
    // No multi-node fabric on either side: equal zeros are not one domain.
    if (blob.fabric->cluster_uuid.is_zero() && !state.is_this_node(blob)) return true;
    for (const DeviceFacts& device : topology->devices) {
        const std::optional<FabricPlace> place = state.known_fabric_place(device);
        if (!place.has_value() || *place == *blob.fabric) return false;
    }
    return true;
}

// Whether a device of this process is known to be where the exporter's is.
bool is_known_to_fit(const HandleBlob& blob, Driver& driver) {
    DriverState& state = DriverState::of(driver);
    const auto topology = state.known_topology();
    if (!blob.fabric.has_value() || topology == nullptr) return false;
    return std::any_of(topology->devices.begin(), topology->devices.end(),
                       [&](const DeviceFacts& device) { return state.known_fabric_place(device) == blob.fabric; });
}

Finding find_foreign() {
    return {"FM-PEER-002", "exporter and importer are in different NVLink domains or cliques", "",
            ErrorKind::foreign_domain};
}

Finding find_gone_on_this_node(const HandleBlob& blob, Driver& driver) {
    const auto self = DriverState::of(driver).identity();
    if (blob.process_id.has_value() && blob.process_start.has_value() && blob.pid_namespace == self->pid_namespace) {
        switch (driver.platform().process_state(*blob.process_id, *blob.process_start)) {
            case ProcessState::gone:
                return {"FM-PEER-001", formatted("the exporting process {} has ended", *blob.process_id)};
            case ProcessState::alive:
                return {"FM-PEER-001",
                        formatted("the exporting process {} lives, but has released the memory", *blob.process_id)};
            case ProcessState::unknown: break;
        }
    }
    return {"FM-PEER-001", "the exporter has released the memory or has ended"};
}

Finding find_gone(const HandleBlob& blob, Driver& driver) {
    if (!blob.allocation_id.has_value()) {
        return {"FM-PEER-001", "the exporter has released the memory or is gone, or these bytes are no fabric handle"};
    }
    if (DriverState::of(driver).is_this_node(blob)) return find_gone_on_this_node(blob, driver);
    // Equal host ids and different boot ids: either a boot in between, or two machines made from one image.
    if (blob.host_id.has_value() && blob.host_id == DriverState::of(driver).identity()->host_id) {
        return {"FM-PEER-001",
                "likely this host was booted after the blob was made (or the exporter's machine has the same "
                "machine-id, and has released the memory)"};
    }
    if (blob.location_kind == LocationKind::host_numa) {
        return {
            "FM-FABRIC-010",
            "the exporter has released the memory or is gone; or, likely, host memory does not travel between these "
            "nodes (attribute 143)",
            "use device memory between nodes, or ask the exporter for a new blob", ErrorKind::peer_gone};
    }
    return {"FM-PEER-001",
            "the exporter has released the memory or is gone; or, likely, its IMEX daemon was down when it exported: "
            "such a handle works on its own node alone, for ever",
            "ask the exporter for a new blob (export_again() makes one), once its nvidia-imex is READY"};
}

Finding find_in_both_channels(const HandleBlob& blob, Driver& driver) {
    const std::optional<std::int32_t> own = DriverState::of(driver).imex_channel();
    if (!own.has_value()) return find_cause_in_channels(driver.platform());
    for (const ImexChannel& channel : driver.platform().imex_channels()) {
        if (channel.open_errno != 0 || !channel.major_matches) continue;
        if (channel.channel() == channel.number) break;
        return {
            "FM-CHANNEL-009",
            formatted("/dev/nvidia-caps-imex-channels/channel{} is of minor number {}: by such a node memory can be "
                      "exported, and none imported",
                      channel.number, channel.channel())};
    }
    if (blob.imex_channel == own && blob.allocation_id.has_value()) {
        return {
            "FM-CHANNEL-008",
            formatted("exporter and importer both see IMEX channel {} as their first: likely one of them had started "
                      "CUDA before it could be opened",
                      *own),
            "start both processes again"};
    }
    if (blob.imex_channel.has_value()) {
        return {"FM-CHANNEL-007",
                formatted("the exporter holds IMEX channel {}, this process {}: a process has one channel for life, "
                          "the first that it can open",
                          *blob.imex_channel, *own)};
    }
    return {"FM-CHANNEL-007",
            formatted("likely the exporter holds another IMEX channel than this process ({}): a process keeps the "
                      "first that it could open when it started",
                      *own)};
}

Finding find_for_import(CUresult result, Driver& driver, const HandleBlob& blob) {
    switch (static_cast<int>(result)) {
        case CUDA_ERROR_NOT_PERMITTED: return find_in_both_channels(blob, driver);
        case CUDA_ERROR_NOT_SUPPORTED:
            if (!has_fabric_handles(driver, std::nullopt)) {
                return {"FM-FABRIC-001", "no device of this process has fabric handles (attribute 128 is 0)",
                        "use another kind of memory"};
            }
            return find_gone(blob, driver);
        case CUDA_ERROR_NOT_READY:
            return {"FM-IMEX-001",
                    "the IMEX daemon of this node is not running (or the handle names a node that does not exist)"};
        case CUDA_ERROR_INVALID_HANDLE:
            if (foreign(blob, driver)) return find_foreign();
            return {"FM-PEER-003",
                    "likely another IMEX domain, or an exporter that is gone, or an IMEX daemon that is not well"};
        case CUDA_ERROR_INVALID_DEVICE: return {"FM-PEER-004", "this process does not see the exporter's GPU"};
        case CUDA_ERROR_INVALID_VALUE:
            return {"FM-PEER-005", "the bytes are no fabric handle, or were damaged on their way",
                    "ask the exporter for a new blob"};
        default: return find_cause_by_code(result, driver);
    }
}

Finding find_for_import_mapping(CUresult result, Driver& driver, const CallContext& context) {
    const int code = static_cast<int>(result);
    if (code == CUDA_ERROR_INVALID_VALUE || code == CUDA_ERROR_NOT_SUPPORTED) {
        if (foreign(*context.imported, driver)) return find_foreign();
        if (context.call == "cuMemMap") {
            const HandleBlob& blob = *context.imported;
            if (blob.allocation_id.has_value() && !DriverState::of(driver).is_this_node(blob) &&
                !is_known_to_fit(blob, driver)) {
                return {
                    "FM-PEER-002",
                    formatted("likely the two sides' cliques differ; or the allocation does not have {} bytes, as the "
                              "blob says",
                              context.bytes)};
            }
            return {"FM-PEER-005",
                    formatted("the allocation does not have {} bytes, as the blob says; or, likely on another node, "
                              "the two sides' cliques differ",
                              context.bytes),
                    "ask the exporter for a new blob, with the whole allocation's size"};
        }
        if (code == CUDA_ERROR_INVALID_VALUE && !DriverState::of(driver).is_this_node(*context.imported)) {
            return {"FM-PEER-003", "likely the two sides' nodes are in two IMEX domains on one clique", "",
                    ErrorKind::foreign_domain};
        }
    }
    return find_cause_by_code(result, driver);
}

}  // namespace

Finding find_cause_of_import(CUresult result, Driver& driver, const CallContext& context) {
    if (context.call == "cuMemImportFromShareableHandle") return find_for_import(result, driver, *context.imported);
    return find_for_import_mapping(result, driver, context);
}

}  // namespace fabricmem::detail
