// SPDX-License-Identifier: Apache-2.0
// What the library learns through a driver once and keeps: each Driver carries one of these.
#pragma once

namespace fabricmem {

class Driver;

namespace detail {

class DriverState {
public:
    explicit DriverState(Driver& driver) noexcept : driver_(driver) {}

private:
    [[maybe_unused]] Driver& driver_;
};

}  // namespace detail
}  // namespace fabricmem
