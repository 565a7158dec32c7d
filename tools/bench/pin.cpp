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

/// Empty where the file can't be read.
CpuList cpus_in(const std::string& path) {
    std::ifstream file(path);
    std::string text;
    std::getline(file, text);
    return cpus_of(text);
}

bool is_in(const CpuList& cpus, int cpu) { return std::find(cpus.begin(), cpus.end(), cpu) != cpus.end(); }

/// Core after core.
CpuList by_core(const CpuList& cpus) {
    CpuList ordered;
    for (const int cpu : cpus) {
        if (is_in(ordered, cpu)) continue;
        ordered.push_back(cpu);
        for (const int sibling :
             cpus_in(examples::formatted("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu))) {
            if (is_in(cpus, sibling) && !is_in(ordered, sibling)) ordered.push_back(sibling);
        }
    }
    return ordered;
}

/// Among those that are given, which are in order.
bool is_first_of_core(int cpu, const CpuList& cpus) {
    const CpuList siblings =
        cpus_in(examples::formatted("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu));
    return std::none_of(siblings.begin(), siblings.end(),
                        [&](int sibling) { return sibling < cpu && is_in(cpus, sibling); });
}

}  // namespace

CpuList allowed_cpus() {
    CpuList cpus;
    cpu_set_t set;
    CPU_ZERO(&set);
    if (::sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (CPU_ISSET(static_cast<std::size_t>(cpu), &set)) cpus.push_back(cpu);
    }
    return cpus;
}

std::size_t count_cores(const CpuList& cpus) {
    return static_cast<std::size_t>(
        std::count_if(cpus.begin(), cpus.end(), [&](int cpu) { return is_first_of_core(cpu, cpus); }));
}

CpuList cores_first(const CpuList& cpus) {
    CpuList ordered = cpus;
    std::stable_partition(ordered.begin(), ordered.end(), [&](int cpu) { return is_first_of_core(cpu, cpus); });
    return ordered;
}

std::optional<Cpus> cpus_near(fabricmem::Driver& driver, int device) {
    int node = 0;
    const CUdevice handle = examples::device_of(driver, device);
    if (driver.device_get_attribute(&node, CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID, handle) != CUDA_SUCCESS) node = 0;
    CpuList cpus = allowed_cpus();
    const CpuList near = cpus_in(examples::formatted("/sys/devices/system/node/node{}/cpulist", std::max(node, 0)));
    CpuList both;
    std::copy_if(cpus.begin(), cpus.end(), std::back_inserter(both), [&](int cpu) { return is_in(near, cpu); });
    if (both.size() >= 2) cpus = std::move(both);
    if (cpus.size() < 2) return std::nullopt;
    cpus = by_core(cpus);
    auto middle = cpus.begin() + static_cast<std::ptrdiff_t>(cpus.size() / 2);
    // The threads of a core stay together.
    const CpuList core =
        cpus_in(examples::formatted("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", *middle));
    const auto start = std::find_if(cpus.begin(), middle, [&](int cpu) { return is_in(core, cpu); });
    if (start != cpus.begin()) middle = start;
    Cpus result{.first = CpuList(middle, cpus.end()), .second = CpuList(cpus.begin(), middle)};
    std::sort(result.first.begin(), result.first.end());
    std::sort(result.second.begin(), result.second.end());
    return result;
}

std::string to_text(const CpuList& cpus) {
    std::string text;
    for (std::size_t i = 0; i < cpus.size();) {
        std::size_t last = i;
        while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
        if (!text.empty()) text += ',';
        text += last == i ? std::to_string(cpus[i]) : examples::formatted("{}-{}", cpus[i], cpus[last]);
        i = last + 1;
    }
    return text;
}

CpuList cpus_of(const std::string& text) {
    CpuList cpus;
    std::istringstream ranges(text);
    for (std::string range; std::getline(ranges, range, ',');) {
        std::istringstream words(range);
        int from = 0;
        if (!(words >> from)) break;
        int to = from;
        if (words.get() == '-') words >> to;
        for (int cpu = from; cpu <= to; ++cpu) cpus.push_back(cpu);
    }
    return cpus;
}

void pin_to(const CpuList& cpus) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const int cpu : cpus) {
        if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(static_cast<std::size_t>(cpu), &set);
    }
    if (::sched_setaffinity(0, sizeof set, &set) != 0) {
        throw std::system_error(errno, std::generic_category(),
                                examples::formatted("pinning to CPUs {}", to_text(cpus)));
    }
}

}  // namespace bench
