// SPDX-License-Identifier: Apache-2.0
// Questions about reservations and mappings.
#include <unistd.h>

#include "measure/measure.hpp"

namespace fabricmem::test {

namespace {

using Handle = CUmemGenericAllocationHandle;

Handle make(Driver& driver, std::size_t bytes, const CUmemAllocationProp& properties = device_memory(kFabric)) {
    Handle handle = 0;
    driver.mem_create(&handle, bytes, &properties, 0);
    return handle;
}

// Two reservations without a gap, by the hint; false where the driver does not follow it.
bool reserve_neighbours(Driver& driver, CUdeviceptr* first, CUdeviceptr* second) {
    CUdeviceptr both = 0;
    if (driver.mem_address_reserve(&both, 2 * kTwoMiB, 0, 0, 0) != CUDA_SUCCESS) return false;
    driver.mem_address_free(both, 2 * kTwoMiB);  // room enough, there
    driver.mem_address_reserve(first, kTwoMiB, 0, both, 0);
    driver.mem_address_reserve(second, kTwoMiB, 0, *first + kTwoMiB, 0);
    return *second == *first + kTwoMiB;
}

void across_reservations(Driver& driver, Answers& answers) {
    CUdeviceptr first = 0;
    CUdeviceptr second = 0;
    const bool are_neighbours = reserve_neighbours(driver, &first, &second);
    answers.say("neighbours can be had", yes_or_no(are_neighbours));
    if (!are_neighbours) return;
    const Handle large = make(driver, 2 * kTwoMiB);
    answers.ask("map across both", [&] { return driver.mem_map(first, 2 * kTwoMiB, 0, large, 0); });
    answers.ask("unmap across both", [&] { return driver.mem_unmap(first, 2 * kTwoMiB); });
    const CUmemAccessDesc access = access_for(kDevice);
    answers.say("map into each", driver.mem_map(first, kTwoMiB, 0, make(driver, kTwoMiB), 0));
    answers.say("map into each ", driver.mem_map(second, kTwoMiB, 0, make(driver, kTwoMiB), 0));
    answers.ask("set-access across both", [&] { return driver.mem_set_access(first, 2 * kTwoMiB, &access, 1); });
    answers.ask("unmap across both ", [&] { return driver.mem_unmap(first, 2 * kTwoMiB); });
    answers.ask("free both at once", [&] { return driver.mem_address_free(first, 2 * kTwoMiB); });
}

void large_reservations(Driver& driver, Answers& answers) {
    const auto reserve = [&](std::size_t bytes, std::size_t alignment) {
        CUdeviceptr address = 0;
        const CUresult result = driver.mem_address_reserve(&address, bytes, alignment, 0, 0);
        if (result == CUDA_SUCCESS) driver.mem_address_free(address, bytes);
        return result;
    };
    for (const int power : {40, 44, 45, 46, 47, 48, 49, 56, 63}) {
        answers.ask("2^" + std::to_string(power) + " bytes", [&] { return reserve(std::size_t{1} << power, 0); });
    }
    for (const int power : {0, 12, 21, 22, 39, 46, 47, 48, 63}) {
        answers.ask("alignment 2^" + std::to_string(power), [&] { return reserve(kTwoMiB, std::size_t{1} << power); });
    }
}

void hints(Driver& driver, Answers& answers) {
    CUdeviceptr taken = 0;
    driver.mem_address_reserve(&taken, 4 * kTwoMiB, 0, 0, 0);
    const auto reserve = [&](const std::string& what, CUdeviceptr hint) {
        CUdeviceptr address = 0;
        answers.ask(what, [&] { return driver.mem_address_reserve(&address, kTwoMiB, 0, hint, 0); });
        answers.say(what + ": followed", yes_or_no(address == hint));
        if (address != 0) driver.mem_address_free(address, kTwoMiB);
    };
    reserve("a hint that is taken", taken);
    driver.mem_address_free(taken, 4 * kTwoMiB);
    reserve("a free hint", taken + kTwoMiB);
    reserve("a hint off by 4096", taken + 4096);
    reserve("a hint of 4096", 4096);
}

void side_by_side(Driver& driver, Answers& answers) {
    const CurrentContext context(driver);
    CUdeviceptr address = 0;
    driver.mem_address_reserve(&address, 4 * kTwoMiB, 0, 0, 0);
    driver.mem_map(address, kTwoMiB, 0, make(driver, kTwoMiB), 0);
    driver.mem_map(address + kTwoMiB, kTwoMiB, 0, make(driver, kTwoMiB), 0);
    driver.mem_map(address + 2 * kTwoMiB, kTwoMiB, 0, make(driver, kTwoMiB, host_memory(kFabric)), 0);
    const auto set = [&](std::size_t granules, int kind) {
        const CUmemAccessDesc access = access_for(kind);
        return driver.mem_set_access(address, granules * kTwoMiB, &access, 1);
    };
    answers.ask("host access for device and host memory at once", [&] { return set(3, kHostNuma); });
    answers.ask("set-access with a gap behind", [&] { return set(4, kDevice); });
    answers.ask("set-access of all three", [&] { return set(3, kDevice); });
    const CUdeviceptr seam = address + kTwoMiB - 32;
    std::vector<char> bytes(64);
    answers.ask("copy to across two", [&] { return driver.memcpy_htod(seam, bytes.data(), 64); });
    answers.ask("copy from across two", [&] { return driver.memcpy_dtoh(bytes.data(), seam, 64); });
    answers.ask("memset across two", [&] { return driver.memset_d8(seam, 1, 64); });
    answers.ask("copy across device and host memory",
                [&] { return driver.memcpy_htod(seam + kTwoMiB, bytes.data(), 64); });
    answers.ask("unmap of two and the gap", [&] { return driver.mem_unmap(address + 2 * kTwoMiB, 2 * kTwoMiB); });
    answers.ask("unmap of a mapping and a half", [&] { return driver.mem_unmap(address, kTwoMiB + kTwoMiB / 2); });
    answers.ask("unmap of the whole reservation", [&] { return driver.mem_unmap(address, 4 * kTwoMiB); });
    answers.ask("unmap of what was never reserved", [&] { return driver.mem_unmap(CUdeviceptr{1} << 44, kTwoMiB); });
    answers.ask("unmap of 0 bytes", [&] { return driver.mem_unmap(address, 0); });
}

void ranges(Driver& driver, Answers& answers) {
    const CurrentContext context(driver);
    const auto range = [&](const std::string& what, CUdeviceptr start, std::size_t offset) {
        CUdeviceptr base = 99;
        std::size_t bytes = 99;
        answers.ask(what, [&] { return driver.mem_get_address_range(&base, &bytes, start + offset); });
        answers.say(what + ": base", base == start ? "start" : std::to_string(base));
        answers.say(what + ": bytes", std::to_string(bytes));
    };
    CUdeviceptr reserved = 0;
    driver.mem_address_reserve(&reserved, kTwoMiB, 0, 0, 0);
    range("reserved", reserved, 4096);
    const Mapped bare(driver, device_memory(kFabric), {});
    range("mapped without access", bare.address(), 4096);
    CUdeviceptr allocated = 0;
    driver.mem_alloc(&allocated, 4096);
    range("cuMemAlloc memory", allocated, 100);
    void* pinned = nullptr;
    driver.mem_alloc_host(&pinned, 5000);
    range("cuMemAllocHost memory", reinterpret_cast<CUdeviceptr>(pinned), 100);
    range("address 0", 0, 0);
    answers.ask("nothing wanted", [&] { return driver.mem_get_address_range(nullptr, nullptr, allocated); });
}

std::string dma_buf(Driver& driver, CUdeviceptr address, std::size_t bytes, unsigned long long flags = 0) {
    int descriptor = -1;
    const CUresult result = driver.mem_get_handle_for_address_range(&descriptor, address, bytes,
                                                                    CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, flags);
    std::string text = std::to_string(static_cast<int>(result));
    if (result == CUDA_SUCCESS) close_descriptor(descriptor);
    return text;
}

void dma_bufs(Driver& driver, Answers& answers) {
    const Mapped rdma(driver, memory_at(kDevice, 0, kFabric, true), {access_for(kDevice)});
    answers.ask("without a context", [&] { return dma_buf(driver, rdma.address(), kTwoMiB); });
    const CurrentContext context(driver);
    answers.ask("device, RDMA", [&] { return dma_buf(driver, rdma.address(), kTwoMiB); });
    answers.ask("a part of it", [&] { return dma_buf(driver, rdma.address() + 65536, 65536); });
    answers.ask("4096 bytes of it", [&] { return dma_buf(driver, rdma.address() + 4096, 4096); });
    answers.ask("100 bytes of it", [&] { return dma_buf(driver, rdma.address(), 100); });
    answers.ask("no bytes", [&] { return dma_buf(driver, rdma.address(), 0); });
    answers.ask("beyond its end", [&] { return dma_buf(driver, rdma.address(), 2 * kTwoMiB); });
    answers.ask("with flags 1", [&] { return dma_buf(driver, rdma.address(), kTwoMiB, 1); });
    answers.ask("with flags 2", [&] { return dma_buf(driver, rdma.address(), kTwoMiB, 2); });
    const Mapped plain(driver, device_memory(kFabric), {access_for(kDevice)});
    answers.ask("device, no RDMA", [&] { return dma_buf(driver, plain.address(), kTwoMiB); });
    const Mapped bare(driver, memory_at(kDevice, 0, kFabric, true), {});
    answers.ask("device, RDMA, no access set", [&] { return dma_buf(driver, bare.address(), kTwoMiB); });
    const Mapped host(driver, host_memory(kFabric), {access_for(kDevice)});
    answers.ask("host", [&] { return dma_buf(driver, host.address(), kTwoMiB); });
    const Mapped host_rdma(driver, memory_at(kHostNuma, 0, kFabric, true), {access_for(kDevice)});
    answers.ask("host, RDMA", [&] { return dma_buf(driver, host_rdma.address(), kTwoMiB); });
    CUdeviceptr allocated = 0;
    driver.mem_alloc(&allocated, kTwoMiB);
    answers.ask("cuMemAlloc memory", [&] { return dma_buf(driver, allocated, kTwoMiB); });
    CUdeviceptr reserved = 0;
    driver.mem_address_reserve(&reserved, kTwoMiB, 0, 0, 0);
    answers.ask("reserved", [&] { return dma_buf(driver, reserved, kTwoMiB); });
    int on_stack = 0;
    answers.ask("stack", [&] { return dma_buf(driver, reinterpret_cast<CUdeviceptr>(&on_stack), 4096); });
}

}  // namespace

Questions questions_of_addresses() {
    return {{"two reservations side by side", across_reservations},
            {"large reservations and alignments", large_reservations},
            {"hints", hints},
            {"mappings side by side", side_by_side},
            {"address ranges", ranges},
            {"dma-bufs", dma_bufs}};
}

}  // namespace fabricmem::test
