// SPDX-License-Identifier: Apache-2.0
// Which CPUs the two processes stay on: moves between CPUs, and between NUMA nodes, are noise.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <fabricmem/driver.hpp>

namespace bench {

using CpuList = std::vector<int>;

struct Cpus {
    CpuList first;
    CpuList second;
};

/// The CPUs of the NUMA node next to the device that this process may use, one half for each process; the threads of
/// one core are in one half where there are two cores. Several for each, since the driver has threads of its own, and
/// makes more when it copies: on the CPU of the one that spins they cost it 20 us a round trip at times (H100,
/// 580.159.04). nullopt: there are no two.
[[nodiscard]] std::optional<Cpus> cpus_near(fabricmem::Driver& driver, int device);

/// That the calling thread may use.
[[nodiscard]] CpuList allowed_cpus();

/// How many cores they are: threads of one core count once. Each CPU counts where the system does not say.
[[nodiscard]] std::size_t count_cores(const CpuList& cpus);

/// The same CPUs, one of each core first: so many threads as there are cores get one each.
[[nodiscard]] CpuList cores_first(const CpuList& cpus);

/// As the kernel writes it: "0-3,8".
[[nodiscard]] std::string to_text(const CpuList& cpus);
/// The other way round. Stops at what is no number.
[[nodiscard]] CpuList cpus_of(const std::string& text);

/// The calling thread, and those that it makes from now on. Throws std::system_error.
void pin_to(const CpuList& cpus);

}  // namespace bench
