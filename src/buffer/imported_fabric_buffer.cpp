// SPDX-License-Identifier: Apache-2.0
// Maps memory that a peer, or this process, exported.
#include <utility>
#include <vector>

#include "buffer/buffer_parts.hpp"
#include "driver/driver_state.hpp"
#include "text/text.hpp"
#include "vmm/vmm.hpp"

namespace fabricmem {
namespace {

using detail::BufferParts;
using detail::CallContext;
using detail::DriverState;

struct ImportPlan {
    Location location = Location::device(-1);
    std::uint64_t granularity = 0;
    std::uint64_t alignment = 0;
    Access access;
    HostAccess host = HostAccess::none;
};

// What can be told from the blob alone, before any driver call.
void check_blob(const HandleBlob& blob) {
    blob.validate();
    if (!blob.kinds.has(HandleKind::fabric)) {
        throw Error({.kind = ErrorKind::unsupported,
                     .subject = detail::formatted("the blob offers {}, and this version imports fabric handles alone",
                                                  to_string(blob.kinds))});
    }
    for (const std::uint8_t byte : blob.handle) {
        if (byte != 0) return;
    }
    throw Error({.kind = ErrorKind::bad_blob, .subject = "the blob's fabric handle is all zero"});
}

CUmemAllocationProp properties_of(const HandleBlob& blob, const Location& location) {
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_FABRIC;
    const bool on_device = blob.location_kind == LocationKind::device;
    properties.location.type = on_device ? CU_MEM_LOCATION_TYPE_DEVICE : CU_MEM_LOCATION_TYPE_HOST_NUMA;
    properties.location.id = location.index() < 0 ? 0 : location.index();
    return properties;
}

Location location_here(const HandleBlob& blob, const detail::Topology& topology) {
    if (blob.location_kind == LocationKind::host_numa) return Location::host_numa(blob.numa_node.value_or(-1));
    const auto ordinal = blob.device_uuid.has_value() ? topology.ordinal_of(*blob.device_uuid) : std::nullopt;
    return Location::device(ordinal.value_or(-1));
}

std::vector<int> default_devices(const detail::Topology& topology, const Location& location) {
    if (location.kind() == LocationKind::device && location.index() >= 0) {
        return topology.devices[static_cast<std::size_t>(location.index())].reachable_from;
    }
    std::vector<int> all(topology.devices.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i);
    return all;
}

ImportPlan make_plan(Driver& driver, const HandleBlob& blob, const ImportOptions& options) {
    DriverState& state = DriverState::of(driver);
    const auto topology = state.topology();
    ImportPlan plan;
    plan.location = location_here(blob, *topology);
    plan.access.permission = options.permission;
    plan.host = options.host_access;
    if (!plan.location.is_host() && options.host_access == HostAccess::automatic) plan.host = HostAccess::none;
    plan.access.host = plan.host != HostAccess::none;
    plan.access.devices = options.access.has_value()
                              ? detail::checked_devices(*options.access, topology->devices.size())
                              : default_devices(*topology, plan.location);
    if (plan.access.empty()) {
        throw Error({.kind = ErrorKind::bad_argument, .subject = "an access list that names nobody"});
    }
    plan.granularity =
        blob.granularity.has_value() ? *blob.granularity : state.granularity(properties_of(blob, plan.location));
    if (blob.mapped_bytes % plan.granularity != 0) {
        throw Error({.kind = ErrorKind::bad_blob,
                     .subject = detail::formatted("{} mapped bytes are no multiple of the granularity of {}",
                                                  blob.mapped_bytes, plan.granularity)});
    }
    plan.alignment = detail::checked_alignment(options.alignment_bytes, plan.granularity);
    return plan;
}

std::unique_ptr<BufferParts> import(std::shared_ptr<Driver> driver, const HandleBlob& blob,
                                    const ImportOptions& options) {
    check_blob(blob);
    detail::check_driver(driver);
    ImportPlan plan = make_plan(*driver, blob, options);
    auto parts = std::make_unique<BufferParts>(std::move(driver));
    Driver& calls = *parts->driver;
    parts->location = plan.location;
    parts->granularity = plan.granularity;
    parts->kinds = HandleKind::fabric;
    parts->rdma = blob.rdma.value_or(false);
    parts->access = std::move(plan.access);
    parts->blob = blob;
    const CallContext about{
        .call = {}, .bytes = blob.mapped_bytes, .location = plan.location, .imported = &parts->blob};
    parts->range = detail::reserve(calls, blob.mapped_bytes, plan.alignment, about);
    parts->allocation = detail::import_fabric(calls, blob, about);
    parts->mapping = detail::map(calls, parts->range.get(), parts->allocation.get(), about);
    detail::grant_access(calls, parts->range.get(), parts->access, plan.host, about);
    return parts;
}

}  // namespace

ImportedFabricBuffer::ImportedFabricBuffer(std::shared_ptr<Driver> driver, const HandleBlob& blob,
                                           const ImportOptions& options)
    : MappedBuffer(import(std::move(driver), blob, options)) {}
ImportedFabricBuffer::ImportedFabricBuffer(ImportedFabricBuffer&&) noexcept = default;
ImportedFabricBuffer& ImportedFabricBuffer::operator=(ImportedFabricBuffer&&) noexcept = default;
ImportedFabricBuffer::~ImportedFabricBuffer() = default;

void ImportedFabricBuffer::close() {
    const std::unique_ptr<BufferParts> owned = std::move(parts());  // closed from here on, whatever happens
    if (owned == nullptr) return;
    const bool ours = !owned->forked();
    const detail::TearDownFailure failure = owned->tear_down();
    if (failure.call != nullptr) {
        detail::raise(failure.result, *owned->driver,
                      {.call = failure.call,
                       .bytes = owned->blob.mapped_bytes,
                       .location = owned->location,
                       .imported = &owned->blob});
    }
    if (!ours) detail::check_driver(owned->driver);
}

std::optional<ImportedFabricBuffer> import_if_alive(std::shared_ptr<Driver> driver, const HandleBlob& blob,
                                                    const ImportOptions& options) {
    try {
        return std::make_optional<ImportedFabricBuffer>(std::move(driver), blob, options);
    } catch (const Error& error) {
        if (error.kind() != ErrorKind::peer_gone) throw;
        return std::nullopt;
    }
}

}  // namespace fabricmem
