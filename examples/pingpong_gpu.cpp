// SPDX-License-Identifier: Apache-2.0
// Owners of what the ping-pong needs of a GPU. Destructors do not report: they run where something failed already, or
// at the end, where the driver cleans up anyway.
#include "pingpong_gpu.hpp"

#include <errno.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <thread>
#include <utility>

#include "common/deadline.hpp"
#include "common/text.hpp"

namespace pingpong {

CurrentContext::CurrentContext(std::shared_ptr<fabricmem::Driver> driver, int ordinal)
    : driver_(std::move(driver)), device_(device_of(*driver_, ordinal)) {
    CUcontext context = nullptr;
    check_call(*driver_, driver_->device_primary_ctx_retain(&context, device_), "cuDevicePrimaryCtxRetain");
    const CUresult made_current = driver_->ctx_set_current(context);
    if (made_current != CUDA_SUCCESS) (void)driver_->device_primary_ctx_release(device_);
    check_call(*driver_, made_current, "cuCtxSetCurrent");
}

CurrentContext::~CurrentContext() {
    (void)driver_->ctx_set_current(nullptr);
    (void)driver_->device_primary_ctx_release(device_);
}

Stream::Stream(std::shared_ptr<fabricmem::Driver> driver) : driver_(std::move(driver)) {
    check_call(*driver_, driver_->stream_create(&stream_, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
}

Stream::~Stream() {
    drain();
    (void)driver_->stream_destroy(stream_);
}

void Stream::drain() const noexcept {
    const Deadline deadline(std::chrono::seconds(10));
    try {
        while (!is_idle()) {
            if (deadline.passed()) {
                print(stderr, "{}: error: the GPU does not come to rest\n", program_invocation_short_name);
                std::_Exit(1);
            }
            std::this_thread::yield();
        }
    } catch (const std::exception&) {  // the work failed: nothing is under way any more
    }
}

bool Stream::is_idle() const {
    const CUresult result = driver_->stream_query(stream_);
    if (result == CUDA_ERROR_NOT_READY) return false;
    check_call(*driver_, result, "cuStreamQuery");
    return true;
}

void Stream::copy(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) const {
    check_call(*driver_, driver_->memcpy_async(destination, source, bytes, stream_), "cuMemcpyAsync");
}

void Stream::write_value(CUdeviceptr address, std::uint32_t value) const {
    // The default has a fence before the write: what the stream wrote earlier is there when the value is.
    check_call(*driver_, driver_->stream_write_value32(stream_, address, value, CU_STREAM_WRITE_VALUE_DEFAULT),
               "cuStreamWriteValue32");
}

void Stream::write_bytes(CUdeviceptr address, const std::byte* from, std::size_t bytes) const {
    for (std::size_t offset = 0; offset < bytes; offset += sizeof(std::uint64_t)) {
        const std::size_t count = std::min(sizeof(std::uint64_t), bytes - offset);
        std::uint64_t word = 0;
        std::memcpy(&word, from + offset, count);
        if (count <= sizeof(std::uint32_t)) {
            write_value(address + offset, static_cast<std::uint32_t>(word));  // little-endian, as all that CUDA runs on
            return;
        }
        check_call(*driver_,
                   driver_->stream_write_value64(stream_, address + offset, word, CU_STREAM_WRITE_VALUE_DEFAULT),
                   "cuStreamWriteValue64");
    }
}

void Stream::wait_value(CUdeviceptr address, std::uint32_t value) const {
    check_call(*driver_, driver_->stream_wait_value32(stream_, address, value, CU_STREAM_WAIT_VALUE_GEQ),
               "cuStreamWaitValue32");
}

PinnedMemory::PinnedMemory(std::shared_ptr<fabricmem::Driver> driver, std::size_t bytes) : driver_(std::move(driver)) {
    check_call(*driver_, driver_->mem_alloc_host(&address_, bytes), "cuMemAllocHost");
}

PinnedMemory::~PinnedMemory() { (void)driver_->mem_free_host(address_); }

DeviceMemory::DeviceMemory(std::shared_ptr<fabricmem::Driver> driver, std::size_t bytes) : driver_(std::move(driver)) {
    check_call(*driver_, driver_->mem_alloc(&address_, bytes), "cuMemAlloc");
}

DeviceMemory::~DeviceMemory() { (void)driver_->mem_free(address_); }

}  // namespace pingpong
