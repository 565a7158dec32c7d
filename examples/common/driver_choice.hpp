// SPDX-License-Identifier: Apache-2.0
// Which driver a program runs on: the real one, the emulated one, or the real one where it has fabric memory.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <fabricmem/driver.hpp>
#include <fabricmem/types.hpp>

namespace examples {

enum class DriverChoice : std::uint8_t { automatic, cuda, emulated };

[[nodiscard]] std::string_view to_string(DriverChoice driver) noexcept;

/// Throws WrongOption.
[[nodiscard]] DriverChoice driver_choice_of(std::string_view text);

struct ChosenDriver {
    std::shared_ptr<fabricmem::Driver> driver;
    std::string place{};    ///< of an emulated fabric: "scenario two-racks, node rack0-node1"; else empty
    std::string refused{};  ///< what the real driver answered, where it was to be taken if it could and could not
};

/// Throws fabricmem::Error.
[[nodiscard]] ChosenDriver choose_driver(DriverChoice choice, const fabricmem::Location& location);

/// Throws std::runtime_error that names the call and what the driver said, unless that was success.
void check_call(fabricmem::Driver& driver, CUresult result, const char* call);

[[nodiscard]] CUdevice device_of(fabricmem::Driver& driver, int ordinal);

[[nodiscard]] std::string device_name(fabricmem::Driver& driver, int ordinal);

}  // namespace examples
