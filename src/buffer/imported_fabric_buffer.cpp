// SPDX-License-Identifier: Apache-2.0
// Maps memory that a peer, or this process, exported.
#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "buffer/buffer_parts.hpp"
#include "buffer/deadline.hpp"
#include "buffer/import.hpp"
#include "driver/driver_state.hpp"
#include "log/log.hpp"
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

}  // namespace

void detail::check_blob(const HandleBlob& blob) {
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

namespace {

// Memory of that kind as this node could have it: for the driver's own granularity. The exporter's ordinals and NUMA
// numbers mean nothing here.
CUmemAllocationProp properties_here(const Location& location, const detail::Topology& topology) {
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_FABRIC;
    if (location.is_host()) {
        properties.location.type = CU_MEM_LOCATION_TYPE_HOST_NUMA;
        properties.location.id = topology.devices.front().nearest_numa_node;
    } else {
        properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
        properties.location.id = std::max(0, location.index());
    }
    return properties;
}

Location location_here(const HandleBlob& blob, DriverState& state, const detail::Topology& topology) {
    if (blob.location_kind == LocationKind::host_numa)
        return Location::host_numa(state.is_this_node(blob) ? blob.numa_node.value_or(-1) : -1);
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
    plan.location = location_here(blob, state, *topology);
    // For the text of a failure, which asks for nothing by itself.
    if (blob.fabric.has_value() && !state.is_this_node(blob)) {
        for (const detail::DeviceFacts& device : topology->devices) static_cast<void>(state.fabric_place(device));
    }
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
    // The exporter's granularity says nothing of what this driver takes: another GPU type may have another one.
    plan.granularity = state.granularity(properties_here(plan.location, *topology));
    if (blob.mapped_bytes % plan.granularity != 0) {
        throw Error({.kind = ErrorKind::bad_blob,
                     .subject = detail::formatted("{} mapped bytes are no multiple of the {} bytes in which this "
                                                  "driver maps memory",
                                                  blob.mapped_bytes, plan.granularity),
                     .cause = "the blob does not tell the allocation's size, or its exporter's driver has a smaller "
                              "granularity",
                     .cure = "make the exporter's buffer a multiple of it"});
    }
    plan.alignment =
        detail::checked_alignment(options.alignment_bytes, std::max(plan.granularity, blob.granularity.value_or(0)));
    return plan;
}

}  // namespace

std::unique_ptr<BufferParts> detail::import(std::shared_ptr<Driver> driver, const HandleBlob& blob,
                                            const ImportOptions& options, detail::Progress* progress) {
    ImportPlan plan = make_plan(*driver, blob, options);
    auto parts = std::make_unique<BufferParts>(std::move(driver), blob);
    Driver& calls = *parts->driver;
    parts->location = plan.location;
    parts->granularity = plan.granularity;
    parts->kinds = HandleKind::fabric;
    parts->rdma = blob.rdma.value_or(false);
    parts->access = std::move(plan.access);
    parts->progress = progress;
    parts->tear_down_timeout = options.tear_down_timeout.value_or(options.timeout);
    if (parts->tear_down_timeout.count() > 0) {
        parts->tear_down_job = std::make_shared<detail::TearDownJob>(parts->driver);
        static_cast<void>(DriverState::of(calls).workers());
    }
    const CallContext about{
        .call = {}, .bytes = blob.mapped_bytes, .location = plan.location, .imported = &parts->blob};
    parts->at("cuMemAddressReserve");
    parts->range = detail::reserve(calls, blob.mapped_bytes, plan.alignment, about);
    parts->at("cuMemImportFromShareableHandle");
    parts->allocation = detail::import_fabric(calls, blob, about);
    parts->at("cuMemMap");
    parts->mapping = detail::map(calls, parts->range.get(), parts->allocation.get(), about);
    parts->at("cuMemSetAccess");
    detail::grant_access(calls, parts->range.get(), parts->access, plan.host, about);
    parts->progress = nullptr;
    parts->enter_book(detail::BufferOrigin::imported);
    return parts;
}

ImportedFabricBuffer detail::ImportHere::make(const std::shared_ptr<Driver>& driver, const HandleBlob& blob,
                                              const ImportOptions& options, Progress& progress) {
    check_blob(blob);
    check_driver(driver);
    try {
        static_cast<void>(DriverState::of(*driver).identity());  // for the text, should it come to that
    } catch (const Error&) {                                     // said by the import itself
    }
    return ImportedFabricBuffer(import(driver, blob, options, &progress));
}

Error detail::import_timed_out(const Driver& driver, const HandleBlob& blob, const char* call,
                               std::chrono::milliseconds timeout) {
    std::optional<Location> location;
    if (const auto topology = DriverState::of(driver).known().topology; topology != nullptr)
        location = location_here(blob, DriverState::of(driver), *topology);
    return timed_out({"importing", call, timeout, location}, driver, blob);
}

namespace {

class ImportJob final : public detail::Job {
public:
    ImportJob(std::shared_ptr<Driver> driver, const HandleBlob& blob, const ImportOptions& options)
        : Job(driver), driver_(std::move(driver)), blob_(blob), options_(options) {}

    void run() noexcept override {
        try {
            static_cast<void>(DriverState::of(*driver_).identity());  // for the text, should it come to that
            parts = detail::import(driver_, blob_, options_, &progress);
        } catch (...) {
            failure = std::current_exception();
        }
    }
    void clean_up() noexcept override {
        if (parts == nullptr) return;
        parts.reset();
        detail::log(LogLevel::info, "an import of {} bytes, which had been given up, came and is released",
                    blob_.mapped_bytes);
    }

    std::unique_ptr<BufferParts> parts;
    std::exception_ptr failure;

private:
    std::shared_ptr<Driver> driver_;
    HandleBlob blob_;
    ImportOptions options_;
};

std::unique_ptr<BufferParts> import_within(const std::shared_ptr<Driver>& driver, const HandleBlob& blob,
                                           const ImportOptions& options) {
    const auto job = std::make_shared<ImportJob>(driver, blob, options);
    const auto deadline = detail::deadline_after(options.timeout);
    if (DriverState::of(*driver).workers().run(job, deadline) == detail::Ended::no)
        throw detail::import_timed_out(*driver, blob, job->progress.call(), options.timeout);
    if (job->failure != nullptr) std::rethrow_exception(job->failure);
    return std::move(job->parts);
}

std::unique_ptr<BufferParts> import_checked(std::shared_ptr<Driver> driver, const HandleBlob& blob,
                                            const ImportOptions& options) {
    detail::check_blob(blob);
    detail::check_timeout(options.timeout);
    detail::check_timeout(options.tear_down_timeout.value_or(options.timeout));
    detail::check_driver(driver);
    if (options.timeout.count() > 0) return import_within(driver, blob, options);
    return detail::import(std::move(driver), blob, options, nullptr);
}

}  // namespace

ImportedFabricBuffer::ImportedFabricBuffer(std::shared_ptr<Driver> driver, const HandleBlob& blob,
                                           const ImportOptions& options)
    : MappedBuffer(import_checked(std::move(driver), blob, options)) {}
ImportedFabricBuffer::ImportedFabricBuffer(std::unique_ptr<detail::BufferParts> parts) noexcept
    : MappedBuffer(std::move(parts)) {}
ImportedFabricBuffer::ImportedFabricBuffer(ImportedFabricBuffer&&) noexcept = default;
ImportedFabricBuffer& ImportedFabricBuffer::operator=(ImportedFabricBuffer&& other) noexcept {
    if (this == &other) return *this;
    detail::let_go(std::move(parts()));
    MappedBuffer::operator=(std::move(other));
    return *this;
}
ImportedFabricBuffer::~ImportedFabricBuffer() { detail::let_go(std::move(parts())); }

void ImportedFabricBuffer::close() {
    if (parts() == nullptr) return;
    const bool ours = !parts()->forked();
    detail::TearDownFailure failure;
    if (ours && parts()->has_deadline()) failure = detail::tear_down_within(parts());
    const std::unique_ptr<BufferParts> owned = std::move(parts());  // closed from here on, whatever happens
    if (failure.call == nullptr) failure = owned->tear_down();      // empty already, where there is a deadline
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
