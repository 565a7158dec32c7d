// SPDX-License-Identifier: Apache-2.0
// Questions about what the driver tells of an address: what from_pointer() goes by.
#include <cstring>
#include <memory>
#include <set>

#include "measure/measure.hpp"
#include "support/driver_memory.hpp"
#include "support/driver_under_test.hpp"

namespace fabricmem::test {

namespace {

CUmemGenericAllocationHandle create(Driver& driver, std::size_t bytes,
                                    const CUmemAllocationProp& properties = device_memory(kFabric)) {
    CUmemGenericAllocationHandle handle = 0;
    driver.mem_create(&handle, bytes, &properties, 0);
    return handle;
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

constexpr int kMemoryBlockId = 20;  // CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID, which older headers have not

// BUFFER_ID and MEMORY_BLOCK_ID count; whether they are there is all that can be told.
bool is_a_count(int attribute) { return attribute == CU_POINTER_ATTRIBUTE_BUFFER_ID || attribute == kMemoryBlockId; }

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

std::uint64_t attribute_of(Driver& driver, int attribute, CUdeviceptr address) {
    std::uint64_t value = 0;
    driver.pointer_get_attribute(&value, static_cast<CUpointer_attribute>(attribute), address);
    return value;
}

// The two ranges that an address is in, by where they begin from `start`, and their sizes.
void say_ranges(Driver& driver, Answers& answers, const std::string& what, CUdeviceptr start, std::size_t offset) {
    struct Pair {
        const char* name;
        int base;
        int bytes;
    };
    for (const Pair& pair :
         {Pair{"RANGE", CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, CU_POINTER_ATTRIBUTE_RANGE_SIZE},
          Pair{"MAPPING", CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR, CU_POINTER_ATTRIBUTE_MAPPING_SIZE}}) {
        const std::uint64_t base = attribute_of(driver, pair.base, start + offset);
        const std::uint64_t bytes = attribute_of(driver, pair.bytes, start + offset);
        const auto from_start = static_cast<std::int64_t>(base - start);
        answers.say(what + ", " + pair.name, base == 0 ? "base 0, " + std::to_string(bytes) + " bytes"
                                                       : "start" + std::string(from_start < 0 ? "" : "+") +
                                                             std::to_string(from_start) + ", " + std::to_string(bytes) +
                                                             " bytes");
    }
}

void ranges_by_attributes(Driver& driver, Answers& answers) {
    const CurrentContext context(driver);
    const Mapped device(driver, device_memory(kFabric), {access_for(kDevice)}, 2 * kTwoMiB);
    say_ranges(driver, answers, "device memory", device.address(), 0);
    say_ranges(driver, answers, "device memory, inside", device.address(), kTwoMiB + 100);
    const Mapped host(driver, host_memory(kFabric), {access_for(kHostNuma)}, 2 * kTwoMiB);
    say_ranges(driver, answers, "host memory, inside", host.address(), kTwoMiB + 100);
    CUdeviceptr both = 0;
    driver.mem_address_reserve(&both, 4 * kTwoMiB, 0, 0, 0);
    driver.mem_map(both, kTwoMiB, 0, create(driver, kTwoMiB), 0);
    driver.mem_map(both + kTwoMiB, 2 * kTwoMiB, 0, create(driver, 2 * kTwoMiB, host_memory(kFabric)), 0);
    say_ranges(driver, answers, "the first of two in one reservation", both, 100);
    say_ranges(driver, answers, "the second of two in one reservation", both, 2 * kTwoMiB + 100);
    say_ranges(driver, answers, "the gap behind them", both, 3 * kTwoMiB + 100);
    CUdeviceptr allocated = 0;
    driver.mem_alloc(&allocated, 3000);
    say_ranges(driver, answers, "3000 bytes of cuMemAlloc memory", allocated, 100);
    CUdeviceptr large = 0;
    driver.mem_alloc(&large, kTwoMiB + 3000);
    say_ranges(driver, answers, "2 MiB and 3000 bytes of cuMemAlloc memory", large, kTwoMiB + 100);
    void* pinned = nullptr;
    driver.mem_alloc_host(&pinned, 5000);
    say_ranges(driver, answers, "5000 bytes of cuMemAllocHost memory", reinterpret_cast<CUdeviceptr>(pinned), 100);
    const auto heap = std::make_unique<char[]>(4096);
    say_ranges(driver, answers, "the heap", reinterpret_cast<CUdeviceptr>(heap.get()), 100);
}

// Memory that the seam has no call for, of the real driver alone.
void ranges_of_others(Driver& driver, Answers& answers) {
    answers.say("can be had", yes_or_no(testing_cuda()));
    if (!testing_cuda()) return;
    const CurrentContext context(driver);
    for (const std::size_t bytes : {std::size_t{3000}, kTwoMiB + 3000}) {
        const CUdeviceptr pooled = allocate_in_pool(bytes);
        const std::string what = std::to_string(bytes) + " bytes of a pool";
        say_ranges(driver, answers, what, pooled, 100);
        answers.say(what + ", pool",
                    attribute_of(driver, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, pooled) != 0 ? "some" : "0");
        answers.ask(what + ", retain", [&] {
            CUmemGenericAllocationHandle handle = 0;
            return driver.mem_retain_allocation_handle(&handle, reinterpret_cast<void*>(pooled));
        });
    }
    say_ranges(driver, answers, "managed memory", allocate_managed(3000), 100);
}

// Whether MEMORY_BLOCK_ID names memory, and for how long it stays taken.
void memory_block_ids(Driver& driver, Answers& answers) {
    const auto block_of = [&](CUdeviceptr address) { return attribute_of(driver, kMemoryBlockId, address); };
    const auto buffer_of = [&](CUdeviceptr address) {
        return attribute_of(driver, CU_POINTER_ATTRIBUTE_BUFFER_ID, address);
    };
    const CUmemGenericAllocationHandle handle = create(driver, kTwoMiB);
    const Mapped first(driver, handle, {access_for(kDevice)});
    answers.say("of one mapping", block_of(first.address()) != 0 ? "some" : "0");
    answers.say("within one mapping", yes_or_no(block_of(first.address()) == block_of(first.address() + 4096)));
    CUmemGenericAllocationHandle again = 0;
    driver.mem_retain_allocation_handle(&again, reinterpret_cast<void*>(first.address()));
    const Mapped second(driver, again, {access_for(kDevice)});
    answers.say("the same in two mappings", yes_or_no(block_of(first.address()) == block_of(second.address())));
    answers.say("BUFFER_ID the same in two mappings",
                yes_or_no(buffer_of(first.address()) == buffer_of(second.address())));
    FabricBytes bytes{};
    CUmemGenericAllocationHandle import = 0;
    (void)export_fabric(driver, handle, &bytes);
    (void)import_fabric(driver, bytes, &import);
    const Mapped imported(driver, import, {access_for(kDevice)});
    answers.say("the same in an import", yes_or_no(block_of(first.address()) == block_of(imported.address())));

    std::set<std::uint64_t> blocks;
    std::set<std::uint64_t> buffers;
    constexpr std::size_t kRounds = 200;
    for (std::size_t round = 0; round < kRounds; ++round) {
        const Mapped one(driver, device_memory(kFabric), {access_for(kDevice)});
        blocks.insert(block_of(one.address()));
        buffers.insert(buffer_of(one.address()));
    }
    answers.say("of 200 allocations, one after the other: ever the same", yes_or_no(blocks.size() < kRounds));
    answers.say("BUFFER_ID of them: ever the same", yes_or_no(buffers.size() < kRounds));
}

Questions questions_of_kinds() {
    const auto imported = [](Driver& driver) {
        FabricBytes bytes{};
        CUmemGenericAllocationHandle handle = 0;
        (void)export_fabric(driver, create(driver, kTwoMiB), &bytes);
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

Questions questions_of_pointers() {
    Questions questions = {{"ranges by pointer attributes", ranges_by_attributes},
                           {"ranges of memory without a call of the seam", ranges_of_others},
                           {"ids of memory blocks", memory_block_ids}};
    for (Question& question : questions_of_kinds()) questions.push_back(std::move(question));
    return questions;
}

}  // namespace fabricmem::test
