// SPDX-License-Identifier: Apache-2.0
// A program that calls the CUDA driver API and knows nothing of libfabricmem: linked with -lcuda, it runs on whatever
// libcuda.so.1 the loader finds, the real one too. Built a second time with the per-thread default stream.
#include <sys/wait.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "check.hpp"

namespace {

constexpr std::size_t kBytes = std::size_t{2} << 20;
constexpr auto kFabricHandle = static_cast<CUmemAllocationHandleType>(8);
std::string g_program;

CUdevice first_device() {
    CUdevice device = -1;
    const CUresult initialized = cuInit(0);
    if (initialized != CUDA_SUCCESS && std::getenv("FABRICMEM_TEST_DRIVER") != nullptr) {
        std::printf("FABRICMEM-SKIPPED: cuInit of the real driver answers %d\n", static_cast<int>(initialized));
        std::exit(0);
    }
    REQUIRE_OK(initialized);
    REQUIRE_OK(cuDeviceGet(&device, 0));
    return device;
}

CUcontext primary_context() {
    const CUdevice device = first_device();
    CUcontext context = nullptr;
    REQUIRE_OK(cuDevicePrimaryCtxRetain(&context, device));
    REQUIRE_OK(cuCtxSetCurrent(context));
    return context;
}

CUcontext new_context(unsigned int flags) {
    CUcontext context = nullptr;
#if CUDA_VERSION >= 13000
    REQUIRE_OK(cuCtxCreate(&context, nullptr, flags, 0));
#else
    REQUIRE_OK(cuCtxCreate(&context, flags, 0));
#endif
    return context;
}

CUresult create_fabric_memory(CUmemGenericAllocationHandle* handle) {
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.requestedHandleTypes = kFabricHandle;
    std::size_t granularity = 0;
    REQUIRE_OK(cuMemGetAllocationGranularity(&granularity, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    REQUIRE(kBytes % granularity == 0);
    return cuMemCreate(handle, kBytes, &properties, 0);
}

CUdeviceptr map(CUmemGenericAllocationHandle handle) {
    CUdeviceptr address = 0;
    CUmemAccessDesc access{};
    access.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    REQUIRE_OK(cuMemAddressReserve(&address, kBytes, 0, 0, 0));
    REQUIRE_OK(cuMemMap(address, kBytes, 0, handle, 0));
    REQUIRE_OK(cuMemSetAccess(address, kBytes, &access, 1));
    return address;
}

void unmap(CUdeviceptr address, CUmemGenericAllocationHandle handle) {
    REQUIRE_OK(cuMemUnmap(address, kBytes));
    REQUIRE_OK(cuMemRelease(handle));
    REQUIRE_OK(cuMemAddressFree(address, kBytes));
}

std::uint32_t read_word(CUdeviceptr address) {
    std::uint32_t word = 0;
    REQUIRE_OK(cuMemcpyDtoH(&word, address, sizeof word));
    return word;
}

CUstream new_stream() {
    CUstream stream = nullptr;
    REQUIRE_OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    return stream;
}

// Words of the shared memory.
constexpr std::size_t kReady = 0;
constexpr std::size_t kDone = 4;
constexpr std::size_t kData = 4096;
constexpr std::size_t kAnswer = 8192;

CUresult copy_batch(CUdeviceptr* to, CUdeviceptr* from, std::size_t* bytes, std::size_t count, CUstream stream) {
#if CUDA_VERSION >= 12080
    CUmemcpyAttributes attributes{};
    attributes.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
    std::size_t first = 0;
#if CUDA_VERSION >= 13000
    return cuMemcpyBatchAsync(to, from, bytes, count, &attributes, &first, 1, stream);
#else
    std::size_t failed = 0;
    return cuMemcpyBatchAsync(to, from, bytes, count, &attributes, &first, 1, &failed, stream);
#endif
#else
    for (std::size_t i = 0; i < count; ++i) REQUIRE_OK(cuMemcpyAsync(to[i], from[i], bytes[i], stream));
    return CUDA_SUCCESS;
#endif
}

// The importer. Its standard input brings the handle.
void import_and_answer() {
    primary_context();
    unsigned char bytes[64] = {};
    REQUIRE(std::fread(bytes, 1, sizeof bytes, stdin) == sizeof bytes);
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE_OK(cuMemImportFromShareableHandle(&handle, bytes, kFabricHandle));
    const CUdeviceptr address = map(handle);
    const CUstream stream = new_stream();
    std::uint32_t data[2] = {};
    REQUIRE_OK(cuStreamWaitValue32(stream, address + kReady, 1, CU_STREAM_WAIT_VALUE_EQ));
    REQUIRE_OK(cuMemcpyDtoHAsync(data, address + kData, sizeof data, stream));
    REQUIRE_OK(cuStreamSynchronize(stream));
    REQUIRE(data[0] == 0x01020304 && data[1] == 0x05060708);

    CUdeviceptr to[2] = {address + kAnswer, address + kAnswer + 4};
    CUdeviceptr from[2] = {address + kData + 4, address + kData};
    std::size_t sizes[2] = {4, 4};
    REQUIRE_OK(copy_batch(to, from, sizes, 2, stream));
    REQUIRE_OK(cuStreamWriteValue32(stream, address + kDone, 2, 0));
    REQUIRE_OK(cuStreamSynchronize(stream));
    REQUIRE_OK(cuStreamDestroy(stream));
    unmap(address, handle);
}

pid_t start_importer(int* input) {
    int ends[2] = {-1, -1};
    REQUIRE(::pipe(ends) == 0);
    std::vector<std::string> words;
    if (const char* const launcher = std::getenv("FABRICMEM_TEST_LAUNCHER")) {
        for (std::string_view rest = launcher; !rest.empty();) {
            const std::size_t end = std::min(rest.find(' '), rest.size());
            words.emplace_back(rest.substr(0, end));
            rest.remove_prefix(std::min(end + 1, rest.size()));
        }
    }
    words.push_back(g_program);
    words.emplace_back("import");
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ::dup2(ends[0], STDIN_FILENO);
        ::close(ends[0]);
        ::close(ends[1]);
        ::execvp(arguments[0], arguments.data());
        ::_exit(127);
    }
    ::close(ends[0]);
    *input = ends[1];
    return child;
}

void exchange() {
    primary_context();
    CUmemGenericAllocationHandle handle = 0;
    const CUresult created = create_fabric_memory(&handle);
    if (created == CUDA_ERROR_NOT_PERMITTED) {
        std::printf("FABRICMEM-SKIPPED: no IMEX channel here\n");
        return;
    }
    REQUIRE_OK(created);
    const CUdeviceptr address = map(handle);
    REQUIRE_OK(cuMemsetD8(address, 0, kBytes));
    REQUIRE_OK(cuCtxSynchronize());
    unsigned char bytes[64] = {};
    REQUIRE_OK(cuMemExportToShareableHandle(bytes, handle, kFabricHandle, 0));
    int input = -1;
    const pid_t importer = start_importer(&input);
    REQUIRE(::write(input, bytes, sizeof bytes) == static_cast<ssize_t>(sizeof bytes));
    ::close(input);

    const std::uint32_t data[2] = {0x01020304, 0x05060708};
    REQUIRE_OK(cuMemcpyHtoD(address + kData, data, sizeof data));
    const CUstream stream = new_stream();
    REQUIRE_OK(cuStreamWriteValue32(stream, address + kReady, 1, 0));
    REQUIRE_OK(cuStreamWaitValue32(stream, address + kDone, 2, CU_STREAM_WAIT_VALUE_EQ));
    REQUIRE_OK(cuStreamSynchronize(stream));
    REQUIRE(read_word(address + kAnswer) == data[1]);
    REQUIRE(read_word(address + kAnswer + 4) == data[0]);
    int status = -1;
    REQUIRE(::waitpid(importer, &status, 0) == importer);
    REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    REQUIRE_OK(cuStreamDestroy(stream));
    unmap(address, handle);
}

void pointers() {
    primary_context();
    CUdeviceptr address = 0;
    REQUIRE_OK(cuMemAlloc(&address, 4096));
    unsigned int type = 0;
    std::size_t bytes = 0;
    int ordinal = -1;
    CUpointer_attribute names[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_RANGE_SIZE,
                                   CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
    void* values[] = {&type, &bytes, &ordinal};
    REQUIRE_OK(cuPointerGetAttributes(3, names, values, address + 16));
    REQUIRE(type == CU_MEMORYTYPE_DEVICE && bytes == 4096 && ordinal == 0);
    CUdeviceptr base = 0;
    REQUIRE_OK(cuMemGetAddressRange(&base, &bytes, address + 16));
    REQUIRE(base == address && bytes == 4096);
    std::size_t free_before = 0;
    std::size_t free_after = 0;
    std::size_t total = 0;
    REQUIRE_OK(cuMemGetInfo(&free_before, &total));
    REQUIRE(free_before < total);
    REQUIRE_OK(cuMemFree(address));
    REQUIRE_OK(cuMemGetInfo(&free_after, &total));
    REQUIRE(free_after >= free_before);

    void* pinned = nullptr;
    REQUIRE_OK(cuMemHostAlloc(&pinned, 4096, CU_MEMHOSTALLOC_PORTABLE));
    CUdeviceptr seen = 0;
    REQUIRE_OK(cuMemHostGetDevicePointer(&seen, pinned, 0));
    REQUIRE(seen == reinterpret_cast<CUdeviceptr>(pinned));
    REQUIRE_OK(cuMemFreeHost(pinned));

    std::vector<std::uint32_t> own(4096, 7);
    REQUIRE_OK(cuMemHostRegister(own.data(), 4 * own.size(), CU_MEMHOSTREGISTER_PORTABLE));
    REQUIRE_CODE(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, cuMemHostRegister(own.data(), 4 * own.size(), 0));
    REQUIRE_OK(cuStreamWriteValue32(nullptr, reinterpret_cast<CUdeviceptr>(own.data()), 9, 0));
    REQUIRE_OK(cuCtxSynchronize());
    REQUIRE(__atomic_load_n(own.data(), __ATOMIC_ACQUIRE) == 9);
    REQUIRE_OK(cuMemHostUnregister(own.data()));
    REQUIRE_CODE(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, cuMemHostUnregister(own.data()));
}

void sets() {
    primary_context();
    CUdeviceptr address = 0;
    REQUIRE_OK(cuMemAlloc(&address, 64));
    REQUIRE_OK(cuMemsetD32(address, 0x11223344, 16));
    REQUIRE_OK(cuMemsetD16(address + 4, 0x5566, 2));
    REQUIRE_OK(cuMemsetD8(address + 8, 0x77, 3));
    REQUIRE_OK(cuMemsetD32Async(address + 12, 0xa, 1, nullptr));
    REQUIRE_OK(cuMemsetD16Async(address + 18, 0xb, 1, nullptr));
    REQUIRE_OK(cuMemsetD8Async(address + 23, 0xc, 1, nullptr));
    REQUIRE_OK(cuStreamSynchronize(nullptr));
    std::uint32_t words[16] = {};
    REQUIRE_OK(cuMemcpyDtoH(words, address, sizeof words));
    const std::uint32_t wanted[7] = {0x11223344, 0x55665566, 0x11777777, 0xa, 0xb3344, 0x0c223344, 0x11223344};
    REQUIRE(std::memcmp(words, wanted, sizeof wanted) == 0);
    REQUIRE(words[15] == 0x11223344);
    REQUIRE_CODE(CUDA_ERROR_INVALID_VALUE, cuMemsetD32(address + 2, 0, 1));
    REQUIRE_CODE(CUDA_ERROR_INVALID_VALUE, cuMemsetD16(address + 1, 0, 1));
    REQUIRE_CODE(CUDA_ERROR_INVALID_VALUE, cuMemsetD32(address, 0, kBytes));
    REQUIRE_OK(cuMemFree(address));
}

void contexts() {
    first_device();
    CUcontext none = nullptr;
    REQUIRE_OK(cuCtxGetCurrent(&none));
    REQUIRE(none == nullptr);
    const CUcontext first = new_context(CU_CTX_SCHED_BLOCKING_SYNC);
    const CUcontext second = new_context(0);
    CUcontext current = nullptr;
    REQUIRE_OK(cuCtxGetCurrent(&current));
    REQUIRE(first != second && current == second);
    unsigned int version = 0;
    REQUIRE_OK(cuCtxGetApiVersion(second, &version));
    REQUIRE(version >= 3020);
    REQUIRE_OK(cuCtxPopCurrent(&current));
    REQUIRE(current == second);
    unsigned int flags = 0;
    REQUIRE_OK(cuCtxGetFlags(&flags));
    REQUIRE((flags & CU_CTX_SCHED_MASK) == CU_CTX_SCHED_BLOCKING_SYNC);
    REQUIRE_OK(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 2048));
    std::size_t limit = 0;
    REQUIRE_OK(cuCtxGetLimit(&limit, CU_LIMIT_STACK_SIZE));
    REQUIRE(limit == 2048);

    // What one context holds ends with it; the other's stays.
    CUdeviceptr gone = 0;
    CUdeviceptr kept = 0;
    REQUIRE_OK(cuMemAlloc(&gone, 64));
    REQUIRE_OK(cuCtxPopCurrent(&current));
    REQUIRE_OK(cuCtxPushCurrent(second));
    REQUIRE_OK(cuMemAlloc(&kept, 64));
    CUcontext owner = nullptr;
    REQUIRE_OK(cuPointerGetAttribute(&owner, CU_POINTER_ATTRIBUTE_CONTEXT, kept));
    REQUIRE(owner == second);
    REQUIRE_OK(cuCtxDestroy(first));
    std::uint32_t word = 0;
    REQUIRE_CODE(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH(&word, gone, sizeof word));
    REQUIRE_OK(cuMemcpyDtoH(&word, kept, sizeof word));
    REQUIRE_OK(cuCtxSynchronize());
    REQUIRE_OK(cuCtxDestroy(second));
    REQUIRE_OK(cuCtxGetCurrent(&current));
    REQUIRE(current == nullptr);
}

void events() {
    primary_context();
    CUdeviceptr flag = 0;
    REQUIRE_OK(cuMemAlloc(&flag, 64));
    REQUIRE_OK(cuMemsetD8(flag, 0, 64));
    REQUIRE_OK(cuCtxSynchronize());
    const CUstream held = new_stream();
    const CUstream follower = new_stream();
    const CUstream opener = new_stream();
    CUevent before = nullptr;
    CUevent after = nullptr;
    CUevent timeless = nullptr;
    REQUIRE_OK(cuEventCreate(&before, CU_EVENT_DEFAULT));
    REQUIRE_OK(cuEventCreate(&after, CU_EVENT_DEFAULT));
    REQUIRE_OK(cuEventCreate(&timeless, CU_EVENT_DISABLE_TIMING));
    REQUIRE_OK(cuEventQuery(before));  // never recorded
    REQUIRE_OK(cuEventRecord(before, held));
    REQUIRE_OK(cuEventSynchronize(before));
    REQUIRE_OK(cuStreamWaitValue32(held, flag, 1, CU_STREAM_WAIT_VALUE_EQ));
    REQUIRE_OK(cuEventRecord(after, held));
    REQUIRE_CODE(CUDA_ERROR_NOT_READY, cuEventQuery(after));
    REQUIRE_OK(cuStreamWaitEvent(follower, after, 0));
    REQUIRE_OK(cuStreamWriteValue32(follower, flag + 4, 5, 0));
    for (int i = 0; i < 1000; ++i) {  // it is not only late
        REQUIRE_CODE(CUDA_ERROR_NOT_READY, cuStreamQuery(follower));
        std::this_thread::yield();
    }
    float milliseconds = -1;
    REQUIRE_CODE(CUDA_ERROR_NOT_READY, cuEventElapsedTime(&milliseconds, before, after));
    REQUIRE_OK(cuStreamWriteValue32(opener, flag, 1, 0));
    REQUIRE_OK(cuEventSynchronize(after));
    REQUIRE_OK(cuStreamSynchronize(follower));
    REQUIRE(read_word(flag + 4) == 5);
    REQUIRE_OK(cuEventElapsedTime(&milliseconds, before, after));
    REQUIRE(milliseconds >= 0);
    REQUIRE_OK(cuEventRecord(timeless, opener));
    REQUIRE_OK(cuEventSynchronize(timeless));
    REQUIRE_CODE(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&milliseconds, before, timeless));
    for (const CUevent event : {before, after, timeless}) REQUIRE_OK(cuEventDestroy(event));
    for (const CUstream stream : {held, follower, opener}) REQUIRE_OK(cuStreamDestroy(stream));
    REQUIRE_OK(cuMemFree(flag));
}

void streams() {
    primary_context();
    int least = -1;
    int greatest = 1;
    REQUIRE_OK(cuCtxGetStreamPriorityRange(&least, &greatest));
    REQUIRE(least == 0 && greatest < 0);
    CUstream stream = nullptr;
    REQUIRE_OK(cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, -1000));
    int priority = 0;
    unsigned int flags = 0;
    REQUIRE_OK(cuStreamGetPriority(stream, &priority));
    REQUIRE_OK(cuStreamGetFlags(stream, &flags));
    REQUIRE(priority == greatest && flags == CU_STREAM_NON_BLOCKING);
    CUdeviceptr words = 0;
    REQUIRE_OK(cuMemAlloc(&words, 64));
    REQUIRE_OK(cuMemsetD8(words, 0, 64));
    REQUIRE_OK(cuCtxSynchronize());
    CUstreamBatchMemOpParams operations[2]{};
    operations[0].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    operations[0].writeValue.address = words;
    operations[0].writeValue.value = 3;
    operations[1].waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_64;
    operations[1].waitValue.address = words;
    operations[1].waitValue.value64 = 3;
    operations[1].waitValue.flags = CU_STREAM_WAIT_VALUE_EQ;
    REQUIRE_OK(cuStreamBatchMemOp(stream, 2, operations, 0));
    REQUIRE_OK(cuStreamSynchronize(stream));
    REQUIRE(read_word(words) == 3);

