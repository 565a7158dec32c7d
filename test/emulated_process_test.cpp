// SPDX-License-Identifier: Apache-2.0
// What the emulated drivers of one process share, and the limits of a process that they meet. The files that make
// handles and name limits are compiled in here under another namespace, since the library hides them.
#define emulated emulated_for_test
#include "emulated/fabric_handle.cpp"
#include "emulated/limits.cpp"
#include "emulated/process.cpp"
#undef emulated

#include <fabricmem/emulated_driver.hpp>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include <fabricmem/log.hpp>

#include "support/buffers.hpp"
#include "support/build.hpp"
#include "support/driver_kit.hpp"
#include "support/peer.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;
using detail::emulated_for_test::decode;
using detail::emulated_for_test::encode;
using detail::emulated_for_test::FabricHandle;

namespace {

FabricBytes export_of(Driver& driver, const Mapped& memory) {
    REQUIRE(memory.result() == CUDA_SUCCESS);
    FabricBytes bytes{};
    REQUIRE(export_fabric(driver, memory.handle(), &bytes) == CUDA_SUCCESS);
    return bytes;
}

Mapped import_of(Driver& driver, const FabricBytes& bytes) {
    CUmemGenericAllocationHandle handle = 0;
    REQUIRE(import_fabric(driver, bytes, &handle) == CUDA_SUCCESS);
    return Mapped(driver, handle, {access_for(kDevice)});
}

CUresult try_import(Driver& driver, const FabricBytes& bytes) {
    CUmemGenericAllocationHandle handle = 0;
    const CUresult result = import_fabric(driver, bytes, &handle);
    if (result == CUDA_SUCCESS) driver.mem_release(handle);
    return result;
}

std::size_t memory_descriptors() {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code error;
        const std::string target = std::filesystem::read_symlink(entry.path(), error).string();
        if (target.find("memfd:fabricmem") != std::string::npos) ++count;
    }
    return count;
}

// Kernel mappings of emulated memory. Not /proc/self/maps, which user-mode emulators invent.
std::size_t memory_mappings() {
    std::ifstream maps("/proc/self/task/" + std::to_string(::getpid()) + "/maps");
    std::size_t lines = 0;
    for (std::string line; std::getline(maps, line);) {
        if (line.find("memfd:fabricmem") != std::string::npos) ++lines;
    }
    return lines;
}

std::uint32_t read_word(Driver& driver, CUdeviceptr address) {
    std::uint32_t value = 0;
    CHECK(driver.memcpy_dtoh(&value, address, sizeof value) == CUDA_SUCCESS);
    return value;
}

std::shared_ptr<Driver> driver_of(const std::string& node) { return make_emulated_driver({.node = node}); }

// A soft limit of this process, for the scope.
class Limited {
public:
    Limited(decltype(RLIMIT_AS) resource, rlim_t soft) : resource_(resource) {
        REQUIRE(::getrlimit(resource_, &old_) == 0);
        const rlimit now{soft, old_.rlim_max};
        REQUIRE(::setrlimit(resource_, &now) == 0);
    }
    Limited(const Limited&) = delete;
    Limited& operator=(const Limited&) = delete;
    ~Limited() { ::setrlimit(resource_, &old_); }

private:
    decltype(RLIMIT_AS) resource_;
    rlimit old_{};
};

rlim_t address_space_in_use() {
    std::ifstream file("/proc/self/statm");
    rlim_t pages = 0;
    file >> pages;
    return pages * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE));
}

int lowest_free_descriptor() {
    const int number = ::dup(STDIN_FILENO);
    close_descriptor(number);
    return number;
}

// Maps one memory for the host at as many addresses as the kernel allows, each a mapping of the kernel's own.
class MappingsToTheLimit {
public:
    explicit MappingsToTheLimit(Driver& driver) : driver_(driver), memory_(driver, host_memory(kFabric), {}) {
        while (result_ == CUDA_SUCCESS) map_once();
    }
    MappingsToTheLimit(const MappingsToTheLimit&) = delete;
    MappingsToTheLimit& operator=(const MappingsToTheLimit&) = delete;

    [[nodiscard]] CUresult result() const { return result_; }
    [[nodiscard]] std::size_t count() const { return addresses_.size(); }

