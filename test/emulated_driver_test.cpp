// SPDX-License-Identifier: Apache-2.0
// What is the emulated driver's own: counts, limits, damaged handles, and that nothing leaks. What it shares with the
// real driver is in driver_conformance_*.cpp.
#include <fabricmem/emulated_driver.hpp>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include <fabricmem/error.hpp>
#include <fabricmem/forwarding_driver.hpp>
#include <fabricmem/log.hpp>

#include "support/driver_kit.hpp"
#include "support/peer.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

std::size_t kernel_mappings() {
    std::ifstream maps("/proc/self/maps");
    std::size_t lines = 0;
    for (std::string line; std::getline(maps, line);) ++lines;
    return lines;
}

// The kernel's mappings in a range. (A sanitizer adds some of its own elsewhere.)
std::size_t kernel_mappings_in(CUdeviceptr address, std::size_t bytes) {
    // Not /proc/self/maps, which user-mode emulators invent.
    std::ifstream maps("/proc/self/task/" + std::to_string(::getpid()) + "/maps");
    std::size_t lines = 0;
    for (std::string line; std::getline(maps, line);) {
        unsigned long long begin = 0;
        unsigned long long end = 0;
        const bool parsed = std::sscanf(line.c_str(), "%llx-%llx", &begin, &end) == 2;
        if (parsed && begin < address + bytes && address < end) ++lines;
    }
    return lines;
}

// "rw-s": as /proc/self/maps says.
std::string kernel_rights_at(CUdeviceptr address) {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
        unsigned long long begin = 0;
        unsigned long long end = 0;
        char rights[8] = {};
        if (std::sscanf(line.c_str(), "%llx-%llx %7s", &begin, &end, rights) == 3 && begin <= address &&
            address < end) {
            return rights;
        }
    }
    return {};
}

std::vector<int> memory_descriptors() {
    std::vector<int> numbers;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code error;
        const std::string target = std::filesystem::read_symlink(entry.path(), error).string();
        if (target.find("memfd:fabricmem") != std::string::npos) numbers.push_back(std::stoi(entry.path().filename()));
    }
    return numbers;
}

CUresult create(Driver& driver, const CUmemAllocationProp& properties, std::size_t bytes = kTwoMiB) {
    CUmemGenericAllocationHandle handle = 0;
    const CUresult result = driver.mem_create(&handle, bytes, &properties, 0);
    if (result == CUDA_SUCCESS) driver.mem_release(handle);
    return result;
}

FabricBytes export_of(Driver& driver, const Mapped& memory) {
    REQUIRE(memory.result() == CUDA_SUCCESS);
    FabricBytes bytes{};
    REQUIRE(export_fabric(driver, memory.handle(), &bytes) == CUDA_SUCCESS);
    return bytes;
}

CUresult try_import(Driver& driver, const FabricBytes& bytes) {
    CUmemGenericAllocationHandle handle = 0;
    const CUresult result = import_fabric(driver, bytes, &handle);
    if (result == CUDA_SUCCESS) driver.mem_release(handle);
    return result;
}

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kUnderAddressSanitizer = true;
#elif defined(__has_feature)
constexpr bool kUnderAddressSanitizer = __has_feature(address_sanitizer);
#else
constexpr bool kUnderAddressSanitizer = false;
#endif

struct LogSinkForNow {
    explicit LogSinkForNow(LogSink sink) { set_log_sink(std::move(sink)); }
    LogSinkForNow(const LogSinkForNow&) = delete;
    LogSinkForNow& operator=(const LogSinkForNow&) = delete;
    ~LogSinkForNow() { set_log_sink({}); }
};

}  // namespace

TEST_CASE("Counts are had of emulated drivers alone", "[emulated]") {
    const ForwardingDriver other(make_emulated_driver());
    CHECK_THROWS_AS(emulated_counts(other), Error);
    CHECK(emulated_counts(*other.inner()) == EmulatedCounts{});
}

