// SPDX-License-Identifier: Apache-2.0
// What a side has before it meets its peer: a driver, a context, memory of its own.
#pragma once

#include <memory>
#include <string>

#include <fabricmem/driver.hpp>
#include <fabricmem/fabricmem.hpp>

#include "pingpong_gpu.hpp"
#include "pingpong_loop.hpp"
#include "pingpong_options.hpp"
#include "pingpong_report.hpp"

namespace pingpong {

[[nodiscard]] fabricmem::Location location_of(Place place, int device) noexcept;

/// The addresses of a side's own memory and its peer's.
[[nodiscard]] Memory memory_of(const fabricmem::FabricBuffer& own, const fabricmem::ImportedFabricBuffer& peer);

/// In the order of making: the buffer goes first, the driver last.
class Side {
public:
    explicit Side(const Options& options);

    [[nodiscard]] const std::shared_ptr<fabricmem::Driver>& driver() const noexcept { return chosen_.driver; }
    [[nodiscard]] const fabricmem::FabricBuffer& memory() const noexcept { return memory_; }
    [[nodiscard]] Introduction introduction() const;

private:
    int device_;
    ChosenDriver chosen_;
    std::unique_ptr<CurrentContext> context_;  // none for Mode::cpu, which asks nothing of the GPU
    fabricmem::FabricBuffer memory_;
};

}  // namespace pingpong