    /// The first failure's code.
    CUresult undo() {
        CUresult result = CUDA_SUCCESS;
        const auto keep = [&](CUresult now) {
            if (result == CUDA_SUCCESS) result = now;
        };
        for (const CUdeviceptr address : addresses_) keep(driver_.mem_unmap(address, kTwoMiB));
        for (const CUdeviceptr address : addresses_) keep(driver_.mem_address_free(address, kTwoMiB));
        keep(memory_.destroy());
        return result;
    }

private:
    void map_once() {
        CUdeviceptr address = 0;
        result_ = driver_.mem_address_reserve(&address, kTwoMiB, 0, 0, 0);
        if (result_ != CUDA_SUCCESS) return;
        addresses_.push_back(address);
        result_ = driver_.mem_map(address, kTwoMiB, 0, memory_.handle(), 0);
        const CUmemAccessDesc access = access_for(kHostNuma);
        if (result_ == CUDA_SUCCESS) result_ = driver_.mem_set_access(address, kTwoMiB, &access, 1);
    }

    Driver& driver_;
    Mapped memory_;
    std::vector<CUdeviceptr> addresses_;
    CUresult result_ = CUDA_SUCCESS;
};

}  // namespace

TEST_CASE("Drivers of one process share one descriptor and one alias of an allocation", "[emulated]") {
    constexpr std::size_t kImporters = 8;
    const auto exporter = driver_of("exporter");
    const CurrentContext context(*exporter);
    const Mapped memory(*exporter, device_memory(kFabric | kPosixFd), {access_for(kDevice)});
    const FabricBytes bytes = export_of(*exporter, memory);
    std::vector<std::shared_ptr<Driver>> drivers;
    std::vector<std::unique_ptr<Mapped>> imports;
    for (std::size_t i = 0; i < kImporters; ++i) {
        Driver& driver = *drivers.emplace_back(driver_of("importer" + std::to_string(i)));
        CUmemGenericAllocationHandle handle = 0;
        REQUIRE(import_fabric(driver, bytes, &handle) == CUDA_SUCCESS);
        imports.push_back(std::make_unique<Mapped>(driver, handle, std::vector{access_for(kDevice)}));
        const CurrentContext here(driver);
        const auto value = static_cast<std::uint32_t>(100 + i);
        REQUIRE(driver.memcpy_htod(imports.back()->address() + 4 * i, &value, sizeof value) == CUDA_SUCCESS);
        CHECK(emulated_counts(driver).descriptors == 1);
        CHECK(emulated_counts(driver).aliases == 1);
    }
    int exported = -1;
    const auto posix = static_cast<CUmemAllocationHandleType>(kPosixFd);
    REQUIRE(exporter->mem_export_to_shareable_handle(&exported, memory.handle(), posix, 0) == CUDA_SUCCESS);
    const auto by_descriptor = driver_of("by descriptor");
    CUmemGenericAllocationHandle handle = 0;
    void* const passed = reinterpret_cast<void*>(static_cast<std::intptr_t>(exported));
    REQUIRE(by_descriptor->mem_import_from_shareable_handle(&handle, passed, posix) == CUDA_SUCCESS);
    close_descriptor(exported);
    CHECK(emulated_counts(*by_descriptor).descriptors == 1);
    CHECK(emulated_counts(*exporter).aliases == 0);
    for (std::size_t i = 0; i < kImporters; ++i) CHECK(read_word(*exporter, memory.address() + 4 * i) == 100 + i);
    CHECK(memory_descriptors() == 1);
    CHECK(memory_mappings() == 1);
    imports.clear();
    for (const auto& driver : drivers) CHECK(emulated_counts(*driver).aliases == 0);
    CHECK(emulated_counts(*exporter).aliases == 1);
}