TEST_CASE("Counts follow every step and come back", "[emulated]") {
    const auto driver = make_emulated_driver();
    const EmulatedCounts empty;
    {
        const CurrentContext context(*driver);
        EmulatedCounts expected;
        expected.primary_contexts = 1;
        CHECK(emulated_counts(*driver) == expected);

        Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
        expected.allocations = expected.handles = expected.ranges = expected.mappings = expected.descriptors = 1;
        CHECK(emulated_counts(*driver) == expected);

        CUmemGenericAllocationHandle retained = 0;
        REQUIRE(driver->mem_retain_allocation_handle(&retained, reinterpret_cast<void*>(memory.address())) ==
                CUDA_SUCCESS);
        expected.handles = 2;
        CHECK(emulated_counts(*driver) == expected);
        CHECK(driver->mem_release(retained) == CUDA_SUCCESS);

        CUmemGenericAllocationHandle imports[2] = {};
        for (auto& import : imports) {
            REQUIRE(import_fabric(*driver, export_of(*driver, memory), &import) == CUDA_SUCCESS);
        }
        expected.handles = 3;  // onto the one allocation, by its one descriptor
        CHECK(emulated_counts(*driver) == expected);
        CHECK(memory_descriptors().size() == 1);
        for (const auto import : imports) CHECK(driver->mem_release(import) == CUDA_SUCCESS);

        CUstream stream = nullptr;
        REQUIRE(driver->stream_create(&stream, 0) == CUDA_SUCCESS);
        CHECK(driver->stream_write_value32(stream, memory.address(), 1, 0) == CUDA_SUCCESS);
        CHECK(driver->stream_write_value32(stream, memory.address() + 4, 1, 0) == CUDA_SUCCESS);
        expected.handles = expected.streams = expected.aliases = 1;
        CHECK(emulated_counts(*driver) == expected);
        CHECK(driver->stream_destroy(stream) == CUDA_SUCCESS);

        CUdeviceptr device = 0;
        void* pinned = nullptr;
        REQUIRE(driver->mem_alloc(&device, 100) == CUDA_SUCCESS);
        REQUIRE(driver->mem_alloc_host(&pinned, 100) == CUDA_SUCCESS);
        CHECK(emulated_counts(*driver).allocations == 3);
        CHECK(driver->mem_free(device) == CUDA_SUCCESS);
        CHECK(driver->mem_free_host(pinned) == CUDA_SUCCESS);
        expected.streams = 0;
        CHECK(emulated_counts(*driver) == expected);

        CHECK(memory.release() == CUDA_SUCCESS);
        expected.handles = 0;
        CHECK(emulated_counts(*driver) == expected);
        CHECK(memory.unmap() == CUDA_SUCCESS);
        expected.allocations = expected.mappings = expected.descriptors = expected.aliases = 0;
        CHECK(emulated_counts(*driver) == expected);
    }
    CHECK(emulated_counts(*driver) == empty);
    CHECK(memory_descriptors().empty());
}

TEST_CASE("A driver that ends takes its descriptors and addresses with it", "[emulated]") {
    const std::size_t before = kernel_mappings();
    for (int round = 0; round < 50; ++round) {
        const auto driver = make_emulated_driver();
        CUdeviceptr address = 0;
        CUmemGenericAllocationHandle handle = 0;
        const CUmemAllocationProp wanted = host_memory(kFabric);
        const CUmemAccessDesc access = access_for(kHostNuma);
        REQUIRE(driver->mem_create(&handle, kTwoMiB, &wanted, 0) == CUDA_SUCCESS);
        REQUIRE(driver->mem_address_reserve(&address, kTwoMiB, 0, 0, 0) == CUDA_SUCCESS);
        REQUIRE(driver->mem_map(address, kTwoMiB, 0, handle, 0) == CUDA_SUCCESS);
        REQUIRE(driver->mem_set_access(address, kTwoMiB, &access, 1) == CUDA_SUCCESS);
    }
    CHECK(memory_descriptors().empty());
    CHECK(kernel_mappings() < before + 25);
}

TEST_CASE("Mappings of device memory add none in the kernel", "[emulated]") {
    const auto driver = make_emulated_driver();
    constexpr std::size_t kCount = 200;
    CUdeviceptr address = 0;
    REQUIRE(driver->mem_address_reserve(&address, kCount * kTwoMiB, 0, 0, 0) == CUDA_SUCCESS);
    const CUmemAllocationProp wanted = device_memory(kFabric);
    const CUmemAccessDesc access = access_for(kDevice);
    for (std::size_t i = 0; i < kCount; ++i) {
        CUmemGenericAllocationHandle handle = 0;
        REQUIRE(driver->mem_create(&handle, kTwoMiB, &wanted, 0) == CUDA_SUCCESS);
        REQUIRE(driver->mem_map(address + i * kTwoMiB, kTwoMiB, 0, handle, 0) == CUDA_SUCCESS);
        REQUIRE(driver->mem_set_access(address + i * kTwoMiB, kTwoMiB, &access, 1) == CUDA_SUCCESS);
    }
    CHECK(kernel_mappings_in(address, kCount * kTwoMiB) < 3);
    CHECK(memory_descriptors().size() == kCount);
}

