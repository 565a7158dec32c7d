// SPDX-License-Identifier: Apache-2.0
// Questions about devices, contexts, and memory of the older kinds.
#include <memory>

#include "measure/measure.hpp"

namespace fabricmem::test {

namespace {

void attributes(Driver& driver, Answers& answers) {
    for (int number = 1; number <= 150; ++number) {
        int value = 0;
        const CUresult result = driver.device_get_attribute(&value, static_cast<CUdevice_attribute>(number), 0);
        answers.say(std::to_string(number), std::to_string(static_cast<int>(result)) + " " + std::to_string(value));
    }
}

void words(Driver& driver, Answers& answers) {
    for (const int code : {0,   1,   2,   3,   4,   100, 101, 201, 220, 226, 400, 401,  500,
                           600, 700, 709, 719, 800, 801, 802, 900, 901, 906, 999, 12345}) {
        const char* name = nullptr;
        const char* text = nullptr;
        const CUresult result = driver.get_error_name(static_cast<CUresult>(code), &name);
        driver.get_error_string(static_cast<CUresult>(code), &text);
        answers.say(std::to_string(code), std::to_string(static_cast<int>(result)) + " " +
                                              (name == nullptr ? "null" : name) + " " +
                                              (text == nullptr ? "null" : text));
    }
}

void devices(Driver& driver, Answers& answers) {
    char text[64] = {};
    CUuuid uuid{};
    int value = -1;
    std::size_t bytes = 0;
    answers.ask("bus id into 5 bytes", [&] { return driver.device_get_pci_bus_id(text, 5, 0); });
    answers.ask("bus id into 0 bytes", [&] { return driver.device_get_pci_bus_id(text, 0, 0); });
    answers.ask("name into 3 bytes", [&] { return driver.device_get_name(text, 3, 0); });
    answers.ask("name into 0 bytes", [&] { return driver.device_get_name(text, 0, 0); });
    answers.ask("uuid of device 7", [&] { return driver.device_get_uuid(&uuid, 7); });
    answers.ask("memory of device 7", [&] { return driver.device_total_mem(&bytes, 7); });
    answers.ask("device -1", [&] { return driver.device_get(&value, -1); });
    answers.ask("peer access to itself", [&] { return driver.device_can_access_peer(&value, 0, 0); });
    answers.say("can", std::to_string(value));
    answers.ask("init with flags 1", [&] { return driver.init(1); });
}

void without_a_context(Driver& driver, Answers& answers) {
    CUcontext context = nullptr;
    CUdevice device = 0;
    unsigned int flags = 99;
    int active = 99;
    answers.ask("pop", [&] { return driver.ctx_pop_current(&context); });
    answers.ask("set none", [&] { return driver.ctx_set_current(nullptr); });
    answers.ask("push none", [&] { return driver.ctx_push_current(nullptr); });
    answers.ask("device", [&] { return driver.ctx_get_device(&device); });
    answers.ask("synchronize", [&] { return driver.ctx_synchronize(); });
    answers.ask("release what is not retained", [&] { return driver.device_primary_ctx_release(0); });
    answers.ask("retain on device 7", [&] { return driver.device_primary_ctx_retain(&context, 7); });
    answers.ask("state of device 7", [&] { return driver.device_primary_ctx_get_state(7, &flags, &active); });
    driver.device_primary_ctx_get_state(0, &flags, &active);
    answers.say("flags and active", std::to_string(flags) + " " + std::to_string(active));
    CUstream stream = nullptr;
    CUdeviceptr address = 0;
    void* pinned = nullptr;
    answers.ask("stream", [&] { return driver.stream_create(&stream, 0); });
    answers.ask("cuMemAlloc", [&] { return driver.mem_alloc(&address, 4096); });
    answers.ask("cuMemAllocHost", [&] { return driver.mem_alloc_host(&pinned, 4096); });
    answers.ask("cuMemFree of 0", [&] { return driver.mem_free(0); });
    answers.ask("cuMemFreeHost of null", [&] { return driver.mem_free_host(nullptr); });
    answers.ask("query of the null stream", [&] { return driver.stream_query(nullptr); });
}

void streams_without_a_context(Driver& driver, Answers& answers) {
    CUcontext context = nullptr;
    driver.device_primary_ctx_retain(&context, 0);
    driver.ctx_push_current(context);
    CUstream stream = nullptr;
    driver.stream_create(&stream, CU_STREAM_NON_BLOCKING);
    const Mapped memory(driver, device_memory(kFabric), {access_for(kDevice)});
    driver.ctx_pop_current(&context);
    answers.ask("query", [&] { return driver.stream_query(stream); });
    answers.ask("synchronize", [&] { return driver.stream_synchronize(stream); });
    answers.ask("memset", [&] { return driver.memset_d8_async(memory.address(), 1, 4, stream); });
    answers.ask("write-value", [&] { return driver.stream_write_value32(stream, memory.address(), 1, 0); });
    answers.ask("begin capture", [&] { return driver.stream_begin_capture(stream, CU_STREAM_CAPTURE_MODE_RELAXED); });
    CUgraph graph = nullptr;
    answers.ask("end capture", [&] { return driver.stream_end_capture(stream, &graph); });
    answers.ask("destroy", [&] { return driver.stream_destroy(stream); });
}

// After the last release of a primary context that is current and has a stream and memory.
void released_context(Driver& driver, Answers& answers) {
    CUcontext context = nullptr;
    driver.device_primary_ctx_retain(&context, 0);
    driver.ctx_push_current(context);
    CUstream stream = nullptr;
    CUdeviceptr allocated = 0;
    driver.stream_create(&stream, CU_STREAM_NON_BLOCKING);
    driver.mem_alloc(&allocated, 4096);
    const Mapped memory(driver, device_memory(kFabric), {access_for(kDevice)});
    driver.memset_d8(memory.address(), 7, 4);
    answers.ask("release", [&] { return driver.device_primary_ctx_release(0); });
    CUcontext current = nullptr;
    answers.ask("current", [&] { return driver.ctx_get_current(&current); });
    answers.say("still the same", yes_or_no(current == context));
    unsigned int flags = 99;
    int active = 99;
    driver.device_primary_ctx_get_state(0, &flags, &active);
    answers.say("active", std::to_string(active));
    std::uint32_t word = 0;
    CUstream other = nullptr;
    CUdeviceptr base = 0;
    std::size_t bytes = 0;
    answers.ask("copy", [&] { return driver.memcpy_dtoh(&word, memory.address(), 4); });
    answers.ask("new stream", [&] { return driver.stream_create(&other, 0); });
    answers.ask("address range", [&] { return driver.mem_get_address_range(&base, &bytes, memory.address()); });
    answers.ask("retain again", [&] { return driver.device_primary_ctx_retain(&context, 0); });
    answers.say("the same handle", yes_or_no(context == current));
    answers.ask("make it current", [&] { return driver.ctx_set_current(context); });
    answers.ask("copy then", [&] { return driver.memcpy_dtoh(&word, memory.address(), 4); });
    answers.say("and the bytes", std::to_string(word));
    answers.ask("range of cuMemAlloc memory", [&] { return driver.mem_get_address_range(&base, &bytes, allocated); });
    answers.ask("free of cuMemAlloc memory", [&] { return driver.mem_free(allocated); });
    answers.ask("query of the old stream", [&] { return driver.stream_query(stream); });
}

// A wait that nothing ends.
void released_with_pending_work(Driver& driver, Answers& answers) {
    CUcontext context = nullptr;
    driver.device_primary_ctx_retain(&context, 0);
    driver.ctx_push_current(context);
    CUstream stream = nullptr;
    driver.stream_create(&stream, CU_STREAM_NON_BLOCKING);
    const Mapped memory(driver, device_memory(kFabric), {access_for(kDevice)});
    driver.stream_wait_value32(stream, memory.address(), 1, CU_STREAM_WAIT_VALUE_EQ);
    answers.ask("release", [&] { return driver.device_primary_ctx_release(0); });
}

// Which calls a lost context fails, and whether the next one is whole.
void lost_context(Driver& driver, Answers& answers) {
    CUcontext context = nullptr;
    driver.device_primary_ctx_retain(&context, 0);
    driver.ctx_push_current(context);
    const Mapped flag(driver, device_memory(kFabric), {access_for(kDevice)});
    Mapped data(driver, device_memory(kFabric), {access_for(kDevice)});
    CUstream waiting = nullptr;
    CUstream free_stream = nullptr;
    driver.stream_create(&waiting, CU_STREAM_NON_BLOCKING);
    driver.stream_create(&free_stream, CU_STREAM_NON_BLOCKING);
    driver.stream_wait_value32(waiting, flag.address(), 1, CU_STREAM_WAIT_VALUE_EQ);
    driver.memset_d8_async(data.address(), 1, 64, waiting);
    data.unmap();
    driver.stream_write_value32(free_stream, flag.address(), 1, 0);
    answers.ask("the work", [&] { return driver.stream_synchronize(waiting); });
    Mapped fresh(driver, device_memory(kFabric), {access_for(kDevice)});
    answers.say("create, reserve, map, set-access", fresh.result());
    FabricBytes bytes{};
    CUmemGenericAllocationHandle handle = 0;
    answers.ask("export", [&] { return export_fabric(driver, fresh.handle(), &bytes); });
    answers.ask("import", [&] { return import_fabric(driver, bytes, &handle); });
    answers.ask("release, unmap and free", [&] { return fresh.destroy(); });
    CUcontext current = nullptr;
    CUdeviceptr base = 0;
    std::size_t size = 0;
    unsigned long long types = 0;
    CUstream other = nullptr;
    CUdeviceptr address = 0;
    void* pinned = nullptr;
    answers.ask("current", [&] { return driver.ctx_get_current(&current); });
    answers.ask("synchronize", [&] { return driver.ctx_synchronize(); });
    answers.ask("query of another stream", [&] { return driver.stream_query(free_stream); });
    answers.ask("query of the null stream", [&] { return driver.stream_query(nullptr); });
    answers.ask("new stream", [&] { return driver.stream_create(&other, 0); });
    answers.ask("address range", [&] { return driver.mem_get_address_range(&base, &size, flag.address()); });
    answers.ask("pointer attribute", [&] {
        return driver.pointer_get_attribute(&types, CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES, flag.address());
    });
    answers.ask("cuMemAlloc", [&] { return driver.mem_alloc(&address, 4096); });
    answers.ask("cuMemAllocHost", [&] { return driver.mem_alloc_host(&pinned, 4096); });
    answers.ask("destroy of a stream", [&] { return driver.stream_destroy(free_stream); });
    answers.ask("release", [&] { return driver.device_primary_ctx_release(0); });
    answers.ask("retain again", [&] { return driver.device_primary_ctx_retain(&context, 0); });
    answers.ask("make it current", [&] { return driver.ctx_set_current(context); });
    answers.ask("copy then", [&] { return driver.memcpy_dtoh(&types, flag.address(), 4); });
}

void older_memory(Driver& driver, Answers& answers) {
    const Workbench bench(driver);
    CUdeviceptr allocated = 0;
    void* pinned = nullptr;
    answers.ask("cuMemAlloc of 0", [&] { return driver.mem_alloc(&allocated, 0); });
    answers.ask("cuMemAlloc of 2^50", [&] { return driver.mem_alloc(&allocated, std::size_t{1} << 50); });
    answers.ask("cuMemAllocHost of 0", [&] { return driver.mem_alloc_host(&pinned, 0); });
    driver.mem_alloc(&allocated, kTwoMiB);
    driver.mem_alloc_host(&pinned, 4096);
    const CUmemAccessDesc access = access_for(kDevice);
    answers.ask("unmap of it", [&] { return driver.mem_unmap(allocated, kTwoMiB); });
    answers.ask("address free of it", [&] { return driver.mem_address_free(allocated, kTwoMiB); });
    answers.ask("set-access of it", [&] { return driver.mem_set_access(allocated, kTwoMiB, &access, 1); });
    answers.ask("map onto it", [&] { return driver.mem_map(allocated, kTwoMiB, 0, bench.memory.handle(), 0); });
    answers.ask("free of an inner address", [&] { return driver.mem_free(allocated + 4096); });
    answers.ask("free of 0", [&] { return driver.mem_free(0); });
    answers.ask("free of a pinned address", [&] { return driver.mem_free(reinterpret_cast<CUdeviceptr>(pinned)); });
    answers.ask("host free of null", [&] { return driver.mem_free_host(nullptr); });
    answers.ask("host free of an inner address", [&] { return driver.mem_free_host(static_cast<char*>(pinned) + 64); });
    answers.ask("free", [&] { return driver.mem_free(allocated); });
    answers.ask("free again", [&] { return driver.mem_free(allocated); });
    CUipcMemHandle handle{};
    driver.mem_alloc(&allocated, 4096);
    answers.ask("IPC handle", [&] { return driver.ipc_get_mem_handle(&handle, allocated); });
    answers.ask("IPC handle of a pinned address",
                [&] { return driver.ipc_get_mem_handle(&handle, reinterpret_cast<CUdeviceptr>(pinned)); });
    const auto heap = std::make_unique<char[]>(4096);
    answers.ask("free of the heap", [&] { return driver.mem_free(reinterpret_cast<CUdeviceptr>(heap.get())); });
    answers.ask("host free of the heap", [&] { return driver.mem_free_host(heap.get()); });
}

}  // namespace

Questions questions_of_contexts() {
    return {{"device attributes", attributes},
            {"names of errors", words},
            {"devices", devices},
            {"without a context", without_a_context},
            {"a stream without a context", streams_without_a_context},
            {"a context released", released_context},
            {"a context released with pending work", released_with_pending_work},
            {"a context lost", lost_context},
            {"older memory", older_memory}};
}

}  // namespace fabricmem::test
