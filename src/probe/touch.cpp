// SPDX-License-Identifier: Apache-2.0
#include "probe/touch.hpp"

#include <atomic>
#include <utility>

#include "buffer/buffer_parts.hpp"
#include "driver/check.hpp"
#include "driver/driver_state.hpp"
#include "error/cures.hpp"
#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

CUdeviceptr touched(const void* address) noexcept {
    return static_cast<CUdeviceptr>(reinterpret_cast<std::uintptr_t>(address));
}

// A copy may still write there. Reachable, so that leak checkers know it for kept.
void keep_for_ever(Landing* landing) noexcept {
    static std::atomic<Landing*> kept{nullptr};
    landing->next = kept.load(std::memory_order_relaxed);
    while (!kept.compare_exchange_weak(landing->next, landing, std::memory_order_release, std::memory_order_relaxed)) {
    }
}

}  // namespace

Touch::Touch(Driver& driver, int ordinal, std::vector<MappedBuffer*> buffers)
    : driver_(driver),
      current_(driver, ordinal),
      stream_(make_stream(driver)),
      buffers_(std::move(buffers)),
      patience_(DriverState::of(driver).patience.probing),
      deadline_(std::chrono::steady_clock::now() + patience_) {}

void Touch::wait(const char* call, std::size_t bytes, const Location& where) {
    if (wait_for(driver_, stream_.get(), deadline_) == Finished::yes) return;
    if (landing_ != nullptr) keep_for_ever(landing_.release());
    stream_.abandon();
    current_.keep_alive();
    for (MappedBuffer* const buffer : buffers_) BufferParts::of(*buffer).give_up();
    throw Error({.kind = ErrorKind::timed_out,
                 .call = call,
                 .bytes = bytes,
                 .subject = to_string(where),
                 .cause = formatted("the GPU did not get to it within {} ms", patience_.count()),
                 .cure = cure_of("FM-MEMORY-011"),
                 .check = "FM-MEMORY-011"});
}

void Touch::fill(const MappedBuffer& buffer, unsigned char value, std::size_t bytes) {
    const Location where = buffer.location();
    check(driver_.memset_d8_async(touched(buffer.address()), value, bytes, stream_.get()), driver_,
          {.call = "cuMemsetD8Async", .bytes = bytes, .location = where});
    wait("cuMemsetD8Async", bytes, where);
}

void Touch::write(const MappedBuffer& buffer, std::span<const std::uint32_t> words) {
    const Location where = buffer.location();
    CUdeviceptr address = touched(buffer.address());
    for (const std::uint32_t word : words) {
        const CUresult result = driver_.stream_write_value32(stream_.get(), address, word, 0);
        if (result != CUDA_SUCCESS) {
            wait("cuStreamWriteValue32", sizeof word, where);  // for those before it
            raise(result, driver_, {.call = "cuStreamWriteValue32", .bytes = sizeof word, .location = where});
        }
        address += sizeof word;
    }
    wait("cuStreamWriteValue32", words.size_bytes(), where);
}

std::vector<unsigned char> Touch::read(const MappedBuffer& buffer, std::size_t bytes) {
    const Location where = buffer.location();
    landing_ = std::make_unique<Landing>();
    landing_->bytes.resize(bytes);
    check(driver_.memcpy_async(touched(landing_->bytes.data()), touched(buffer.address()), bytes, stream_.get()),
          driver_, {.call = "cuMemcpyAsync", .bytes = bytes, .location = where});
    wait("cuMemcpyAsync", bytes, where);
    return std::move(std::exchange(landing_, nullptr)->bytes);
}

}  // namespace fabricmem::detail
