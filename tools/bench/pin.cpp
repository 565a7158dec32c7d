// SPDX-License-Identifier: Apache-2.0
// sched_setaffinity, and what /sys says of nodes and cores.
#include "pin.hpp"

#include <errno.h>
#include <sched.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "common/text.hpp"
#include "pingpong_gpu.hpp"

namespace bench {
namespace {

/// A list as "0-3,8": the kernel's way to name CPUs. Empty where the file can't be read.
std::vector<int> cpus_in(const std::string& path) {
    std::vector<int> cpus;
    std::ifstream file(path);
    for (std::string range; std::getline(file, range, ',');) {
        std::istringstream words(range);
        int from = 0;
        if (!(words >> from)) break;
        int to = from;
        if (words.get() == '-') words >> to;
        for (int cpu = from; cpu <= to; ++cpu) cpus.push_back(cpu);
    }
    return cpus;
}

std::vector<int> allowed_cpus() {
    std::vector<int> cpus;
    cpu_set_t set;
    CPU_ZERO(&set);
    if (::sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (CPU_ISSET(static_cast<std::size_t>(cpu), &set)) cpus.push_back(cpu);
    }
    return cpus;
}

bool is_in(const std::vector<int>& cpus, int cpu) { return std::find(cpus.begin(), cpus.end(), cpu) != cpus.end(); }

}  // namespace

std::optional<Cpus> cpus_near(fabricmem::Driver& driver, int device) {
    int node = 0;
    const CUdevice handle = examples::device_of(driver, device);
    if (driver.device_get_attribute(&node, CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID, handle) != CUDA_SUCCESS) node = 0;
    std::vector<int> cpus = allowed_cpus();
    const std::vector<int> near =
        cpus_in(examples::formatted("/sys/devices/system/node/node{}/cpulist", std::max(node, 0)));
    std::vector<int> both;
    std::copy_if(cpus.begin(), cpus.end(), std::back_inserter(both), [&](int cpu) { return is_in(near, cpu); });
    if (both.size() >= 2) cpus = std::move(both);
    if (cpus.size() < 2) return std::nullopt;
    const int first = cpus.back();
    const std::vector<int> core =
        cpus_in(examples::formatted("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", first));
    const auto other = std::find_if(cpus.rbegin(), cpus.rend(), [&](int cpu) { return !is_in(core, cpu); });
    return Cpus{.first = first, .second = other != cpus.rend() && *other != first ? *other : cpus[cpus.size() - 2]};
}

void pin_to(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<std::size_t>(cpu), &set);
    if (::sched_setaffinity(0, sizeof set, &set) != 0) {
        throw std::system_error(errno, std::generic_category(), examples::formatted("pinning to CPU {}", cpu));
    }
}

}  // namespace bench