TEST_CASE("Host access that is taken away leaves no kernel mapping", "[emulated]") {
    const auto driver = make_emulated_driver();
    const Mapped memory(*driver, host_memory(kFabric), {access_for(kDevice)});
    CHECK(kernel_rights_at(memory.address()) == "---p");
    const auto rights_with = [&](unsigned int flags) {
        const CUmemAccessDesc access = access_for(kHostNuma, flags);
        CHECK(driver->mem_set_access(memory.address(), kTwoMiB, &access, 1) == CUDA_SUCCESS);
        return kernel_rights_at(memory.address());
    };
    CHECK(rights_with(1) == "r--s");
    CHECK(rights_with(3) == "rw-s");
    CHECK(rights_with(0) == "---p");
}

TEST_CASE("Descriptors close on exec", "[emulated]") {
    const auto driver = make_emulated_driver();
    const Mapped memory(*driver, device_memory(kFabric | kPosixFd), {});
    int exported = -1;
    REQUIRE(driver->mem_export_to_shareable_handle(
                &exported, memory.handle(), static_cast<CUmemAllocationHandleType>(kPosixFd), 0) == CUDA_SUCCESS);
    const std::vector<int> numbers = memory_descriptors();
    CHECK(numbers.size() == 2);
    for (const int number : numbers) CHECK((::fcntl(number, F_GETFD) & FD_CLOEXEC) != 0);
    close_descriptor(exported);
}

TEST_CASE("An import by descriptor shares the memory that is there, and refuses other files", "[emulated]") {
    const auto driver = make_emulated_driver();
    const auto importer = make_emulated_driver();
    const Mapped memory(*driver, memory_at(kHostNuma, 0, kPosixFd), {});
    int exported = -1;
    const auto type = static_cast<CUmemAllocationHandleType>(kPosixFd);
    REQUIRE(driver->mem_export_to_shareable_handle(&exported, memory.handle(), type, 0) == CUDA_SUCCESS);
    const auto import = [&](Driver& by, int descriptor, CUmemGenericAllocationHandle* handle) {
        return by.mem_import_from_shareable_handle(
            handle, reinterpret_cast<void*>(static_cast<std::intptr_t>(descriptor)), type);
    };
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(import(*driver, exported, &handle) == CUDA_SUCCESS);
    CHECK(emulated_counts(*driver).descriptors == 1);
    CHECK(driver->mem_release(handle) == CUDA_SUCCESS);
    REQUIRE(import(*importer, exported, &handle) == CUDA_SUCCESS);
    close_descriptor(exported);  // the import has its own
    CUmemAllocationProp properties{};
    CHECK(importer->mem_get_allocation_properties_from_handle(&properties, handle) == CUDA_SUCCESS);
    CHECK(static_cast<int>(properties.location.type) == kHostNuma);
    CHECK(importer->mem_release(handle) == CUDA_SUCCESS);
    CHECK(import(*importer, 0, &handle) == CUDA_ERROR_UNKNOWN);
    CHECK(import(*importer, -1, &handle) == CUDA_ERROR_UNKNOWN);
}

TEST_CASE("The limit of descriptors is out of memory, and nothing is lost by it", "[emulated]") {
    if (kUnderAddressSanitizer) FABRICMEM_SKIP("UBSan's check of classes needs descriptors itself");
    const auto driver = make_emulated_driver();
    const Mapped memory(*driver, device_memory(kFabric), {});
    const FabricBytes bytes = export_of(*driver, memory);
    const EmulatedCounts before = emulated_counts(*driver);
    std::string said;
    const LogSinkForNow sink([&](LogLevel, std::string_view text) { said.append(text); });
    rlimit old{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &old) == 0);
    const rlimit none{0, old.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    const CUresult created = create(*driver, device_memory(kFabric));
    const CUresult imported = try_import(*driver, bytes);
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &old) == 0);
    CHECK(said.find("ulimit -n") != std::string::npos);
    CHECK(created == CUDA_ERROR_OUT_OF_MEMORY);
    CHECK(imported == CUDA_SUCCESS);  // of this process's own memory: it has the descriptor
    CHECK(emulated_counts(*driver) == before);
    CHECK(create(*driver, device_memory(kFabric), 80ULL << 30) == CUDA_ERROR_OUT_OF_MEMORY);  // 2 MiB are in use
    CHECK(create(*driver, device_memory(kFabric), (80ULL << 30) - kTwoMiB) == CUDA_SUCCESS);
}

