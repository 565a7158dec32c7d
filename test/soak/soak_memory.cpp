// SPDX-License-Identifier: Apache-2.0
// Words, and /proc/self.
#include "soak/soak_memory.hpp"

#include <dirent.h>
#include <unistd.h>

#include <fstream>

#include <fabricmem/emulated_driver.hpp>

#include "support/driver_kit.hpp"

namespace fabricmem::soak {

namespace {

std::uint64_t* cpu_word(const MappedBuffer& buffer, std::uint64_t slot) {
    return static_cast<std::uint64_t*>(buffer.address()) + slot;
}

CUdeviceptr address_of(const MappedBuffer& buffer, std::uint64_t slot) {
    return static_cast<CUdeviceptr>(reinterpret_cast<std::uintptr_t>(cpu_word(buffer, slot)));
}

void require(CUresult result, const char* call) {
    if (result != CUDA_SUCCESS) throw Broken(std::string(call) + " answers " + std::to_string(result));
}

std::size_t count_descriptors() {
    DIR* const directory = ::opendir("/proc/self/fd");
    if (directory == nullptr) return 0;
    std::size_t count = 0;
    while (const dirent* const entry = ::readdir(directory)) count += entry->d_name[0] != '.' ? 1 : 0;
    ::closedir(directory);
    return count - 1;  // its own
}

// Of emulated memory. Not /proc/self/maps, which user-mode emulators invent.
std::size_t count_mappings() {
    std::ifstream maps("/proc/self/task/" + std::to_string(::getpid()) + "/maps");
    std::size_t count = 0;
    for (std::string line; std::getline(maps, line);) {
        if (line.find("memfd:fabricmem") != std::string::npos) ++count;
    }
    return count;
}

}  // namespace

void store(Driver& driver, const MappedBuffer& buffer, std::uint64_t slot, std::uint64_t value) {
    if (buffer.access().host) {
        __atomic_store_n(cpu_word(buffer, slot), value, __ATOMIC_RELEASE);
    } else {
        require(driver.memcpy_htod(address_of(buffer, slot), &value, sizeof value), "cuMemcpyHtoD");
    }
}

std::uint64_t load(Driver& driver, const MappedBuffer& buffer, std::uint64_t slot) {
    if (buffer.access().host) return __atomic_load_n(cpu_word(buffer, slot), __ATOMIC_ACQUIRE);
    std::uint64_t value = 0;
    require(driver.memcpy_dtoh(&value, address_of(buffer, slot), sizeof value), "cuMemcpyDtoH");
    return value;
}

void store_pattern(Driver& driver, const MappedBuffer& buffer, std::uint64_t pattern) {
    store(driver, buffer, kPatternSlot, pattern);
    store(driver, buffer, kLastSlot, ~pattern);
}

void check_pattern(Driver& driver, const MappedBuffer& buffer, std::uint64_t pattern) {
    const std::uint64_t first = load(driver, buffer, kPatternSlot);
    const std::uint64_t last = load(driver, buffer, kLastSlot);
    if (first == pattern && last == ~pattern) return;
    throw Broken("the exporter's words are " + std::to_string(first) + " and " + std::to_string(last) + ", not " +
                 std::to_string(pattern) + " and " + std::to_string(~pattern));
}

Usage usage_of_this_process(const Driver& driver) {
    Usage usage;
    usage.descriptors = count_descriptors();
    usage.mappings = count_mappings();
    if (driver.name() == "emulated") {
        const EmulatedCounts counts = emulated_counts(driver);
        usage.held = counts.allocations + counts.handles + counts.ranges + counts.mappings + counts.descriptors +
                     counts.aliases + counts.streams;
    }
    std::ifstream status("/proc/self/status");
    for (std::string name; status >> name;) {
        if (name == "RssAnon:") status >> usage.private_kib;
        if (name == "RssShmem:") status >> usage.shared_kib;
    }
    return usage;
}

std::uint64_t room_on_device(Driver& driver) {
    constexpr std::uint64_t kStep = std::uint64_t{64} << 20;
    std::size_t total = 0;
    require(driver.device_total_mem(&total, 0), "cuDeviceTotalMem");
    const CUmemAllocationProp wanted = test::device_memory(test::kFabric);
    std::uint64_t fits = 0;
    std::uint64_t too_much = total / kStep + 1;
    while (too_much - fits > 1) {
        const std::uint64_t middle = (fits + too_much) / 2;
        CUmemGenericAllocationHandle handle = 0;
        if (driver.mem_create(&handle, middle * kStep, &wanted, 0) == CUDA_SUCCESS) {
            require(driver.mem_release(handle), "cuMemRelease");
            fits = middle;
        } else {
            too_much = middle;
        }
    }
    return fits * kStep;
}

}  // namespace fabricmem::soak
