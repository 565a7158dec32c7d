// SPDX-License-Identifier: Apache-2.0
#include "vmm/context.hpp"

#include <algorithm>
#include <thread>

#include "driver/driver_state.hpp"
#include "log/log.hpp"

namespace fabricmem::detail {

CurrentContext::CurrentContext(Driver& driver, int ordinal) : driver_(driver) {
    const Location where = Location::device(ordinal);
    device_ = DriverState::of(driver).topology()->devices.at(static_cast<std::size_t>(ordinal)).device;
    // Captures in global mode forbid "unsafe" calls to every thread that doesn't opt out.
    exchanged_ = driver.thread_exchange_stream_capture_mode(&other_mode_) == CUDA_SUCCESS;
    CUcontext current = nullptr;
    CUdevice current_device = 0;
    if (driver.ctx_get_current(&current) == CUDA_SUCCESS && current != nullptr &&
        driver.ctx_get_device(&current_device) == CUDA_SUCCESS && current_device == device_) {
        return;
    }
    CUcontext primary = nullptr;
    const CUresult retained = driver.device_primary_ctx_retain(&primary, device_);
    const CUresult pushed = retained == CUDA_SUCCESS ? driver.ctx_push_current(primary) : retained;
    if (pushed == CUDA_SUCCESS) {
        retained_ = pushed_ = true;
        return;
    }
    // The destructor of a half-made object does not run, so what was done is undone here.
    if (retained == CUDA_SUCCESS) driver.device_primary_ctx_release(device_);
    if (exchanged_) driver.thread_exchange_stream_capture_mode(&other_mode_);
    raise(pushed, driver,
          {.call = retained == CUDA_SUCCESS ? "cuCtxPushCurrent" : "cuDevicePrimaryCtxRetain", .location = where});
}

CurrentContext::~CurrentContext() {
    if (pushed_) {
        CUcontext popped = nullptr;
        const CUresult result = driver_.ctx_pop_current(&popped);
        if (result != CUDA_SUCCESS) log_failure("cuCtxPopCurrent", 0, result);
    }
    if (retained_) {
        const CUresult result = driver_.device_primary_ctx_release(device_);
        if (result != CUDA_SUCCESS) log_failure("cuDevicePrimaryCtxRelease", 0, result);
    }
    if (exchanged_) driver_.thread_exchange_stream_capture_mode(&other_mode_);
}

Stream make_stream(Driver& driver) {
    CUstream stream = nullptr;
    check(driver.stream_create(&stream, CU_STREAM_NON_BLOCKING), driver, {.call = "cuStreamCreate"});
    return {driver, stream};
}

Finished wait_for(Driver& driver, CUstream stream, std::chrono::steady_clock::time_point deadline) {
    Tally& tally = DriverState::of(driver).tally;
    Tally::count(tally.gpu_waits);
    // The driver has no wait with a deadline, so it is asked: at once at first, then at most every 200 us.
    auto pause = std::chrono::microseconds(0);
    for (;;) {
        const CUresult result = driver.stream_query(stream);
        if (result == CUDA_SUCCESS) return Finished::yes;
        if (result != CUDA_ERROR_NOT_READY) raise(result, driver, {.call = "cuStreamQuery"});
        if (std::chrono::steady_clock::now() >= deadline) {
            Tally::count(tally.gpu_waits_timed_out);
            return Finished::no;
        }
        std::this_thread::sleep_for(pause);
        pause = std::min(pause + std::chrono::microseconds(2), std::chrono::microseconds(200));
    }
}

}  // namespace fabricmem::detail
