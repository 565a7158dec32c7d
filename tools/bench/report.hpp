// SPDX-License-Identifier: Apache-2.0
// What was measured where, as a table or as JSON.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <fabricmem/driver.hpp>

#include "measure.hpp"
#include "options.hpp"
#include "pin.hpp"

namespace bench {

/// On what it was measured.
struct Setting {
    std::string date;            ///< UTC
    std::string driver;          ///< "cuda"
    std::string driver_version;  ///< "CUDA 13.0, kernel module 580.159.04"
    std::string device;
    std::optional<Cpus> cpus;  ///< that the processes stay on
    std::string caveat;        ///< empty: none
    std::string refused;       ///< what the real driver answered where `auto` did not take it; else empty
};

[[nodiscard]] Setting setting_of(fabricmem::Driver& driver, int device, std::optional<Cpus> cpus, std::string refused);

void print_setting(const Setting& setting, const Options& options);
void print_row(const Comparison& comparison);
void print_json(const Setting& setting, const Options& options, const std::vector<Comparison>& comparisons);

}  // namespace bench
