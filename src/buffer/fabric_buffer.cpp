// SPDX-License-Identifier: Apache-2.0
// Makes, exports and takes down memory of this process.
#include <time.h>

#include <array>
#include <utility>
#include <vector>

#include "buffer/buffer_parts.hpp"
#include "buffer/zero.hpp"
#include "driver/causes.hpp"
#include "driver/driver_state.hpp"
#include "error/cures.hpp"
#include "error/refuse.hpp"
#include "error/result_name.hpp"
#include "log/log.hpp"
#include "platform/random_id.hpp"
#include "text/text.hpp"
#include "vmm/vmm.hpp"

namespace fabricmem {
namespace {

using detail::BufferParts;
using detail::CallContext;
using detail::DriverState;
using detail::MemoryFacts;
using detail::refuse;

constexpr std::uint64_t kBytesMax = std::uint64_t{1} << 47;

// What is asked for, checked, before anything is made.
struct Plan {
    std::shared_ptr<const MemoryFacts> facts;
    CUmemAllocationProp properties{};
    std::uint64_t mapped_bytes = 0;
    std::uint64_t alignment = 0;
    Access access;
    HostAccess host = HostAccess::none;
};

void check_sizes(std::uint64_t bytes, const FabricBufferOptions& options) {
    if (bytes == 0) refuse("a buffer of 0 bytes");
    if (bytes > kBytesMax) refuse(detail::formatted("a buffer of {} bytes: at most 2^47 are taken", bytes));
    if (!options.kinds.has(HandleKind::fabric) || (options.kinds.bits() & ~0x3U) != 0) {
        throw Error({.kind = ErrorKind::unsupported,
                     .subject = detail::formatted("handle types {}: this version makes fabric, or fabric and posix_fd",
                                                  to_string(options.kinds))});
    }
}

std::shared_ptr<const MemoryFacts> facts_for(Driver& driver, const FabricBufferOptions& options) {
    unsigned handle_types = CU_MEM_HANDLE_TYPE_FABRIC;
    if (options.kinds.has(HandleKind::posix_fd)) handle_types |= CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    return DriverState::of(driver).memory_at(options.location, static_cast<CUmemAllocationHandleType>(handle_types));
}

void plan_access(Plan& plan, const FabricBufferOptions& options) {
    plan.access.permission = options.permission;
    plan.host = options.host_access;
    if (!plan.facts->location.is_host() && options.host_access == HostAccess::automatic) plan.host = HostAccess::none;
    plan.access.host = plan.host != HostAccess::none;
    if (options.access.has_value()) {
        plan.access.devices = detail::checked_devices(*options.access, plan.facts->topology->devices.size());
    } else {
        plan.access.devices = plan.facts->devices;
    }
    if (plan.access.empty()) refuse("an access list that names nobody");
}

Plan make_plan(Driver& driver, std::uint64_t bytes, const FabricBufferOptions& options) {
    check_sizes(bytes, options);
    Plan plan;
    plan.facts = facts_for(driver, options);
    plan_access(plan, options);
    plan.properties = plan.facts->properties;
    const bool rdma = options.rdma == Rdma::required || (options.rdma == Rdma::automatic && plan.facts->rdma_attribute);
    plan.properties.allocFlags.gpuDirectRDMACapable = rdma ? 1 : 0;
    const std::uint64_t granularity = plan.facts->granularity;
    plan.mapped_bytes = (bytes + granularity - 1) / granularity * granularity;
    plan.alignment = detail::checked_alignment(options.alignment_bytes, granularity);
    return plan;
}

// What the driver really granted: a device without fabric takes the request and ignores it. One call for both
// questions.
void read_back(BufferParts& parts, const FabricBufferOptions& options, bool asked_rdma, const CallContext& about) {
    std::array<CUpointer_attribute, 2> attributes{CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES,
                                                  CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE};
    std::uint64_t handle_types = 0;
    std::uint64_t rdma = 0;
    std::array<void*, 2> values{&handle_types, &rdma};
    detail::check(parts.driver->pointer_get_attributes(2, attributes.data(), values.data(), parts.range.get().address),
                  *parts.driver, [&] {
                      return CallContext{
                          .call = "cuPointerGetAttributes", .bytes = about.bytes, .location = about.location};
                  });
    if ((handle_types & CU_MEM_HANDLE_TYPE_FABRIC) != 0) parts.kinds = parts.kinds | HandleKind::fabric;
    if ((handle_types & CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != 0)
        parts.kinds = parts.kinds | HandleKind::posix_fd;
    parts.rdma = rdma != 0;
    if (!parts.kinds.has(HandleKind::fabric)) {
        const bool says_so = detail::has_fabric_handles(*parts.driver, parts.location);
        const char* const check = says_so ? "FM-FABRIC-002" : "FM-FABRIC-001";
        throw Error({.kind = ErrorKind::unsupported,
                     .subject = detail::formatted("{} bytes on {} were made without a fabric handle", about.bytes,
                                                  to_string(parts.location)),
                     .cause = detail::formatted("the device took the request for fabric handles and silently granted "
                                                "none{}",
                                                says_so ? "" : ": it has none (attribute 128 is 0)"),
                     .cure = detail::cure_of(check),
                     .check = check});
    }
    if (asked_rdma && !parts.rdma && options.rdma == Rdma::automatic)
        detail::Tally::count(DriverState::of(*parts.driver).tally.rdma_not_granted);
    if (options.rdma == Rdma::required && !parts.rdma) {
        throw Error(
            {.kind = ErrorKind::unsupported,
             .subject = detail::formatted("{} bytes on {} are not GPUDirect RDMA capable", about.bytes,
                                          to_string(parts.location)),
             .cause = "the driver took the request and did not grant it",
             .cure = "use memory of a device that has GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, or Rdma::automatic"});
    }
}

std::uint64_t now_ns() noexcept {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(now.tv_nsec);
}

// All but what the driver answers, and what is the same for all memory of the place.
void fill_blob(BufferParts& parts, const Plan& plan, std::uint64_t bytes, const FabricBufferOptions& options) {
    HandleBlob& blob = parts.blob;
    blob.kinds = HandleKind::fabric;  // a descriptor can't be asked for in this version, whatever was granted
    blob.allocation_id = detail::random_id();
    blob.peer = options.peer;
    blob.generation = options.generation;
    blob.mapped_bytes = plan.mapped_bytes;
    blob.bytes = bytes;
    blob.created_ns = now_ns();
}

// The permission that the mapping ends with; setting memory needs to write to it first.
void give_access(BufferParts& parts, HostAccess host, Zeroing zeroing, const CallContext& about) {
    const detail::Range& whole = parts.range.get();
    if (zeroing == Zeroing::none) {
        detail::grant_access(*parts.driver, whole, parts.access, host, about);
        return;
    }
    const Permission wanted = std::exchange(parts.access.permission, Permission::read_write);
    detail::grant_access(*parts.driver, whole, parts.access, host, about);
    detail::zero(parts, parts.location.is_host() ? -1 : parts.location.index());
    if (wanted == Permission::read_write) return;
    parts.access.permission = wanted;
    detail::grant_access(*parts.driver, whole, parts.access, host, about);
}

void export_to(HandleBlob& blob, const BufferParts& parts) {
    detail::check(parts.driver->mem_export_to_shareable_handle(blob.handle.data(), parts.allocation.get(),
                                                               CU_MEM_HANDLE_TYPE_FABRIC, 0),
                  *parts.driver, [&] {
                      return CallContext{.call = "cuMemExportToShareableHandle",
                                         .bytes = blob.mapped_bytes,
                                         .location = parts.location};
                  });
}

// Whatever can be done before memory is created is done then, and no line of code or data is touched without need:
// creating host memory empties the CPU's caches, and so did the last buffer's.
std::unique_ptr<BufferParts> make(std::shared_ptr<Driver> driver, std::uint64_t bytes, FabricBufferOptions& options) {
    detail::check_driver(driver);
    Plan plan = make_plan(*driver, bytes, options);
    const CallContext about{.call = {}, .bytes = plan.mapped_bytes, .location = plan.facts->location};
    auto parts = std::make_unique<BufferParts>(std::move(driver), plan.facts->blob);
    Driver& calls = *parts->driver;
    parts->location = plan.facts->location;
    parts->granularity = plan.facts->granularity;
    parts->access = std::move(plan.access);
    fill_blob(*parts, plan, bytes, options);
    parts->range = detail::reserve(calls, plan.mapped_bytes, plan.alignment, about);
    parts->allocation = detail::create(calls, plan.mapped_bytes, plan.properties);
    parts->mapping = detail::map(calls, parts->range.get(), parts->allocation.get(), about);
    give_access(*parts, plan.host, options.zeroing, about);
    read_back(*parts, options, plan.properties.allocFlags.gpuDirectRDMACapable != 0, about);
    parts->blob.rdma = parts->rdma;
    export_to(parts->blob, *parts);
    parts->retire_address = options.retire_address;  // not before: a failure until here gave nobody the address
    parts->enter_book(detail::BufferOrigin::own);
    if (options.on_make) options.on_make(parts->info());
    if (options.before_tear_down) parts->before_tear_down = std::move(options.before_tear_down);
    if (options.after_tear_down) parts->after_tear_down = std::move(options.after_tear_down);
    return parts;
}

// Asks the driver whether the memory outlived our references. It counts them but does not tell; its own handle can be
// imported for as long as this process holds one that is no import, and is NOT_SUPPORTED after (docs/driver-notes.md).
CUresult import_again(Driver& driver, const HandleBlob& blob) noexcept {
    CUmemGenericAllocationHandle handle = 0;
    auto bytes = blob.handle;
    const CUresult result = driver.mem_import_from_shareable_handle(&handle, bytes.data(), CU_MEM_HANDLE_TYPE_FABRIC);
    if (result != CUDA_SUCCESS) return result;
    const detail::Allocation asked(driver, handle);  // given back here and now
    return result;
}

CloseResult look_for_references(Driver& driver, const HandleBlob& blob, const Location& location, void* address) {
    const CUresult result = import_again(driver, blob);
    switch (static_cast<int>(result)) {
        case CUDA_ERROR_NOT_SUPPORTED:
        case CUDA_ERROR_DEINITIALIZED:  // at exit: the driver has taken everything with it
            return CloseResult::released;
        case CUDA_SUCCESS:
            detail::log(LogLevel::warning,
                        "{} bytes of {} at {} are closed, but something in this process still references them: likely "
                        "a transport that never released the handle that it retained; the memory stays in use until it "
                        "does",
                        blob.mapped_bytes, to_string(location), address);
            return CloseResult::still_referenced;
        default:
            detail::log(LogLevel::warning,
                        "{} bytes of {} at {} are closed; whether something in this process still references them is "
                        "not known: importing them again to find out failed with {} ({})",
                        blob.mapped_bytes, to_string(location), address, detail::result_name(static_cast<int>(result)),
                        static_cast<int>(result));
            return CloseResult::unknown;
    }
}

}  // namespace

FabricBuffer::FabricBuffer(std::shared_ptr<Driver> driver, std::uint64_t bytes, FabricBufferOptions options)
    : MappedBuffer(make(std::move(driver), bytes, options)) {}
FabricBuffer::FabricBuffer(FabricBuffer&&) noexcept = default;
FabricBuffer& FabricBuffer::operator=(FabricBuffer&&) noexcept = default;
FabricBuffer::~FabricBuffer() = default;

HandleBlob FabricBuffer::export_again() const {
    const BufferParts& own = open_parts();
    detail::check_driver(own.driver);
    HandleBlob blob = own.blob;
    blob.created_ns = now_ns();
    export_to(blob, own);
    return blob;
}

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
    return look_for_references(*owned->driver, owned->blob, owned->location, address);
}

}  // namespace fabricmem