TEST_CASE("A handle ends with its exporter although another driver of the process keeps the memory", "[emulated]") {
    FABRICMEM_PEER_OR_SKIP();
    Peer other_process;
    auto exporter = driver_of("exporter");
    const auto importer = driver_of("importer");
    const CurrentContext context(*importer);
    auto memory = std::make_unique<Mapped>(*exporter, device_memory(kFabric), std::vector{access_for(kDevice)});
    const FabricBytes bytes = export_of(*exporter, *memory);
    const Mapped imported = import_of(*importer, bytes);
    REQUIRE(driver_of("third") != nullptr);
    CHECK(try_import(*driver_of("third"), bytes) == CUDA_SUCCESS);
    CHECK(other_process.code("import 0 " + to_hex(bytes)) == CUDA_SUCCESS);
    REQUIRE(importer->memset_d8(imported.address(), 0x5a, kTwoMiB) == CUDA_SUCCESS);

    SECTION("that releases it") { memory.reset(); }
    SECTION("that ends while it has it") {
        memory->abandon();
        exporter.reset();
    }
    CHECK(try_import(*importer, bytes) == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(try_import(*driver_of("third"), bytes) == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(other_process.code("import 1 " + to_hex(bytes)) == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(read_word(*importer, imported.address() + kTwoMiB - 4) == 0x5a5a5a5a);
}

TEST_CASE("A handle with the number of a process that is known, but another start, is refused", "[emulated]") {
    FABRICMEM_PEER_OR_SKIP();
    Peer peer;
    const auto driver = make_emulated_driver();
    const FabricBytes bytes = peer.export_memory();
    CHECK(try_import(*driver, bytes) == CUDA_SUCCESS);
    CHECK(try_import(*driver, bytes) == CUDA_SUCCESS);  // by what was remembered of it
    FabricHandle handle;
    REQUIRE(decode(bytes, &handle) == CUDA_SUCCESS);
    ++handle.process_start;
    CHECK(try_import(*driver, encode(handle)) == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(try_import(*driver, bytes) == CUDA_SUCCESS);
    peer.process().signal(SIGKILL);
    REQUIRE(peer.process().wait(in_seconds(kPeerSeconds)) == Ended{-1, SIGKILL});
    CHECK(try_import(*driver, bytes) == CUDA_ERROR_NOT_SUPPORTED);
}

TEST_CASE("Memory that several drivers of a process hold is charged to its maker alone", "[emulated]") {
    EmulatedOptions options{.device_memory_bytes = kTwoMiB, .node = "maker"};
    const auto maker = make_emulated_driver(options);
    options.node = "importer";
    const auto importer = make_emulated_driver(options);
    std::unique_ptr<Mapped> imported;
    {
        const Mapped memory(*maker, device_memory(kFabric), {});
        CUmemGenericAllocationHandle handle = 0;
        REQUIRE(import_fabric(*importer, export_of(*maker, memory), &handle) == CUDA_SUCCESS);
        imported = std::make_unique<Mapped>(*importer, handle, std::vector<CUmemAccessDesc>{});
        CHECK(Mapped(*maker, device_memory(kFabric), {}).result() == CUDA_ERROR_OUT_OF_MEMORY);
        CHECK(Mapped(*importer, device_memory(kFabric), {}).result() == CUDA_SUCCESS);
    }
    CHECK(Mapped(*maker, device_memory(kFabric), {}).result() == CUDA_SUCCESS);
    CHECK(emulated_counts(*maker) == EmulatedCounts{});
    CHECK(emulated_counts(*importer).allocations == 1);
}

TEST_CASE("Drivers of one process may import and release one allocation at the same time", "[emulated]") {
    constexpr unsigned int kThreads = 4;
    const int rounds = kSlowBuild ? 50 : 500;
    const auto exporter = driver_of("exporter");
    const Mapped memory(*exporter, device_memory(kFabric), {access_for(kDevice)});
    const FabricBytes bytes = export_of(*exporter, memory);
    std::vector<std::thread> threads;
    std::atomic<int> failures{0};
    for (unsigned int i = 0; i < kThreads; ++i) {
        threads.emplace_back([&, i] {
            const auto driver = driver_of("importer" + std::to_string(i));
            const CurrentContext context(*driver);
            for (int round = 0; round < rounds; ++round) {
                CUmemGenericAllocationHandle handle = 0;
                if (import_fabric(*driver, bytes, &handle) != CUDA_SUCCESS) ++failures;
                const Mapped imported(*driver, handle, {access_for(kDevice)});
                const auto value = static_cast<std::uint32_t>(round);
                if (driver->memcpy_htod(imported.address() + 4 * i, &value, sizeof value) != CUDA_SUCCESS) ++failures;
            }
            if (emulated_counts(*driver).descriptors != 0) ++failures;
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(failures == 0);
    const CurrentContext context(*exporter);
    for (unsigned int i = 0; i < kThreads; ++i) {
        CHECK(read_word(*exporter, memory.address() + 4 * i) == static_cast<std::uint32_t>(rounds - 1));
    }
}

TEST_CASE("A forked child's new driver works, whatever its parent's threads were doing", "[emulated]") {
    const auto exporter = driver_of("exporter");
    const Mapped memory(*exporter, device_memory(kFabric), {});
    const FabricBytes bytes = export_of(*exporter, memory);
    std::atomic<bool> stop{false};
    std::thread busy([&] {  // so that the table is locked at some of the forks
        const auto driver = driver_of("busy");
        while (!stop) static_cast<void>(try_import(*driver, bytes));
    });
    int good = 0;
    constexpr int kForks = 20;
    for (int round = 0; round < kForks; ++round) {
        const pid_t child = ::fork();
        if (child == 0) {
            ::alarm(kPeerSeconds);
            const auto driver = driver_of("child");
            CUmemGenericAllocationHandle parents = 0;
            CUmemGenericAllocationHandle own = 0;
            bool works = import_fabric(*driver, bytes, &parents) == CUDA_SUCCESS;
            {
                const Mapped made(*driver, device_memory(kFabric), {});
                FabricBytes exported{};
                works = works && export_fabric(*driver, made.handle(), &exported) == CUDA_SUCCESS &&
                        import_fabric(*driver, exported, &own) == CUDA_SUCCESS;
                works = works && emulated_counts(*driver).descriptors == 2;
            }
            ::_exit(works ? 0 : 1);
        }
        int status = -1;
        if (::waitpid(child, &status, 0) == child && status == 0) ++good;
    }
    stop = true;
    busy.join();
    CHECK(good == kForks);
}

TEST_CASE("A file size limit is out of memory and no signal, and the log names it", "[emulated][limits]") {
    const auto driver = make_emulated_driver();
    const CapturedLog log;
    {
        const Limited limit(RLIMIT_FSIZE, kTwoMiB);
        CHECK(Mapped(*driver, device_memory(kFabric), {}, 2 * kTwoMiB).result() == CUDA_ERROR_OUT_OF_MEMORY);
        CHECK(Mapped(*driver, device_memory(kFabric), {}).result() == CUDA_SUCCESS);
    }
    CHECK(log.text().find("(ulimit -f), which is 2048 KiB") != std::string::npos);
    CHECK(emulated_counts(*driver) == EmulatedCounts{});
}

TEST_CASE("An address space limit is out of memory, and the log names it", "[emulated][limits]") {
    if (kSlowBuild) FABRICMEM_SKIP("sanitizers and user-mode emulators reserve address space of their own");
    const auto driver = make_emulated_driver();
    const CapturedLog log;
    constexpr std::size_t kBytes = std::size_t{256} << 20;
    CUdeviceptr address = 0;
    {
        const Limited limit(RLIMIT_AS, address_space_in_use() + kBytes / 2);
        CHECK(driver->mem_address_reserve(&address, kBytes, 0, 0, 0) == CUDA_ERROR_OUT_OF_MEMORY);
    }
    CHECK(log.text().find("address space (ulimit -v), which is ") != std::string::npos);
    CHECK(driver->mem_address_reserve(&address, kBytes, 0, 0, 0) == CUDA_SUCCESS);
    CHECK(driver->mem_address_free(address, kBytes) == CUDA_SUCCESS);
}

TEST_CASE("The descriptor limit is out of memory in create, import and export, and the log names it",
          "[emulated][limits]") {
    if (kSlowBuild) FABRICMEM_SKIP("sanitizers and user-mode emulators need descriptors themselves");
    FABRICMEM_PEER_OR_SKIP();
    Peer peer;
    const FabricBytes bytes = peer.export_memory();
    const auto driver = make_emulated_driver();
    const auto held =
        std::make_unique<Mapped>(*driver, device_memory(kFabric | kPosixFd), std::vector<CUmemAccessDesc>{});
    const FabricBytes own = export_of(*driver, *held);
    const EmulatedCounts before = emulated_counts(*driver);
    const int free = lowest_free_descriptor();
    const std::string named = "(ulimit -n), which is " + std::to_string(free) + ": ";
    const CapturedLog log;
    {
        const Limited limit(RLIMIT_NOFILE, static_cast<rlim_t>(free));
        CHECK(Mapped(*driver, device_memory(kFabric), {}).result() == CUDA_ERROR_OUT_OF_MEMORY);
        CHECK(try_import(*driver, bytes) == CUDA_ERROR_OUT_OF_MEMORY);
        CHECK(try_import(*driver_of("another"), own) == CUDA_SUCCESS);  // needs no descriptor of its own
        int exported = -1;
        CHECK(driver->mem_export_to_shareable_handle(&exported, held->handle(),
                                                     static_cast<CUmemAllocationHandleType>(kPosixFd),
                                                     0) == CUDA_ERROR_OUT_OF_MEMORY);
    }
    CHECK(log.text().find(named + "memfd_create failed") != std::string::npos);
    CHECK(log.text().find(named + "open of the exporter's descriptor failed") != std::string::npos);
    CHECK(log.text().find(named + "fcntl failed") != std::string::npos);
    CHECK(emulated_counts(*driver) == before);
    CHECK(try_import(*driver, bytes) == CUDA_SUCCESS);
}

TEST_CASE("The limit of a process's mappings is out of memory, and all of them can be undone", "[emulated][limits]") {
    if (kSlowBuild) FABRICMEM_SKIP("sanitizers and user-mode emulators use mappings themselves");
    long long most = 0;
    std::ifstream("/proc/sys/vm/max_map_count") >> most;
    if (most <= 0 || most > 100'000) FABRICMEM_SKIP("vm.max_map_count is " + std::to_string(most) + ": too many");
    const auto driver = make_emulated_driver();
    const CapturedLog log;
    MappingsToTheLimit mappings(*driver);
    CHECK(mappings.result() == CUDA_ERROR_OUT_OF_MEMORY);
    CHECK(mappings.count() > static_cast<std::size_t>(most) / 2 - 1000);
    CHECK(log.text().find("(vm.max_map_count), which is " + std::to_string(most)) != std::string::npos);
    CHECK(mappings.undo() == CUDA_SUCCESS);
    CHECK(emulated_counts(*driver) == EmulatedCounts{});
    CHECK(memory_mappings() == 0);
}

TEST_CASE("Every limit that a system call can meet is named", "[emulated][limits]") {
    const CapturedLog log;
    using detail::emulated_for_test::out_of_memory;
    CHECK(out_of_memory("pwrite", ENOSPC) == CUDA_ERROR_OUT_OF_MEMORY);
    CHECK(log.text().find("the machine's shared memory: pwrite failed with No space left on device") !=
          std::string::npos);
    CHECK(out_of_memory("open", ENFILE) == CUDA_ERROR_OUT_OF_MEMORY);
    CHECK(log.text().find("(fs.file-max)") != std::string::npos);
    CHECK(out_of_memory("mmap", ENOMEM) == CUDA_ERROR_OUT_OF_MEMORY);
    CHECK(log.text().find("mmap failed with Cannot allocate memory") != std::string::npos);
}

TEST_CASE("A batch from pinned memory into host memory without host access ends the process of an emulated importer",
          "[emulated]") {
    FABRICMEM_PEER_OR_SKIP();
    const auto driver = make_emulated_driver();
    const Mapped host(*driver, host_memory(kFabric), {});
    FabricBytes bytes{};
    REQUIRE(export_fabric(*driver, host.handle(), &bytes) == CUDA_SUCCESS);
    Peer peer;
    CHECK(peer.code("import 0 " + to_hex(bytes)) == CUDA_SUCCESS);
    CHECK(peer.code("map 0 device 3") == CUDA_SUCCESS);
    CHECK(peer.code("batch 0 64 6 pinned") == -1);
    CHECK(peer.process().wait(in_seconds(kPeerSeconds)) == Ended{-1, SIGSEGV});
}
