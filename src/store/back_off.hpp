// SPDX-License-Identifier: Apache-2.0
// Pauses that grow: for what can't be waited for, only asked.
#pragma once

#include <algorithm>
#include <chrono>

namespace fabricmem::detail {

class BackOff {
public:
    BackOff(std::chrono::milliseconds first, std::chrono::milliseconds last) noexcept
        : first_(first), last_(std::max(first, last)), next_(first) {}

    /// The pause to make now; the next one is twice as long, up to the last.
    std::chrono::milliseconds next() noexcept {
        const std::chrono::milliseconds now = next_;
        next_ = next_ < last_ / 2 ? next_ * 2 : last_;
        return now;
    }
    void reset() noexcept { next_ = first_; }

private:
    std::chrono::milliseconds first_;
    std::chrono::milliseconds last_;
    std::chrono::milliseconds next_;
};

/// Of a store's wait() where nothing wakes it.
inline constexpr std::chrono::milliseconds kFirstLook{10};
inline constexpr std::chrono::milliseconds kLastLook{500};

}  // namespace fabricmem::detail
