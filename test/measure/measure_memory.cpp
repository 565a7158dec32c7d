// SPDX-License-Identifier: Apache-2.0
// Questions about allocations, handles and access.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "measure/measure.hpp"

namespace fabricmem::test {

namespace {

using Handle = CUmemGenericAllocationHandle;

CUresult create(Driver& driver, const CUmemAllocationProp& properties, Handle* handle, std::size_t bytes = kTwoMiB) {
    return driver.mem_create(handle, bytes, &properties, 0);
}

CUresult created_and_released(Driver& driver, const CUmemAllocationProp& properties) {
    Handle handle = 0;
    const CUresult result = create(driver, properties, &handle);
    if (result == CUDA_SUCCESS) driver.mem_release(handle);
    return result;
}

std::string access_of(Driver& driver, CUdeviceptr address, int kind, int id = 0) {
    unsigned long long flags = 99;
    CUmemLocation location{};
    location.type = static_cast<CUmemLocationType>(kind);
    location.id = id;
    const CUresult result = driver.mem_get_access(&flags, &location, address);
    return std::to_string(static_cast<int>(result)) + ":" + (result == CUDA_SUCCESS ? std::to_string(flags) : "-");
}

void read_only(Driver& driver, Answers& answers) {
    const CurrentContext context(driver);
    const Mapped host(driver, host_memory(kFabric), {access_for(kDevice, 1), access_for(kHostNuma, 3)});
    const std::uint32_t word = 1;
    answers.ask("copy to host memory", [&] { return driver.memcpy_htod(host.address(), &word, 4); });
    answers.ask("memset of host memory", [&] { return driver.memset_d8(host.address(), 1, 4); });
    const Mapped device(driver, device_memory(kFabric), {access_for(kDevice, 1)});
    answers.ask("copy to device memory", [&] { return driver.memcpy_htod(device.address(), &word, 4); });
    answers.ask("copy device to device",
                [&] { return driver.memcpy_dtod(device.address(), device.address() + 64, 4); });
    answers.ask("write-value", [&] { return driver.stream_write_value32(nullptr, device.address(), 1, 0); });
    answers.ask("and its work", [&] { return driver.ctx_synchronize(); });
}

void read_only_for_the_cpu(Driver& driver, Answers& answers) {
    const Mapped host(driver, host_memory(kFabric), {access_for(kHostNuma, 1)});
    answers.say("set-access", host.result());
    volatile std::uint32_t* const word = reinterpret_cast<std::uint32_t*>(host.address());
    answers.ask("load", [&] { return std::to_string(*word); });
    answers.ask("store", [&] { return *word = 1, "done"; });
}

void handle_types(Driver& driver, Answers& answers) {
    for (const unsigned int types : {2U, 3U, 4U, 6U, 10U, 16U, 32U, 0x40000000U}) {
        const CUmemAllocationProp wanted = device_memory(types);
        std::size_t bytes = 0;
        answers.ask("granularity of " + std::to_string(types), [&] {
            return driver.mem_get_allocation_granularity(&bytes, &wanted, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
        });
        answers.ask("create of " + std::to_string(types), [&] { return created_and_released(driver, wanted); });
    }
}

void locations(Driver& driver, Answers& answers) {
    for (const int kind : {0, kHost, kHostNuma, kHostNumaCurrent, 5, 99}) {
        const CUmemAllocationProp wanted = memory_at(kind, 0, kNoHandle);
        std::size_t bytes = 0;
        answers.ask("granularity at " + std::to_string(kind), [&] {
            return driver.mem_get_allocation_granularity(&bytes, &wanted, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
        });
        answers.ask("create at " + std::to_string(kind), [&] { return created_and_released(driver, wanted); });
    }
    answers.ask("HOST with id 3", [&] { return created_and_released(driver, memory_at(kHost, 3, kNoHandle)); });
    answers.ask("HOST_NUMA -1", [&] { return created_and_released(driver, memory_at(kHostNuma, -1, kNoHandle)); });
    answers.ask("host with RDMA", [&] { return created_and_released(driver, memory_at(kHostNuma, 0, kFabric, true)); });
    CUmemAllocationProp other = device_memory(kNoHandle);
    other.type = static_cast<CUmemAllocationType>(0);
    answers.ask("type 0", [&] { return created_and_released(driver, other); });
}

void flags(Driver& driver, Answers& answers) {
    const CUmemAllocationProp wanted = device_memory(kFabric | kPosixFd);
    Handle handle = 0;
    answers.ask("create with flags 1", [&] { return driver.mem_create(&handle, kTwoMiB, &wanted, 1); });
    if (create(driver, wanted, &handle) != CUDA_SUCCESS) return;
    CUdeviceptr address = 0;
    answers.ask("reserve with flags 1", [&] { return driver.mem_address_reserve(&address, kTwoMiB, 0, 0, 1); });
    driver.mem_address_reserve(&address, kTwoMiB, 0, 0, 0);
    answers.ask("map with flags 1", [&] { return driver.mem_map(address, kTwoMiB, 0, handle, 1); });
    FabricBytes bytes{};
    const auto as = [&](unsigned int type, unsigned long long given) {
        return driver.mem_export_to_shareable_handle(bytes.data(), handle, static_cast<CUmemAllocationHandleType>(type),
                                                     given);
    };
    answers.ask("export with flags 1", [&] { return as(kFabric, 1); });
    for (const unsigned int type : {0U, 2U, 4U, 9U, 16U}) {
        answers.ask("export as " + std::to_string(type), [&] { return as(type, 0); });
    }
    if (as(kFabric, 0) != CUDA_SUCCESS) return;
    for (const unsigned int type : {0U, 2U, 4U, 9U, 16U}) {
        answers.ask("import as " + std::to_string(type), [&] {
            return driver.mem_import_from_shareable_handle(&handle, bytes.data(),
                                                           static_cast<CUmemAllocationHandleType>(type));
        });
    }
}

void foreign_descriptors(Driver& driver, Answers& answers) {
    const auto import = [&](int descriptor) {
        Handle handle = 0;
        return driver.mem_import_from_shareable_handle(&handle,
                                                       reinterpret_cast<void*>(static_cast<std::intptr_t>(descriptor)),
                                                       static_cast<CUmemAllocationHandleType>(kPosixFd));
    };
    const int memory = ::memfd_create("measure", MFD_CLOEXEC);
    if (::ftruncate(memory, kTwoMiB) != 0) return;
    int pipe[2] = {-1, -1};
    if (::pipe(pipe) != 0) return;
    answers.ask("of a memfd", [&] { return import(memory); });
    answers.ask("of /dev/null", [&] { return import(::open("/dev/null", O_RDWR | O_CLOEXEC)); });
    answers.ask("of a file", [&] { return import(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC)); });
    answers.ask("of a pipe", [&] { return import(pipe[0]); });
    answers.ask("of a closed number", [&] { return import(1000); });
    answers.ask("of -1", [&] { return import(-1); });
}

// What is imported one way and exported the other.
void exports_of_imports(Driver& driver, Answers& answers) {
    const CUmemAllocationProp wanted = device_memory(kFabric | kPosixFd);
    Handle handle = 0;
    if (create(driver, wanted, &handle) != CUDA_SUCCESS) return;
    FabricBytes bytes{};
    int descriptor = -1;
    const auto type = static_cast<CUmemAllocationHandleType>(kPosixFd);
    answers.say("export", export_fabric(driver, handle, &bytes));
    answers.say("export of a descriptor", driver.mem_export_to_shareable_handle(&descriptor, handle, type, 0));
    Handle by_fabric = 0;
    Handle by_descriptor = 0;
    answers.say("import", import_fabric(driver, bytes, &by_fabric));
    answers.say("import of the descriptor",
                driver.mem_import_from_shareable_handle(
                    &by_descriptor, reinterpret_cast<void*>(static_cast<std::intptr_t>(descriptor)), type));
    int again = -1;
    answers.ask("fabric import as descriptor",
                [&] { return driver.mem_export_to_shareable_handle(&again, by_fabric, type, 0); });
    answers.ask("descriptor's import as descriptor",
                [&] { return driver.mem_export_to_shareable_handle(&again, by_descriptor, type, 0); });
    answers.ask("descriptor's import as fabric", [&] { return export_fabric(driver, by_descriptor, &bytes); });
    CUmemAllocationProp properties{};
    driver.mem_get_allocation_properties_from_handle(&properties, by_descriptor);
    answers.say("handle types of the descriptor's import",
                std::to_string(static_cast<unsigned int>(properties.requestedHandleTypes)));
    const Mapped mapped(driver, by_fabric, {access_for(kDevice)});
    unsigned long long types = 99;
    answers.say("attribute of the fabric import's mapping",
                driver.pointer_get_attribute(&types, CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES, mapped.address()));
    answers.say("and the types", std::to_string(types));
}

void damaged_bytes(Driver& driver, Answers& answers) {
    Handle handle = 0;
    FabricBytes bytes{};
    if (create(driver, device_memory(kFabric), &handle) != CUDA_SUCCESS) return;
    if (export_fabric(driver, handle, &bytes) != CUDA_SUCCESS) return;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        FabricBytes damaged = bytes;
        damaged[i] ^= 0xff;
        Handle imported = 0;
        answers.ask("byte " + std::to_string(i), [&] { return import_fabric(driver, damaged, &imported); });
    }
}

void set_access(Driver& driver, Answers& answers) {
    const Mapped memory(driver, device_memory(kFabric), {});
    const auto set = [&](const std::vector<CUmemAccessDesc>& access) {
        return driver.mem_set_access(memory.address(), kTwoMiB, access.data(), access.size());
    };
    const auto now = [&] { return access_of(driver, memory.address(), kDevice); };
    answers.ask("rw then read for one device", [&] { return set({access_for(kDevice, 3), access_for(kDevice, 1)}); });
    answers.say("and then", now());
    answers.ask("read then rw for one device", [&] { return set({access_for(kDevice, 1), access_for(kDevice, 3)}); });
    answers.say("and then ", now());
    answers.ask("flags 2", [&] { return set({access_for(kDevice, 2)}); });
    answers.ask("flags 5", [&] { return set({access_for(kDevice, 5)}); });
    answers.ask("device 7", [&] { return set({access_for(kDevice, 3, 7)}); });
    answers.ask("location 0", [&] { return set({access_for(0)}); });
    answers.ask("HOST_NUMA_CURRENT", [&] { return set({access_for(kHostNumaCurrent)}); });
    answers.ask("PROT_NONE", [&] { return set({access_for(kDevice, 0)}); });
    answers.ask("device and HOST at once", [&] { return set({access_for(kDevice), access_for(kHost)}); });
    answers.say("and then  ", now());
    const Mapped host(driver, host_memory(kFabric), {access_for(kDevice)});
    const auto set_host = [&](const CUmemAccessDesc& access) {
        return driver.mem_set_access(host.address(), kTwoMiB, &access, 1);
    };
    answers.ask("host memory: HOST with id 3", [&] { return set_host(access_for(kHost, 3, 3)); });
    answers.ask("host memory: node 5", [&] { return set_host(access_for(kHostNuma, 3, 5)); });
    answers.ask("host memory: HOST_NUMA_CURRENT", [&] { return set_host(access_for(kHostNumaCurrent)); });
    answers.ask("no bytes", [&] {
        const CUmemAccessDesc access = access_for(kDevice);
        return driver.mem_set_access(memory.address(), 0, &access, 1);
    });
    answers.ask("no descriptors", [&] {
        const CUmemAccessDesc access = access_for(kDevice);
        return driver.mem_set_access(memory.address(), kTwoMiB, &access, 0);
    });
}

void get_access(Driver& driver, Answers& answers) {
    const CurrentContext context(driver);
    const auto say_all = [&](const std::string& what, CUdeviceptr address) {
        for (const int kind : {kDevice, kHost, kHostNuma, kHostNumaCurrent}) {
            answers.ask(what + ", for " + std::to_string(kind), [&] { return access_of(driver, address, kind); });
        }
    };
    const Mapped none(driver, device_memory(kFabric), {});
    say_all("device memory, not set", none.address());
    const Mapped device(driver, device_memory(kFabric), {access_for(kDevice, 1)});
    say_all("device memory, read", device.address() + 12345);
    const Mapped bare(driver, host_memory(kFabric), {});
    say_all("host memory, not set", bare.address());
    const Mapped numa(driver, host_memory(kFabric), {access_for(kDevice), access_for(kHostNuma)});
    say_all("host memory, HOST_NUMA set", numa.address());
    const Mapped host(driver, host_memory(kFabric), {access_for(kDevice), access_for(kHost, 1)});
    say_all("host memory, HOST set to read", host.address());
    answers.ask("device 7", [&] { return access_of(driver, device.address(), kDevice, 7); });
    answers.ask("node 5", [&] { return access_of(driver, numa.address(), kHostNuma, 5); });
    CUdeviceptr reserved = 0;
    driver.mem_address_reserve(&reserved, kTwoMiB, 0, 0, 0);
    answers.ask("reserved", [&] { return access_of(driver, reserved, kDevice); });
    CUdeviceptr allocated = 0;
    driver.mem_alloc(&allocated, 4096);
    answers.ask("cuMemAlloc memory", [&] { return access_of(driver, allocated, kDevice); });
    int on_stack = 0;
    answers.ask("stack", [&] { return access_of(driver, reinterpret_cast<CUdeviceptr>(&on_stack), kDevice); });
}

// Of a handle that is released while a mapping keeps its memory.
void released_handle(Driver& driver, Answers& answers) {
    Mapped memory(driver, device_memory(kFabric), {access_for(kDevice)});
    answers.say("release", memory.release());
    FabricBytes bytes{};
    answers.ask("export", [&] { return export_fabric(driver, memory.handle(), &bytes); });
    CUmemAllocationProp properties{};
    answers.ask("properties",
                [&] { return driver.mem_get_allocation_properties_from_handle(&properties, memory.handle()); });
    CUdeviceptr address = 0;
    driver.mem_address_reserve(&address, kTwoMiB, 0, 0, 0);
    answers.ask("map", [&] { return driver.mem_map(address, kTwoMiB, 0, memory.handle(), 0); });
    Handle handle = 0;
    answers.ask("retain by address", [&] {
        return driver.mem_retain_allocation_handle(&handle, reinterpret_cast<void*>(memory.address()));
    });
    answers.say("the same number", yes_or_no(handle == memory.handle()));
}

// Calls that may end the process: each a question of its own.
Questions dead_handles() {
    using Use = std::function<CUresult(Driver&, Handle)>;
    const std::vector<std::pair<std::string, Use>> uses = {
        {"release", [](Driver& driver, Handle handle) { return driver.mem_release(handle); }},
        {"export",
         [](Driver& driver, Handle handle) {
             FabricBytes bytes{};
             return export_fabric(driver, handle, &bytes);
         }},
        {"properties",
         [](Driver& driver, Handle handle) {
             CUmemAllocationProp properties{};
             return driver.mem_get_allocation_properties_from_handle(&properties, handle);
         }},
        {"map", [](Driver& driver, Handle handle) {
             CUdeviceptr address = 0;
             driver.mem_address_reserve(&address, kTwoMiB, 0, 0, 0);
             return driver.mem_map(address, kTwoMiB, 0, handle, 0);
         }}};
    Questions questions;
    for (const auto& [name, use] : uses) {
        questions.push_back({"handle gone: " + name, [use = use](Driver& driver, Answers& answers) {
                                 Handle handle = 0;
                                 create(driver, device_memory(kFabric), &handle);
                                 driver.mem_release(handle);
                                 answers.ask("answer", [&] { return use(driver, handle); });
                             }});
        questions.push_back({"handle 0: " + name, [use = use](Driver& driver, Answers& answers) {
                                 answers.ask("answer", [&] { return use(driver, 0); });
                             }});
        questions.push_back({"handle 4711: " + name, [use = use](Driver& driver, Answers& answers) {
                                 answers.ask("answer", [&] { return use(driver, 4711); });
                             }});
    }
    return questions;
}

}  // namespace

Questions questions_of_memory() {
    Questions questions = {{"read access alone", read_only},
                           {"read access alone, by the CPU", read_only_for_the_cpu},
                           {"handle types", handle_types},
                           {"locations", locations},
                           {"flags and types of calls", flags},
                           {"import of a descriptor that is no allocation's", foreign_descriptors},
                           {"exports of imports", exports_of_imports},
                           {"damaged handles", damaged_bytes},
                           {"set-access", set_access},
                           {"get-access", get_access},
                           {"handle released, memory mapped", released_handle}};
    for (Question& question : dead_handles()) questions.push_back(std::move(question));
    return questions;
}

}  // namespace fabricmem::test
