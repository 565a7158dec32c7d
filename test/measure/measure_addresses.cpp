// SPDX-License-Identifier: Apache-2.0
// Questions about reservations, mappings, and what the driver tells of an address.
#include <unistd.h>

#include <cstring>
#include <memory>

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

constexpr int kFirstAttribute = 1;
constexpr int kLastAttribute = 21;
constexpr std::size_t kRoom = 64;  // the widest is 16 bytes

// The code, how many bytes were written, and the value: in words where it is an address or a number of no meaning.
std::string attribute_text(const std::function<CUresult(void*)>& get, CUdeviceptr address, CUdeviceptr base) {
    unsigned char once[kRoom];
    unsigned char twice[kRoom];
    std::memset(once, 0xa5, kRoom);
    std::memset(twice, 0x5a, kRoom);
    const CUresult result = get(once);
    get(twice);
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < kRoom; ++i) {
        if (once[i] != 0xa5 || twice[i] != 0x5a) bytes = i + 1;
    }
    std::string text = std::to_string(static_cast<int>(result)) + " " + std::to_string(bytes) + "B";
    if (bytes == 0) return text;
    std::uint64_t value = 0;
    std::memcpy(&value, once, bytes < 8 ? bytes : 8);
    if (bytes >= 8 && value == address) return text + " address";
    if (bytes >= 8 && value == base) return text + " base";
    if (bytes < 8 && value > 0x7fffffff) return text + " " + std::to_string(static_cast<std::int32_t>(value));
    return text + (value > (std::uint64_t{1} << 30) ? " large" : " " + std::to_string(value));
}

// BUFFER_ID and MEMORY_BLOCK_ID count; whether they are there is all that can be told.
bool is_a_count(int attribute) { return attribute == CU_POINTER_ATTRIBUTE_BUFFER_ID || attribute == 21; }

void pointer_attributes(Driver& driver, Answers& answers, CUdeviceptr base, std::size_t offset) {
    const CUdeviceptr address = base + offset;
    for (int number = kFirstAttribute; number <= kLastAttribute; ++number) {
        const auto attribute = static_cast<CUpointer_attribute>(number);
        if (is_a_count(number)) {
            unsigned long long value = 0;
            const CUresult result = driver.pointer_get_attribute(&value, attribute, address);
            answers.say(std::to_string(number),
                        std::to_string(static_cast<int>(result)) + (value != 0 ? " some" : " 0"));
            continue;
        }
        answers.ask(std::to_string(number), [&] {
            return attribute_text([&](void* value) { return driver.pointer_get_attribute(value, attribute, address); },
                                  address, base);
        });
        answers.ask(std::to_string(number) + " by the plural", [&] {
            return attribute_text(
                [&](void* value) {
                    auto asked = attribute;
                    return driver.pointer_get_attributes(1, &asked, &value, address);
                },
                address, base);
        });
    }
}

Question pointer_question(const std::string& name, const std::function<CUdeviceptr(Driver&)>& make_memory) {
    return {"pointer attributes of " + name, [make_memory](Driver& driver, Answers& answers) {
                const CurrentContext context(driver);
                pointer_attributes(driver, answers, make_memory(driver), 64);
            }};
}

// Memory that stays until the process ends; kept where a leak checker sees that it is meant.
CUdeviceptr lasting(Mapped* memory) {
    static auto& kept = *new std::vector<Mapped*>;  // never destroyed
    kept.push_back(memory);
    return memory->address();
}
CUdeviceptr lasting(Driver& driver, const CUmemAllocationProp& properties, const std::vector<CUmemAccessDesc>& access) {
    return lasting(new Mapped(driver, properties, access));
}

Questions pointer_questions() {
    const auto imported = [](Driver& driver) {
        FabricBytes bytes{};
        Handle handle = 0;
        (void)export_fabric(driver, make(driver, kTwoMiB), &bytes);
        (void)import_fabric(driver, bytes, &handle);
        return lasting(new Mapped(driver, handle, {access_for(kDevice)}));
    };
    const auto reserved = [](Driver& driver) {
        CUdeviceptr address = 0;
        driver.mem_address_reserve(&address, kTwoMiB, 0, 0, 0);
        return address;
    };
    const auto allocated = [](Driver& driver) {
        CUdeviceptr address = 0;
        driver.mem_alloc(&address, 4096);
        return address;
    };
    const auto pinned = [](Driver& driver) {
        void* address = nullptr;
        driver.mem_alloc_host(&address, 4096);
        return reinterpret_cast<CUdeviceptr>(address);
    };
    const auto heap = [](Driver&) {
        static const auto bytes = std::make_unique<char[]>(4096);
        return reinterpret_cast<CUdeviceptr>(bytes.get());
    };
    const auto device = [](Driver& driver) {
        return lasting(driver, memory_at(kDevice, 0, kFabric, true), {access_for(kDevice)});
    };
    const auto read = [](Driver& driver) { return lasting(driver, device_memory(kFabric), {access_for(kDevice, 1)}); };
    const auto bare = [](Driver& driver) { return lasting(driver, device_memory(kFabric), {}); };
    const auto host = [](Driver& driver) {
        return lasting(driver, host_memory(kFabric), {access_for(kDevice), access_for(kHostNuma)});
    };
    const auto host_for_device = [](Driver& driver) {
        return lasting(driver, host_memory(kFabric), {access_for(kDevice)});
    };
    return {pointer_question("device memory", device),
            pointer_question("device memory to be read", read),
            pointer_question("device memory without access", bare),
            pointer_question("an import", imported),
            pointer_question("host memory", host),
            pointer_question("host memory for the device alone", host_for_device),
            pointer_question("cuMemAlloc memory", allocated),
            pointer_question("cuMemAllocHost memory", pinned),
            pointer_question("a reservation", reserved),
            pointer_question("the heap", heap)};
}

}  // namespace

Questions questions_of_addresses() {
    Questions questions = {{"two reservations side by side", across_reservations},
                           {"large reservations and alignments", large_reservations},
                           {"hints", hints},
                           {"mappings side by side", side_by_side},
                           {"address ranges", ranges},
                           {"dma-bufs", dma_bufs}};
    for (Question& question : pointer_questions()) questions.push_back(std::move(question));
    return questions;
}

}  // namespace fabricmem::test
