// SPDX-License-Identifier: Apache-2.0
// What a driver's memories count and charge. Shared by them, since a memory may outlive its table entry for a copy.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fabricmem::detail::emulated {

/// Bytes that may still be taken from one device or NUMA node.
class Budget {
public:
    explicit Budget(std::uint64_t bytes) noexcept : left_(bytes) {}

    [[nodiscard]] bool take(std::uint64_t bytes) noexcept {
        std::uint64_t left = left_.load(std::memory_order_relaxed);
        while (left >= bytes) {
            if (left_.compare_exchange_weak(left, left - bytes, std::memory_order_relaxed)) return true;
        }
        return false;
    }
    [[nodiscard]] std::uint64_t left() const noexcept { return left_.load(std::memory_order_relaxed); }
    void give_back(std::uint64_t bytes) noexcept { left_.fetch_add(bytes, std::memory_order_relaxed); }

private:
    std::atomic<std::uint64_t> left_;
};

struct Ledger {
    std::atomic<std::size_t> allocations{0};
    std::atomic<std::size_t> descriptors{0};
    std::atomic<std::size_t> aliases{0};
};

}  // namespace fabricmem::detail::emulated