    REQUIRE_OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    REQUIRE_OK(cuStreamIsCapturing(stream, &status));
    REQUIRE(status == CU_STREAM_CAPTURE_STATUS_ACTIVE);
    CUgraph graph = nullptr;
    REQUIRE_OK(cuStreamEndCapture(stream, &graph));
    REQUIRE_OK(cuGraphDestroy(graph));
    REQUIRE_OK(cuStreamDestroy(stream));
    REQUIRE_OK(cuMemFree(words));
}

// Whether the null stream of one thread holds up that of another depends on what this program is built for.
void threads() {
    const CUcontext context = primary_context();
    CUdeviceptr flag = 0;
    REQUIRE_OK(cuMemAlloc(&flag, 64));
    REQUIRE_OK(cuMemsetD8(flag, 0, 64));
    REQUIRE_OK(cuCtxSynchronize());
    const CUstream opener = new_stream();
    REQUIRE_OK(cuStreamWaitValue32(nullptr, flag, 1, CU_STREAM_WAIT_VALUE_EQ));
    std::thread other([&] {
        REQUIRE_OK(cuCtxSetCurrent(context));
        REQUIRE_OK(cuMemcpyAsync(flag + 8, flag + 12, 4, nullptr));
#if defined(CUDA_API_PER_THREAD_DEFAULT_STREAM)
        REQUIRE_OK(cuStreamSynchronize(nullptr));
        const std::uint32_t word = 6;
        REQUIRE_OK(cuMemcpyHtoD(flag + 16, &word, sizeof word));
        REQUIRE(read_word(flag + 16) == 6);
#else
        REQUIRE_CODE(CUDA_ERROR_NOT_READY, cuStreamQuery(nullptr));
#endif
    });
    other.join();
    REQUIRE_CODE(CUDA_ERROR_NOT_READY, cuStreamQuery(nullptr));
    REQUIRE_OK(cuStreamWriteValue32(opener, flag, 1, 0));
    REQUIRE_OK(cuStreamSynchronize(nullptr));
    REQUIRE_OK(cuStreamDestroy(opener));
    REQUIRE_OK(cuMemFree(flag));
}

