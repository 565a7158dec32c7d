// SPDX-License-Identifier: Apache-2.0
// What a buffer is made of. The members of the chain stand in the order of making and die in the reverse one:
// unmap, release, free the range, let the driver go. test/fabric_buffer_test.cpp holds the order.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include <fabricmem/driver.hpp>
#include <fabricmem/fabric_buffer.hpp>

#include "driver/memory_book.hpp"
#include "vmm/unique_handle.hpp"

namespace fabricmem::detail {

class Progress;
class TearDownJob;

struct TearDownFailure {
    const char* call = nullptr;
    CUresult result = CUDA_SUCCESS;
};

struct BufferParts {
    BufferParts(std::shared_ptr<Driver> driver_to_keep, const HandleBlob& blob_so_far) noexcept;
    BufferParts(const BufferParts&) = delete;
    BufferParts& operator=(const BufferParts&) = delete;
    /// tear_down(), with its failures in the log.
    ~BufferParts();

    /// Gives everything back, in order; the first failure is the answer, the others are logged. In a forked child it
    /// forgets everything instead. Empty afterwards; a second call does nothing.
    TearDownFailure tear_down() noexcept;

    /// Says what is done now to whoever may give it up.
    void at(const char* call) noexcept;
    /// Whether the tear-down has to end by a deadline (buffer/deadline.hpp).
    [[nodiscard]] bool has_deadline() const noexcept { return tear_down_job != nullptr; }
    /// Tells the driver's book of a buffer that is whole; tear_down() takes it out.
    void enter_book(BufferOrigin origin) noexcept;
    /// Forgets the memory, which stays mapped until the process ends: work on it is queued that nobody waits for, and
    /// unmapping under it would lose the context.
    void give_up() noexcept;
    /// The parts of an open buffer.
    [[nodiscard]] static BufferParts& of(MappedBuffer& buffer) noexcept { return *buffer.parts_; }

    /// Whether this process is a child that was forked after the buffer was made.
    [[nodiscard]] bool forked() const noexcept;
    [[nodiscard]] void* base() const noexcept;
    [[nodiscard]] BufferInfo info() const noexcept;

    std::shared_ptr<Driver> driver;
    AddressRange range;
    Allocation allocation;
    Mapping mapping;

    std::uint64_t made_in;
    std::uint64_t granularity = 0;
    Location location = Location::device(0);
    HandleKinds kinds;
    Access access;
    bool rdma = false;
    HandleBlob blob;
    RetireAddress retire_address = RetireAddress::no;
    std::function<void(const BufferInfo&)> before_tear_down;  // empty until on_make has succeeded
    std::function<void(const BufferInfo&)> after_tear_down;   // as before_tear_down
    void* last_base = nullptr;                                // what after_tear_down is told, once the range is gone
    BookEntry book_entry;

    std::chrono::milliseconds tear_down_timeout{0};
    std::shared_ptr<TearDownJob> tear_down_job;  // made with the buffer: its end must not need memory
    Progress* progress = nullptr;                // of the job that makes or ends the buffer

private:
    void call(const char* name, std::function<void(const BufferInfo&)>& callback) noexcept;
    TearDownFailure give_back() noexcept;
};

/// The ordinals in a caller's access list, ascending, each once. Throws Error{bad_argument} for one that does not
/// exist.
[[nodiscard]] std::vector<int> checked_devices(const std::vector<int>& asked, std::size_t device_count);

/// 0 or a power of two, made at least the granularity. Throws Error{bad_argument} for anything else.
[[nodiscard]] std::uint64_t checked_alignment(std::uint64_t alignment_bytes, std::uint64_t granularity);

/// Throws Error{bad_argument} without a driver, Error{unsupported} in a child forked after the driver was made.
void check_driver(const std::shared_ptr<Driver>& driver);

}  // namespace fabricmem::detail
