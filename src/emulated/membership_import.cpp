// SPDX-License-Identifier: Apache-2.0
// What an import of another node's memory asks for, and in which order. The order is invented; the codes are those of
// docs/emulator.md.
#include "emulated/membership.hpp"
#include "emulated/numbers.hpp"

namespace fabricmem::detail::emulated {

namespace {

// The device whose place in the NVLink fabric counts: host memory has the place of its node's first.
std::size_t device_behind(const ScenarioNode& node, const FabricHandle& handle) noexcept {
    if (handle.location_kind == kLocationDevice) {
        const auto number = static_cast<std::size_t>(handle.location_id);
        return number < node.devices.size() ? number : 0;
    }
    for (std::size_t i = 0; i < node.devices.size(); ++i) {
        if (!node.devices[i].cluster.empty()) return i;
    }
    return 0;
}

}  // namespace

RemoteImport::RemoteImport(Membership& importer, const Source& source) : importer_(importer), source_(source) {
    importer_.enter(source_);
}

RemoteImport::~RemoteImport() { importer_.leave(source_); }

// invented: which of the two codes that are known of this comes here, and which below.
CUresult RemoteImport::may_map() const noexcept {
    for (int ordinal = 0; ordinal < importer_.device_count(); ++ordinal) {
        if (importer_.shares_clique(ordinal, source_)) return CUDA_SUCCESS;
    }
    return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult RemoteImport::may_access(int ordinal) const noexcept {
    const FabricCore& core = importer_.core();
    if (core.node(source_.node).imex_domain != importer_.node().imex_domain) return CUDA_ERROR_INVALID_VALUE;
    return importer_.shares_clique(ordinal, source_) ? CUDA_SUCCESS : CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
}

bool Membership::shares_clique(int ordinal, const RemoteImport::Source& source) const noexcept {
    if (!has_fabric(ordinal)) return false;
    const Domain theirs = core_.domain(source.node, source.device);
    const Domain ours = core_.domain(index_, static_cast<std::size_t>(number_of(ordinal)));
    return !ours.cluster.empty() && ours.cluster == theirs.cluster && ours.clique == theirs.clique;
}

// Two IMEX domains on one clique are noticed later, when access is set.
CUresult Membership::domain_answer(const RemoteImport::Source& source) const noexcept {
    const Domain theirs = core_.domain(source.node, source.device);
    bool same_cluster = false;
    bool same_clique = false;
    for (int ordinal = 0; ordinal < device_count(); ++ordinal) {
        same_clique = same_clique || shares_clique(ordinal, source);
        same_cluster = same_cluster || device(ordinal).cluster == theirs.cluster;
    }
    if (theirs.cluster.empty() || !same_cluster) return CUDA_ERROR_INVALID_HANDLE;
    const bool same_imex = theirs.imex == node().imex_domain;
    return same_imex || same_clique ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult Membership::admit_remote(const FabricHandle& handle, std::size_t node, RemoteImport::Source* source) {
    if (core_.hangs(index_, Switch::imports)) {
        if (const CUresult result = wait_for(Switch::imports); result != CUDA_SUCCESS) return result;
    }
    // Before the states are looked at: what happens from here on cuts the import off.
    *source = {node, core_.switches().incarnation(node), core_.switches().incarnation(index_),
               device_behind(core_.node(node), handle)};
    if (core_.daemon(index_) != ImexDaemon::ready) return CUDA_ERROR_NOT_READY;
    if (core_.lost(node)) return CUDA_ERROR_INVALID_HANDLE;
    if (const CUresult result = domain_answer(*source); result != CUDA_SUCCESS) return result;
    const HandleFabric from = HandleFabric::from_byte(handle.fabric);
    if (from.single_node) return CUDA_ERROR_NOT_SUPPORTED;
    // invented: the exporter's daemon is asked too, and counts as one of another domain where it does not answer.
    if (core_.daemon(node) != ImexDaemon::ready) return CUDA_ERROR_INVALID_HANDLE;
    const bool host = handle.location_kind != kLocationDevice;
    const bool travels =
        core_.node(node).host_memory == HostMemoryReach::fabric && this->node().host_memory == HostMemoryReach::fabric;
    return host && !travels ? CUDA_ERROR_NOT_SUPPORTED : CUDA_SUCCESS;  // invented: the code
}

CUresult Membership::admit(const FabricHandle& handle, std::optional<RemoteImport::Source>* source) {
    const HandleFabric from = HandleFabric::from_byte(handle.fabric);
    if (from.scenario != core_.is_scenario()) return CUDA_ERROR_INVALID_HANDLE;
    std::size_t node = index_;
    if (core_.is_scenario()) {
        const std::optional<std::size_t> found = core_.node_of(handle.node);
        if (!found.has_value()) return CUDA_ERROR_INVALID_HANDLE;  // another scenario's
        node = *found;
    }
    if (channel_ != handle.imex_channel) return CUDA_ERROR_NOT_PERMITTED;
    if (node != index_) {
        const CUresult result = admit_remote(handle, node, &source->emplace());
        if (result != CUDA_SUCCESS) return result;
    }
    if (!core_.is_scenario()) return CUDA_SUCCESS;
    // A boot since the export: the exporter is gone.
    const bool same_boot = (core_.switches().incarnation(node).losses & HandleFabric::kBootMask) == from.boots;
    return same_boot ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
}

}  // namespace fabricmem::detail::emulated
