// SPDX-License-Identifier: Apache-2.0
#include "vmm/copy_port.hpp"

#include <utility>

#include "driver/driver_state.hpp"
#include "log/log.hpp"
#include "platform/fork_epoch.hpp"
#include "vmm/vmm.hpp"

namespace fabricmem::detail {
namespace {

// Captures in global mode, of other threads too, don't mind what this thread does meanwhile.
class CaptureScope {
public:
    explicit CaptureScope(Driver& driver) noexcept
        : driver_(driver), exchanged_(driver.thread_exchange_stream_capture_mode(&mode_) == CUDA_SUCCESS) {}
    CaptureScope(const CaptureScope&) = delete;
    CaptureScope& operator=(const CaptureScope&) = delete;
    ~CaptureScope() {
        if (exchanged_) driver_.thread_exchange_stream_capture_mode(&mode_);
    }

private:
    Driver& driver_;
    CUstreamCaptureMode mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
    bool exchanged_;
};

// Makes a context the thread's for a while.
class ContextScope {
public:
    ContextScope(Driver& driver, CUcontext context) : driver_(driver), capture_(driver) {
        check(driver.ctx_push_current(context), driver, {.call = "cuCtxPushCurrent"});
    }
    ContextScope(const ContextScope&) = delete;
    ContextScope& operator=(const ContextScope&) = delete;
    ~ContextScope() {
        CUcontext popped = nullptr;
        const CUresult result = driver_.ctx_pop_current(&popped);
        if (result != CUDA_SUCCESS) log_failure("cuCtxPopCurrent", 0, result);
    }

private:
    Driver& driver_;
    CaptureScope capture_;
};

CUmemAllocationProp host_memory(int numa_node) {
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_NONE;
    properties.location.type = CU_MEM_LOCATION_TYPE_HOST_NUMA;
    properties.location.id = numa_node;
    return properties;
}

}  // namespace

PrimaryContext::PrimaryContext(Driver& driver, int ordinal) : driver_(driver) {
    const auto topology = DriverState::of(driver).topology();
    if (ordinal < 0 || static_cast<std::size_t>(ordinal) >= topology->devices.size()) {
        throw Error(
            {.kind = ErrorKind::bad_argument, .subject = to_string(Location::device(ordinal)) + " is not here"});
    }
    device_ = topology->devices[static_cast<std::size_t>(ordinal)].device;
    check(driver.device_primary_ctx_retain(&context_, device_), driver,
          {.call = "cuDevicePrimaryCtxRetain", .location = Location::device(ordinal)});
    retained_ = true;
}

PrimaryContext::~PrimaryContext() {
    if (!retained_) return;
    const CUresult result = driver_.device_primary_ctx_release(device_);
    if (result != CUDA_SUCCESS && result != CUDA_ERROR_DEINITIALIZED)
        log_failure("cuDevicePrimaryCtxRelease", 0, result);
}

CopyPort::CopyPort(std::shared_ptr<Driver> driver, int ordinal, std::uint64_t bytes)
    : driver_(std::move(driver)), ordinal_(ordinal), born_in_(fork_epoch()), context_(*driver_, ordinal) {
    DriverState& state = DriverState::of(*driver_);
    const int node = state.topology()->devices[static_cast<std::size_t>(ordinal)].nearest_numa_node;
    const CUmemAllocationProp properties = host_memory(node);
    const std::uint64_t granularity = state.granularity(properties);
    const std::uint64_t mapped = (bytes + granularity - 1) / granularity * granularity;
    const CallContext about{.call = {}, .bytes = mapped, .location = Location::host_numa(node)};
    range_ = reserve(*driver_, mapped, 0, about);
    allocation_ = create(*driver_, mapped, properties);
    mapping_ = map(*driver_, range_.get(), allocation_.get(), about);
    Access access{.devices = {ordinal}, .host = true};
    grant_access(*driver_, range_.get(), access, HostAccess::required, about);
    if (access.devices.empty()) {
        throw Error({.kind = ErrorKind::unsupported,
                     .call = "cuMemSetAccess",
                     .bytes = mapped,
                     .subject = to_string(Location::device(ordinal)) + " got no access to memory of the host"});
    }
    const ContextScope scope(*driver_, context_.get());
    stream_ = make_stream(*driver_);
    bounce_ = reinterpret_cast<std::byte*>(static_cast<std::uintptr_t>(range_.get().address));
}

CopyPort::~CopyPort() {
    const auto give_up = [this] {
        stream_.abandon();
        mapping_.abandon();
        allocation_.abandon();
        range_.abandon();
        context_.abandon();
    };
    if (born_in_ != fork_epoch()) {
        give_up();
        return;
    }
    if (is_at_rest()) return;
    log(LogLevel::error, "{} bytes of host memory are kept until the process ends: a copy is still under way",
        range_.get().bytes);
    give_up();
}

void CopyPort::write(std::uint64_t destination, std::uint64_t offset, std::size_t bytes) {
    copy(destination, range_.get().address + offset, bytes);
}

void CopyPort::read(std::uint64_t offset, std::uint64_t source, std::size_t bytes) {
    copy(range_.get().address + offset, source, bytes);
}

void CopyPort::copy(std::uint64_t destination, std::uint64_t source, std::size_t bytes) {
    const ContextScope scope(*driver_, context_.get());
    busy_ = true;
    check(driver_->memcpy_async(destination, source, bytes, stream_.get()), *driver_,
          [&] { return CallContext{.call = "cuMemcpyAsync", .bytes = bytes, .location = Location::device(ordinal_)}; });
}

bool CopyPort::is_idle() {
    if (!busy_) return true;
    const CaptureScope scope(*driver_);
    const CUresult result = driver_->stream_query(stream_.get());
    if (result == CUDA_ERROR_NOT_READY) return false;
    check(result, *driver_, {.call = "cuStreamQuery", .location = Location::device(ordinal_)});
    busy_ = false;
    return true;
}

bool CopyPort::is_at_rest() noexcept {
    if (!busy_) return true;
    const CaptureScope scope(*driver_);
    return driver_->stream_query(stream_.get()) != CUDA_ERROR_NOT_READY;
}

Finished CopyPort::wait(std::chrono::steady_clock::time_point deadline) {
    if (!busy_) return Finished::yes;
    const CaptureScope scope(*driver_);
    if (wait_for(*driver_, stream_.get(), deadline) == Finished::no) return Finished::no;
    busy_ = false;
    return Finished::yes;
}

}  // namespace fabricmem::detail