void devices() {
    const CUdevice device = first_device();
    char pci[32] = {};
    CUdevice found = -1;
    REQUIRE_OK(cuDeviceGetPCIBusId(pci, sizeof pci, device));
    REQUIRE_OK(cuDeviceGetByPCIBusId(&found, pci));
    REQUIRE(found == device);
    REQUIRE(cuDeviceGetByPCIBusId(&found, "no address") != CUDA_SUCCESS);
    std::size_t bytes = 0;
    REQUIRE_OK(cuDeviceTotalMem(&bytes, device));
    REQUIRE(bytes > kBytes);
    CUuuid uuid{};
    const CUuuid zero{};
    REQUIRE_OK(cuDeviceGetUuid(&uuid, device));
    REQUIRE(std::memcmp(&uuid, &zero, sizeof uuid) != 0);
    int major = 0;
    int minor = -1;
    REQUIRE_OK(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device));
    REQUIRE_OK(cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device));
    REQUIRE(major >= 7 && minor >= 0);
    const char* text = nullptr;
    REQUIRE_OK(cuGetErrorName(CUDA_ERROR_NOT_PERMITTED, &text));
    REQUIRE(std::string_view(text) == "CUDA_ERROR_NOT_PERMITTED");
}

void lookups() {
    first_device();
    void* function = nullptr;
    CUdriverProcAddressQueryResult status{};
    const cuuint64_t legacy = CU_GET_PROC_ADDRESS_LEGACY_STREAM;
    REQUIRE_OK(cuGetProcAddress("cuMemCreate", &function, 10020, legacy, &status));
    REQUIRE(function != nullptr && status == CU_GET_PROC_ADDRESS_SUCCESS);
    function = &status;
    REQUIRE_OK(cuGetProcAddress("cuNoSuchThing", &function, 12000, legacy, &status));
    REQUIRE(function == nullptr && status == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
    void* older = nullptr;
    REQUIRE_OK(cuGetProcAddress("cuStreamBeginCapture", &function, 10010, legacy, &status));
    REQUIRE_OK(cuGetProcAddress("cuStreamBeginCapture", &older, 10000, legacy, &status));
    REQUIRE(function != older);
    void* own = nullptr;
    REQUIRE_OK(
        cuGetProcAddress("cuStreamBeginCapture", &own, 12000, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM, &status));
    REQUIRE(own != function && own != older);
    int version = 0;
    REQUIRE_OK(cuDriverGetVersion(&version));
    REQUIRE_CODE(CUDA_ERROR_INVALID_VALUE, cuGetProcAddress("cuMemCreate", &function, version + 10, legacy, &status));
}

}  // namespace

int main(int argc, char** argv) {
    g_program = argv[0];
    const Case cases[] = {{"exchange", exchange}, {"import", import_and_answer}, {"pointers", pointers},
                          {"sets", sets},         {"contexts", contexts},        {"events", events},
                          {"streams", streams},   {"threads", threads},          {"devices", devices},
                          {"lookups", lookups}};
    return run_case(cases, argc, argv);
}
