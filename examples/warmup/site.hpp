// SPDX-License-Identifier: Apache-2.0
// Where the ranks run: the real GPUs of this machine, or the nodes of an emulated fabric, which lives here.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <fabricmem/emulated_fabric.hpp>

#include "warmup/options.hpp"

namespace warmup {

/// Where one rank runs.
struct Place {
    std::string node{};  ///< of the scenario; empty: this machine
    int device = 0;      ///< the ordinal there
};

class Site {
public:
    /// Throws fabricmem::Error or std::runtime_error where there is no such driver, scenario or device.
    explicit Site(const Options& options);

    [[nodiscard]] const std::string& driver() const noexcept { return driver_; }  ///< "cuda"
    [[nodiscard]] bool is_emulated() const noexcept { return fabric_ != nullptr; }
    /// "scenario gb200-nvl72 (18 nodes, 72 devices)", "2 devices (NVIDIA H100 80GB HBM3)".
    [[nodiscard]] const std::string& description() const noexcept { return description_; }
    /// What the real driver answered where `auto` did not take it; else empty.
    [[nodiscard]] const std::string& refused() const noexcept { return refused_; }

    /// Round the nodes first, then round their devices, then again.
    [[nodiscard]] const Place& place_of(std::uint32_t rank) const noexcept { return places_[rank % places_.size()]; }
    /// What the rank's process needs in its environment. Valid while this lives.
    [[nodiscard]] std::map<std::string, std::string> environment_of(std::uint32_t rank) const;

private:
    void take_scenario(const Options& options);

    std::string driver_{};
    std::string description_{};
    std::string refused_{};
    std::vector<Place> places_{};  // never empty
    std::shared_ptr<fabricmem::EmulatedFabric> fabric_{};
};

}  // namespace warmup
