// SPDX-License-Identifier: Apache-2.0
// Makes, exports and takes down memory of this process.
#include <sys/random.h>
#include <time.h>

#include <array>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "buffer/buffer_parts.hpp"
#include "buffer/zero.hpp"
#include "driver/driver_state.hpp"
#include "log/log.hpp"
#include "vmm/vmm.hpp"

namespace fabricmem {
namespace {

using detail::BufferParts;
using detail::CallContext;
using detail::DeviceFacts;
using detail::DriverState;

constexpr std::uint64_t kBytesMax = std::uint64_t{1} << 47;

// What is asked for, checked, before anything is made.
struct Plan {
    Location location = Location::device(0);
    const DeviceFacts* device = nullptr;  // the owner; null for host memory
    CUmemAllocationProp properties{};
    std::uint64_t granularity = 0;
    std::uint64_t mapped_bytes = 0;
    std::uint64_t alignment = 0;
    detail::AccessRequest access;
    std::shared_ptr<const detail::Topology> topology;  // what `device` points into
};

[[noreturn]] void refuse(std::string what) {
    throw Error({.kind = ErrorKind::bad_argument, .subject = std::move(what)});
}

const DeviceFacts& device_of(const detail::Topology& topology, int ordinal) {
    if (ordinal < 0 || static_cast<std::size_t>(ordinal) >= topology.devices.size()) {
        refuse(fmt::format("there is no device {}: this process sees {}", ordinal, topology.devices.size()));
    }
    return topology.devices[static_cast<std::size_t>(ordinal)];
}

void check_sizes(std::uint64_t bytes, const FabricBufferOptions& options) {
    if (bytes == 0) refuse("a buffer of 0 bytes");
    if (bytes > kBytesMax) refuse(fmt::format("a buffer of {} bytes: at most 2^47 are taken", bytes));
    if (!options.kinds.has(HandleKind::fabric) || (options.kinds.bits() & ~0x3U) != 0) {
        throw Error({.kind = ErrorKind::unsupported,
                     .subject = fmt::format("handle types {}: this version makes fabric, or fabric and posix_fd",
                                            to_string(options.kinds))});
    }
}

void plan_location(Plan& plan, const Location& asked) {
    switch (asked.kind()) {
        case LocationKind::device:
            plan.location = asked;
            plan.device = &device_of(*plan.topology, asked.index());
            return;
        case LocationKind::host_nearest:
            plan.location = Location::host_numa(device_of(*plan.topology, asked.index()).nearest_numa_node);
            return;
        case LocationKind::host_numa:
            if (asked.index() < 0) refuse(fmt::format("host NUMA node {}", asked.index()));
            plan.location = asked;
            return;
    }
    refuse("an unknown kind of location");
}

void plan_properties(Plan& plan, const FabricBufferOptions& options) {
    CUmemAllocationProp& properties = plan.properties;
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_FABRIC;
    if (options.kinds.has(HandleKind::posix_fd)) {
        properties.requestedHandleTypes = static_cast<CUmemAllocationHandleType>(
            CU_MEM_HANDLE_TYPE_FABRIC | CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    }
    properties.location.type = plan.device != nullptr ? CU_MEM_LOCATION_TYPE_DEVICE : CU_MEM_LOCATION_TYPE_HOST_NUMA;
    properties.location.id = plan.location.index();
    const bool wanted = options.rdma == Rdma::required ||
                        (options.rdma == Rdma::automatic && plan.device != nullptr && plan.device->rdma_attribute);
    properties.allocFlags.gpuDirectRDMACapable = wanted ? 1 : 0;
}

void plan_access(Plan& plan, const FabricBufferOptions& options) {
    plan.access.permission = options.permission;
    plan.access.host = options.host_access;
    if (plan.device != nullptr && options.host_access == HostAccess::automatic) plan.access.host = HostAccess::none;
    if (options.access.has_value()) {
        plan.access.devices = detail::checked_devices(*options.access, plan.topology->devices.size());
    } else if (plan.device != nullptr) {
        plan.access.devices = plan.device->reachable_from;
    } else {
        for (std::size_t i = 0; i < plan.topology->devices.size(); ++i)
            plan.access.devices.push_back(static_cast<int>(i));
    }
    if (plan.access.devices.empty() && plan.access.host == HostAccess::none) refuse("an access list that names nobody");
}

Plan make_plan(Driver& driver, std::uint64_t bytes, const FabricBufferOptions& options) {
    check_sizes(bytes, options);
    Plan plan;
    plan.topology = DriverState::of(driver).topology();
    plan_location(plan, options.location);
    plan_properties(plan, options);
    plan_access(plan, options);
    plan.granularity = DriverState::of(driver).granularity(plan.properties);
    plan.mapped_bytes = (bytes + plan.granularity - 1) / plan.granularity * plan.granularity;
    plan.alignment = detail::checked_alignment(options.alignment_bytes, plan.granularity);
    return plan;
}

// What the driver really granted: a device without fabric takes the request and ignores it. One call for both
// questions.
void read_back(BufferParts& parts, const FabricBufferOptions& options, const CallContext& about) {
    std::array<CUpointer_attribute, 2> attributes{CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES,
                                                  CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE};
    std::uint64_t handle_types = 0;
    std::uint64_t rdma = 0;
    std::array<void*, 2> values{&handle_types, &rdma};
    detail::check(parts.driver->pointer_get_attributes(2, attributes.data(), values.data(), parts.range.get().address),
                  *parts.driver, {.call = "cuPointerGetAttributes", .bytes = about.bytes, .location = about.location});
    if ((handle_types & CU_MEM_HANDLE_TYPE_FABRIC) != 0) parts.kinds = parts.kinds | HandleKind::fabric;
    if ((handle_types & CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != 0)
        parts.kinds = parts.kinds | HandleKind::posix_fd;
    parts.rdma = rdma != 0;
    if (!parts.kinds.has(HandleKind::fabric)) {
        throw Error({.kind = ErrorKind::unsupported,
                     .subject = fmt::format("{} bytes on {} were made without a fabric handle", about.bytes,
                                            to_string(parts.location)),
                     .cause = "the device took the request for fabric handles and silently granted none",
                     .cure = "use another handle kind on this device"});
    }
    if (options.rdma == Rdma::required && !parts.rdma) {
        throw Error(
            {.kind = ErrorKind::unsupported,
             .subject =
                 fmt::format("{} bytes on {} are not GPUDirect RDMA capable", about.bytes, to_string(parts.location)),
             .cause = "the driver took the request and did not grant it",
             .cure = "use memory of a device that has GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, or Rdma::automatic"});
    }
}

Id128 random_id() {
    Id128 id;
    std::size_t have = 0;
    while (have < id.bytes.size()) {
        const ssize_t got = ::getrandom(id.bytes.data() + have, id.bytes.size() - have, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) throw Error({.kind = ErrorKind::system, .call = "getrandom", .subject = std::strerror(errno)});
        have += static_cast<std::size_t>(got);
    }
    return id;
}

std::uint64_t now_ns() noexcept {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(now.tv_nsec);
}

void fill_blob(BufferParts& parts, const Plan& plan, std::uint64_t bytes, const FabricBufferOptions& options) {
    DriverState& state = DriverState::of(*parts.driver);
    HandleBlob& blob = parts.blob;
    blob.kinds = HandleKind::fabric;  // a descriptor can't be asked for in this version, whatever was granted
    blob.location_kind = plan.location.kind();
    if (plan.device != nullptr) {
        blob.device_ordinal = plan.location.index();
        blob.device_uuid = plan.device->uuid;
        blob.fabric = state.fabric_place(*plan.device);
    } else {
        blob.numa_node = plan.location.index();
    }
    blob.allocation_id = random_id();
    blob.peer = options.peer;
    blob.generation = options.generation;
    const auto self = state.identity();
    blob.host_id = self->host_id;
    blob.boot_id = self->boot_id;
    blob.process_id = self->process_id;
    blob.pid_namespace = self->pid_namespace;
    blob.process_start = self->process_start;
    blob.imex_channel = state.imex_channel();
    blob.mapped_bytes = plan.mapped_bytes;
    blob.bytes = bytes;
    blob.granularity = plan.granularity;
    blob.rdma = parts.rdma;
    blob.created_ns = now_ns();
}

// The permission that the mapping ends with; setting memory needs to write to it first.
void give_access(BufferParts& parts, const Plan& plan, const FabricBufferOptions& options, const CallContext& about) {
    const detail::Range& whole = parts.range.get();
    if (options.zeroing == Zeroing::none) {
        parts.access = detail::grant_access(*parts.driver, whole, plan.access, about);
        return;
    }
    detail::AccessRequest writable = plan.access;
    writable.permission = Permission::read_write;
    parts.access = detail::grant_access(*parts.driver, whole, writable, about);
    detail::zero(parts, plan.device != nullptr ? plan.location.index() : -1);
    if (plan.access.permission == Permission::read_only) {
        detail::AccessRequest rest{parts.access.devices, parts.access.host ? plan.access.host : HostAccess::none,
                                   Permission::read_only};
        parts.access = detail::grant_access(*parts.driver, whole, rest, about);
    }
}

std::unique_ptr<BufferParts> make(std::shared_ptr<Driver> driver, std::uint64_t bytes, FabricBufferOptions options) {
    detail::check_driver(driver);
    const Plan plan = make_plan(*driver, bytes, options);
    const CallContext about{.call = {}, .bytes = plan.mapped_bytes, .location = plan.location};
    auto parts = std::make_unique<BufferParts>(std::move(driver));
    Driver& calls = *parts->driver;
    parts->location = plan.location;
    parts->granularity = plan.granularity;
    parts->range = detail::reserve(calls, plan.mapped_bytes, plan.alignment, about);
    parts->allocation = detail::create(calls, plan.mapped_bytes, plan.properties);
    parts->mapping = detail::map(calls, parts->range.get(), parts->allocation.get(), about);
    give_access(*parts, plan, options, about);
    read_back(*parts, options, about);
    fill_blob(*parts, plan, bytes, options);
    detail::check(calls.mem_export_to_shareable_handle(parts->blob.handle.data(), parts->allocation.get(),
                                                       CU_MEM_HANDLE_TYPE_FABRIC, 0),
                  calls,
                  {.call = "cuMemExportToShareableHandle", .bytes = plan.mapped_bytes, .location = plan.location});
    parts->retire_address = options.retire_address;
    if (options.on_make) options.on_make(parts->info());
    parts->before_tear_down = std::move(options.before_tear_down);
    return parts;
}

// Asks the driver whether the memory outlived our references. It counts them but does not tell; its own handle can be
// imported for as long as this process holds one that is no import, and not after (docs/driver-notes.md).
bool still_referenced(Driver& driver, const HandleBlob& blob) noexcept {
    CUmemGenericAllocationHandle handle = 0;
    auto bytes = blob.handle;
    if (driver.mem_import_from_shareable_handle(&handle, bytes.data(), CU_MEM_HANDLE_TYPE_FABRIC) != CUDA_SUCCESS)
        return false;
    const detail::Allocation asked(driver, handle);
    return true;
}

}  // namespace

FabricBuffer::FabricBuffer(std::shared_ptr<Driver> driver, std::uint64_t bytes, FabricBufferOptions options)
    : MappedBuffer(make(std::move(driver), bytes, std::move(options))) {}
FabricBuffer::FabricBuffer(FabricBuffer&&) noexcept = default;
FabricBuffer& FabricBuffer::operator=(FabricBuffer&&) noexcept = default;
FabricBuffer::~FabricBuffer() = default;

CloseResult FabricBuffer::close() {
    const std::unique_ptr<BufferParts> owned = std::move(parts());  // closed from here on, whatever happens
    if (owned == nullptr) return CloseResult::released;
    const bool ours = !owned->forked();
    void* const address = owned->base();
    const detail::TearDownFailure failure = owned->tear_down();
    if (failure.call != nullptr) {
        detail::raise(failure.result, *owned->driver,
                      {.call = failure.call, .bytes = owned->blob.mapped_bytes, .location = owned->location});
    }
    if (!ours) detail::check_driver(owned->driver);
    if (!still_referenced(*owned->driver, owned->blob)) return CloseResult::released;
    detail::log(
        LogLevel::warning,
        "{} bytes of {} at {} are closed, but something in this process still references them: likely a transport "
        "that never released the handle that it retained; the memory stays in use until it does",
        owned->blob.mapped_bytes, to_string(owned->location), address);
    return CloseResult::still_referenced;
}

}  // namespace fabricmem
