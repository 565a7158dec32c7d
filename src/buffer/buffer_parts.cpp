// SPDX-License-Identifier: Apache-2.0
#include "buffer/buffer_parts.hpp"

#include <algorithm>
#include <bit>
#include <exception>
#include <utility>

#include "driver/driver_state.hpp"
#include "log/log.hpp"
#include "platform/fork_epoch.hpp"
#include "text/text.hpp"
#include "worker/workers.hpp"

namespace fabricmem::detail {
namespace {

constexpr std::uint64_t kAlignmentMax = std::uint64_t{1} << 47;

void note(TearDownFailure& first, const char* call, std::uint64_t bytes, CUresult result) noexcept {
    if (result == CUDA_SUCCESS) return;
    if (first.call == nullptr) {
        first = {call, result};
    } else {
        log_failure(call, bytes, result);
    }
}

}  // namespace

BufferParts::BufferParts(std::shared_ptr<Driver> driver_to_keep, const HandleBlob& blob_so_far) noexcept
    : driver(std::move(driver_to_keep)), made_in(fork_epoch()), blob(blob_so_far) {}

BufferParts::~BufferParts() {
    const std::uint64_t bytes = range.get().bytes;
    const TearDownFailure failure = tear_down();
    if (failure.call != nullptr) log_failure(failure.call, bytes, failure.result);
}

void BufferParts::at(const char* call) noexcept {
    if (progress != nullptr) progress->enter(call);
}

void BufferParts::enter_book(BufferOrigin origin) noexcept {
    book_entry.origin = origin;
    book_entry.base = static_cast<std::uintptr_t>(range.get().address);
    book_entry.location = location;
    book_entry.kinds = kinds;
    book_entry.blob = &blob;
    DriverState::of(*driver).book.enter(book_entry);
}

void BufferParts::give_up() noexcept {
    if (!forked()) DriverState::of(*driver).book.add_given_up(range.get().bytes);
    mapping.abandon();
    allocation.abandon();
    range.abandon();
}

bool BufferParts::forked() const noexcept { return fork_epoch() != made_in; }

void* BufferParts::base() const noexcept {
    if (last_base != nullptr) return last_base;
    return reinterpret_cast<void*>(
        static_cast<std::uintptr_t>(range.get().address));  // NOLINT(performance-no-int-to-ptr)
}

BufferInfo BufferParts::info() const noexcept { return {base(), blob.bytes, blob.mapped_bytes, location, blob}; }

void BufferParts::call(const char* name, std::function<void(const BufferInfo&)>& callback) noexcept {
    const auto once = std::exchange(callback, nullptr);
    if (!once) return;
    try {
        once(info());
    } catch (const std::exception& error) {
        log(LogLevel::error, "{} threw, the tear-down goes on: {}", name, error.what());
    } catch (...) {
        log(LogLevel::error, "{} threw something that is no std::exception, the tear-down goes on", name);
    }
}

TearDownFailure BufferParts::tear_down() noexcept {
    if (forked()) {
        // The parent's resources: whatever the driver would make of these calls, they are not this process's to make.
        give_up();
        before_tear_down = nullptr;
        after_tear_down = nullptr;
        return {};
    }
    call("before_tear_down", before_tear_down);
    last_base = base();
    MemoryBook& book = DriverState::of(*driver).book;
    book.leave(book_entry);  // before the memory goes: what is in the book can be exported
    const std::uint64_t bytes = range.get().bytes;
    const TearDownFailure first = give_back();
    if (first.call != nullptr) book.add_failed_tear_down(bytes);
    call("after_tear_down", after_tear_down);
    return first;
}

TearDownFailure BufferParts::give_back() noexcept {
    TearDownFailure first;
    const Range whole = range.get();
    const bool was_mapped = static_cast<bool>(mapping);
    if (was_mapped) at(MappingTraits::kCloseCall);
    note(first, MappingTraits::kCloseCall, whole.bytes, mapping.close());
    if (allocation) at(AllocationTraits::kCloseCall);
    note(first, AllocationTraits::kCloseCall, whole.bytes, allocation.close());
    if (range && was_mapped && retire_address == RetireAddress::yes) {
        range.abandon();
        DriverState::of(*driver).retire(whole.address, whole.bytes);
    }
    if (range) at(AddressRangeTraits::kCloseCall);
    note(first, AddressRangeTraits::kCloseCall, whole.bytes, range.close());
    return first;
}

std::vector<int> checked_devices(const std::vector<int>& asked, std::size_t device_count) {
    std::vector<int> devices = asked;
    std::sort(devices.begin(), devices.end());
    devices.erase(std::unique(devices.begin(), devices.end()), devices.end());
    for (const int device : devices) {
        if (device < 0 || static_cast<std::size_t>(device) >= device_count) {
            throw Error({.kind = ErrorKind::bad_argument,
                         .subject = formatted("the access list names device {}, and there are {} devices", device,
                                              device_count)});
        }
    }
    return devices;
}

std::uint64_t checked_alignment(std::uint64_t alignment_bytes, std::uint64_t granularity) {
    if (alignment_bytes != 0 && (!std::has_single_bit(alignment_bytes) || alignment_bytes > kAlignmentMax)) {
        throw Error({.kind = ErrorKind::bad_argument,
                     .subject = formatted("an alignment of {} bytes is no power of two up to 2^47", alignment_bytes)});
    }
    return std::max(alignment_bytes, granularity);
}

void check_driver(const std::shared_ptr<Driver>& driver) {
    if (driver == nullptr) throw Error({.kind = ErrorKind::bad_argument, .subject = "the driver is null"});
    if (DriverState::of(*driver).forked()) {
        throw Error({.kind = ErrorKind::unsupported,
                     .code = CUDA_ERROR_NOT_INITIALIZED,
                     .subject = "the driver was made before this process was forked",
                     .cause = "CUDA does not survive fork()",
                     .cure = "start the child with exec, and make its driver there",
                     .check = "FM-DRIVER-007"});
    }
}

}  // namespace fabricmem::detail
