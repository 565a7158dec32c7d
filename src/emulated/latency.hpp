// SPDX-License-Identifier: Apache-2.0
// What calls took on an H100, and a wait that makes an emulated call take as long.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fabricmem::detail::emulated {

enum class CallCost : std::uint8_t {
    reserve,
    create,
    map,
    set_access,
    export_fabric,
    export_descriptor,
    import_fabric,
    import_descriptor,
    unmap,
    release,
    free,
};

/// Nanoseconds, at factor 1. By size where two sizes were measured (2 MiB and 4 GiB): a straight line through both.
[[nodiscard]] double measured_ns(CallCost cost, std::size_t bytes) noexcept;

/// Lets the scope that it lives in take `factor` times what was measured; asks no clock for factor 0.
class Slowed {
public:
    Slowed(double factor, CallCost cost, std::size_t bytes) noexcept;
    Slowed(const Slowed&) = delete;
    Slowed& operator=(const Slowed&) = delete;
    ~Slowed();

private:
    std::int64_t until_ns_ = 0;  // CLOCK_MONOTONIC
};

}  // namespace fabricmem::detail::emulated
