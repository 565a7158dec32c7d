// SPDX-License-Identifier: Apache-2.0
// Owners of one driver resource each: an address range, an allocation, a mapping. They borrow the driver.
#pragma once

#include <cstdint>
#include <utility>

#include <fabricmem/driver.hpp>

#include "driver/check.hpp"

namespace fabricmem::detail {

/// Owns one Traits::Value and gives it back once. Empty when moved from.
template <typename Traits>
class UniqueHandle {
public:
    using Value = typename Traits::Value;

    UniqueHandle() noexcept = default;
    UniqueHandle(Driver& driver, Value value) noexcept : driver_(&driver), value_(value) {}
    UniqueHandle(UniqueHandle&& other) noexcept
        : driver_(std::exchange(other.driver_, nullptr)), value_(std::exchange(other.value_, Value{})) {}
    UniqueHandle& operator=(UniqueHandle&& other) noexcept {
        if (this != &other) {
            destroy();
            driver_ = std::exchange(other.driver_, nullptr);
            value_ = std::exchange(other.value_, Value{});
        }
        return *this;
    }
    UniqueHandle(const UniqueHandle&) = delete;
    UniqueHandle& operator=(const UniqueHandle&) = delete;
    ~UniqueHandle() { destroy(); }

    [[nodiscard]] const Value& get() const noexcept { return value_; }
    [[nodiscard]] explicit operator bool() const noexcept { return driver_ != nullptr; }

    /// Gives the resource back now. Empty afterwards, whatever the answer: a second try would be made on a handle that
    /// the driver may have given to somebody else by then.
    CUresult close() noexcept {
        if (driver_ == nullptr) return CUDA_SUCCESS;
        const CUresult result = Traits::close(*driver_, value_);
        abandon();
        // At exit the driver is gone before the objects are, and has taken everything with it.
        return result == CUDA_ERROR_DEINITIALIZED ? CUDA_SUCCESS : result;
    }

    /// Forgets the resource without giving it back.
    void abandon() noexcept {
        driver_ = nullptr;
        value_ = Value{};
    }

private:
    void destroy() noexcept {
        const std::uint64_t bytes = Traits::bytes(value_);
        const CUresult result = close();
        if (result != CUDA_SUCCESS) log_failure(Traits::kCloseCall, bytes, result);
    }

    Driver* driver_ = nullptr;
    Value value_{};
};

struct Range {
    CUdeviceptr address = 0;
    std::uint64_t bytes = 0;
};

struct AddressRangeTraits {
    using Value = Range;
    static constexpr const char* kCloseCall = "cuMemAddressFree";
    static std::uint64_t bytes(const Range& range) noexcept { return range.bytes; }
    static CUresult close(Driver& driver, const Range& range) noexcept {
        return driver.mem_address_free(range.address, range.bytes);
    }
};

struct AllocationTraits {
    using Value = CUmemGenericAllocationHandle;
    static constexpr const char* kCloseCall = "cuMemRelease";
    static std::uint64_t bytes(Value) noexcept { return 0; }
    static CUresult close(Driver& driver, Value handle) noexcept { return driver.mem_release(handle); }
};

struct MappingTraits {
    using Value = Range;
    static constexpr const char* kCloseCall = "cuMemUnmap";
    static std::uint64_t bytes(const Range& range) noexcept { return range.bytes; }
    static CUresult close(Driver& driver, const Range& range) noexcept {
        return driver.mem_unmap(range.address, range.bytes);
    }
};

using AddressRange = UniqueHandle<AddressRangeTraits>;
using Allocation = UniqueHandle<AllocationTraits>;
using Mapping = UniqueHandle<MappingTraits>;

}  // namespace fabricmem::detail