TEST_CASE("A number that is no handle is INVALID_VALUE", "[emulated]") {
    const auto driver = make_emulated_driver();
    for (const CUmemGenericAllocationHandle handle : {0ULL, 1ULL, 0x123456789abcdefULL}) {
        CHECK(driver->mem_release(handle) == CUDA_ERROR_INVALID_VALUE);
        CUdeviceptr address = 0;
        REQUIRE(driver->mem_address_reserve(&address, kTwoMiB, 0, 0, 0) == CUDA_SUCCESS);
        CHECK(driver->mem_map(address, kTwoMiB, 0, handle, 0) == CUDA_ERROR_INVALID_VALUE);
        CHECK(driver->mem_address_free(address, kTwoMiB) == CUDA_SUCCESS);
    }
}

TEST_CASE("A descriptor used again does not bring other memory", "[emulated]") {
    const auto driver = make_emulated_driver();
    FabricBytes bytes{};
    int number = -1;
    {
        const Mapped memory(*driver, device_memory(kFabric), {});
        bytes = export_of(*driver, memory);
        number = memory_descriptors().at(0);
    }
    const Mapped next(*driver, device_memory(kFabric), {});
    REQUIRE(memory_descriptors().at(0) == number);
    CHECK(try_import(*driver, bytes) == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(try_import(*driver, export_of(*driver, next)) == CUDA_SUCCESS);
}

TEST_CASE("Every damaged byte of a handle is noticed", "[emulated]") {
    const auto driver = make_emulated_driver();
    const Mapped memory(*driver, device_memory(kFabric), {});
    const FabricBytes bytes = export_of(*driver, memory);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        for (const unsigned int flip : {0x01U, 0x80U, 0xffU}) {
            CAPTURE(i, flip);
            FabricBytes damaged = bytes;
            damaged[i] = static_cast<unsigned char>(damaged[i] ^ flip);
            const bool channel = i >= 40 && i < 44;
            CHECK(try_import(*driver, damaged) == (i == 16   ? CUDA_ERROR_NOT_READY
                                                   : channel ? CUDA_ERROR_NOT_PERMITTED
                                                             : CUDA_ERROR_NOT_SUPPORTED));
        }
    }
    CHECK(emulated_counts(*driver).handles == 1);
}

TEST_CASE("Another user's handles are NOT_PERMITTED", "[emulated]") {
    FABRICMEM_PEER_OR_SKIP();
    Peer exporter;
    const std::string hex = to_hex(exporter.export_memory());
    REQUIRE(exporter.ask("undumpable").code == 0);
    Peer importer;
    if (::geteuid() == 0) REQUIRE(importer.ask("become-user 65534").code == 0);
    CHECK(importer.ask("logged may not open a descriptor").values == std::vector<std::string>{"no"});
    CHECK(importer.code("import 0 " + hex) == CUDA_ERROR_NOT_PERMITTED);
    CHECK(importer.ask("logged may not open a descriptor").values == std::vector<std::string>{"yes"});
}

TEST_CASE("A process that was forked off can end its copy of the driver", "[emulated]") {
    // Many times, so that the emulator's thread holds a lock at some of the forks.
    for (int round = 0; round < 50; ++round) {
        auto driver = make_emulated_driver();
        const CurrentContext context(*driver);
        const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
        REQUIRE(driver->stream_wait_value32(nullptr, memory.address(), 1, CU_STREAM_WAIT_VALUE_EQ) == CUDA_SUCCESS);
        const pid_t child = ::fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            ::alarm(kPeerSeconds);
            const bool dead = driver->init(0) == CUDA_ERROR_NOT_INITIALIZED &&
                              driver->stream_synchronize(nullptr) == CUDA_ERROR_NOT_INITIALIZED &&
                              driver->mem_release(memory.handle()) == CUDA_ERROR_NOT_INITIALIZED &&
                              emulated_counts(*driver) == EmulatedCounts{};
            driver.reset();
            ::_exit(dead ? 0 : 1);
        }
        int status = -1;
        REQUIRE(::waitpid(child, &status, 0) == child);
        REQUIRE(status == 0);
    }
}

TEST_CASE("A process may exit with a live driver and pending work in a static", "[emulated]") {
    FABRICMEM_PEER_OR_SKIP();
    Peer peer;
    CHECK(peer.ask("exit-alive").code == -1);
    CHECK(peer.process().wait(in_seconds(kPeerSeconds)) == Ended{0, 0});
}
