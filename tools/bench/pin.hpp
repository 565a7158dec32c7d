// SPDX-License-Identifier: Apache-2.0
// Which CPUs the two processes stay on: moves between CPUs, and between NUMA nodes, are noise.
#pragma once

#include <optional>

#include <fabricmem/driver.hpp>

namespace bench {

struct Cpus {
    int first = 0;
    int second = 0;
};

/// Two CPUs of the NUMA node next to the device that this process may use, no two threads of one core where that can be
/// had. Not the first ones, which are the likeliest to serve interrupts. nullopt: there are no two.
[[nodiscard]] std::optional<Cpus> cpus_near(fabricmem::Driver& driver, int device);

/// The calling thread, and those that it makes from now on. Throws std::system_error.
void pin_to(int cpu);

}  // namespace bench
