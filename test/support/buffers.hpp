// SPDX-License-Identifier: Apache-2.0
// What tests of buffers need around them: a context, bytes read back, a log that is caught.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/driver.hpp>
#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/log.hpp>

#include "support/test.hpp"

namespace fabricmem::test {

inline constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

inline CUdeviceptr pointer(const void* address) {
    return static_cast<CUdeviceptr>(reinterpret_cast<std::uintptr_t>(address));
}
inline CUdeviceptr pointer(const MappedBuffer& buffer) { return pointer(buffer.address()); }

/// A device's primary context, current in this thread for the scope.
class PrimaryContext {
public:
    PrimaryContext(std::shared_ptr<Driver> driver, int ordinal) : driver_(std::move(driver)) {
        REQUIRE(driver_->device_get(&device_, ordinal) == CUDA_SUCCESS);
        CUcontext context = nullptr;
        REQUIRE(driver_->device_primary_ctx_retain(&context, device_) == CUDA_SUCCESS);
        REQUIRE(driver_->ctx_push_current(context) == CUDA_SUCCESS);
    }
    PrimaryContext(const PrimaryContext&) = delete;
    PrimaryContext& operator=(const PrimaryContext&) = delete;
    ~PrimaryContext() {
        CUcontext popped = nullptr;
        driver_->ctx_pop_current(&popped);
        driver_->device_primary_ctx_release(device_);
    }

private:
    std::shared_ptr<Driver> driver_;
    CUdevice device_ = 0;
};

/// The buffer's bytes by a copy; needs a current context.
inline std::vector<unsigned char> read_back(Driver& driver, const MappedBuffer& buffer) {
    std::vector<unsigned char> bytes(buffer.bytes(), 0xee);
    REQUIRE(driver.memcpy_dtoh(bytes.data(), pointer(buffer), bytes.size()) == CUDA_SUCCESS);
    return bytes;
}

inline std::ptrdiff_t count(const std::vector<std::string>& calls, std::string_view name) {
    return std::count(calls.begin(), calls.end(), name);
}

/// Catches what the library logs, from `level` up, for the scope.
class CapturedLog {
public:
    explicit CapturedLog(LogLevel level = LogLevel::warning) {
        set_log_level(level);
        set_log_sink([text = text_](LogLevel, std::string_view line) {
            const std::lock_guard lock(text->mutex);
            text->lines += std::string(line) + '\n';
        });
    }
    CapturedLog(const CapturedLog&) = delete;
    CapturedLog& operator=(const CapturedLog&) = delete;
    ~CapturedLog() {
        set_log_sink({});
        set_log_level(LogLevel::warning);
    }
    [[nodiscard]] std::string text() const {
        const std::lock_guard lock(text_->mutex);
        return text_->lines;
    }

private:
    struct Text {
        std::mutex mutex;
        std::string lines;
    };
    std::shared_ptr<Text> text_ = std::make_shared<Text>();
};

/// Drops what the library logs: for tests that make it fail on purpose.
class QuietLog {
public:
    QuietLog() { set_log_level(LogLevel::off); }
    QuietLog(const QuietLog&) = delete;
    QuietLog& operator=(const QuietLog&) = delete;
    ~QuietLog() { set_log_level(LogLevel::warning); }
};

}  // namespace fabricmem::test
