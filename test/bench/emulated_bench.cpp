// SPDX-License-Identifier: Apache-2.0
// What each class of the emulated driver's calls takes, beside its goal: a table on stdout, no assertions. Always the
// emulated driver. A benchmark, not a test; build it optimised.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#include <fabricmem/counters.hpp>
#include <fabricmem/driver.hpp>
#include <fabricmem/emulated_driver.hpp>

#include "support/driver_kit.hpp"
#include "support/peer.hpp"

namespace {

using namespace fabricmem;
using namespace fabricmem::test;

constexpr double kNoGoal = 0;
constexpr std::size_t kPage = 4096;
constexpr std::size_t k64MiB = std::size_t{64} << 20;

void require(CUresult result) {
    if (result == CUDA_SUCCESS) return;
    std::printf("a call answers %d\n", static_cast<int>(result));
    std::exit(1);
}

/// Times `count` calls of `call` in a row, `rounds` times, between `before` and `after`; prints the median, the first
/// and the ninth decile of a call's time, in microseconds.
void measure(
    const char* name, double goal_us, std::size_t count, const std::function<void(std::size_t)>& call,
    const std::function<void()>& before = [] {}, const std::function<void()>& after = [] {}) {
    constexpr std::size_t kRounds = 101;
    std::vector<double> us;
    for (std::size_t round = 0; round < kRounds; ++round) {
        before();
        const auto start = std::chrono::steady_clock::now();
        for (std::size_t i = 0; i < count; ++i) call(i);
        const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
        after();
        us.push_back(took.count() / static_cast<double>(count));
    }
    std::sort(us.begin(), us.end());
    const double median = us[kRounds / 2];
    std::printf("| %-58s | %8.3f | %8.3f | %8.3f |", name, median, us[kRounds / 10], us[kRounds * 9 / 10]);
    if (goal_us == kNoGoal) {
        std::printf("          |\n");
    } else {
        std::printf(" %4.1f %-4s|\n", goal_us, median <= goal_us ? "met" : "OVER");
    }
}

constexpr std::size_t kMany = 2000;  // calls that enter no kernel
constexpr std::size_t kSome = 64;    // calls that make or end something: as many are there at a time

// --- calls that enter no kernel
// -----------------------------------------------------------------------------------------

void bench_questions(Driver& driver, const Mapped& memory) {
    constexpr double kGoal = 0.5;
    int number = 0;
    measure("cuDeviceGetCount", kGoal, kMany, [&](std::size_t) { driver.device_get_count(&number); });
    measure("cuDeviceGetAttribute", kGoal, kMany,
            [&](std::size_t) { driver.device_get_attribute(&number, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0); });
    CUuuid uuid{};
    measure("cuDeviceGetUuid", kGoal, kMany, [&](std::size_t) { driver.device_get_uuid(&uuid, 0); });
    std::size_t bytes = 0;
    measure("cuDeviceTotalMem", kGoal, kMany, [&](std::size_t) { driver.device_total_mem(&bytes, 0); });
    measure("cuDeviceCanAccessPeer", kGoal, kMany, [&](std::size_t) { driver.device_can_access_peer(&number, 0, 1); });
    const CUmemAllocationProp wanted = device_memory(kFabric);
    measure("cuMemGetAllocationGranularity", kGoal, kMany, [&](std::size_t) {
        driver.mem_get_allocation_granularity(&bytes, &wanted, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    });
    CUmemAllocationProp properties{};
    measure("cuMemGetAllocationPropertiesFromHandle", kGoal, kMany,
            [&](std::size_t) { driver.mem_get_allocation_properties_from_handle(&properties, memory.handle()); });
    CUmemGenericAllocationHandle handle = 0;
    void* const address = reinterpret_cast<void*>(memory.address());
    measure("cuMemRetainAllocationHandle + cuMemRelease", 2 * kGoal, kMany, [&](std::size_t) {
        driver.mem_retain_allocation_handle(&handle, address);
        driver.mem_release(handle);
    });
    CUdeviceptr base = 0;
    measure("cuMemGetAddressRange", kGoal, kMany,
            [&](std::size_t) { driver.mem_get_address_range(&base, &bytes, memory.address()); });
    unsigned long long flags = 0;
    const CUmemLocation place = wanted.location;
    measure("cuMemGetAccess", kGoal, kMany,
            [&](std::size_t) { driver.mem_get_access(&flags, &place, memory.address()); });
}

void bench_pointers_and_contexts(Driver& driver, const Mapped& memory) {
    constexpr double kGoal = 0.5;
    unsigned int type = 0;
    measure("cuPointerGetAttribute", kGoal, kMany, [&](std::size_t) {
        driver.pointer_get_attribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, memory.address());
    });
    std::uint64_t size = 0;
    CUpointer_attribute attributes[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_RANGE_SIZE};
    void* values[] = {&type, &size};
    measure("cuPointerGetAttributes, two of them", kGoal, kMany,
            [&](std::size_t) { driver.pointer_get_attributes(2, attributes, values, memory.address()); });
    CUcontext context = nullptr;
    measure("cuCtxGetCurrent", kGoal, kMany, [&](std::size_t) { driver.ctx_get_current(&context); });
    measure("cuCtxSetCurrent", kGoal, kMany, [&](std::size_t) { driver.ctx_set_current(context); });
    measure("cuCtxPushCurrent + cuCtxPopCurrent", 2 * kGoal, kMany, [&](std::size_t) {
        driver.ctx_push_current(context);
        driver.ctx_pop_current(&context);
    });
    measure("cuDevicePrimaryCtxRetain + cuDevicePrimaryCtxRelease", 2 * kGoal, kMany, [&](std::size_t) {
        driver.device_primary_ctx_retain(&context, 0);
        driver.device_primary_ctx_release(0);
    });
    measure("cuStreamQuery of the null stream", kGoal, kMany, [&](std::size_t) { driver.stream_query(nullptr); });
    std::uint32_t word = 7;
    measure("cuMemcpyHtoD of 4 bytes", kNoGoal, kMany,
            [&](std::size_t) { driver.memcpy_htod(memory.address(), &word, sizeof word); });
    measure("cuMemcpyDtoH of 4 bytes", kNoGoal, kMany,
            [&](std::size_t) { driver.memcpy_dtoh(&word, memory.address(), sizeof word); });
}

// --- the life of an allocation
// ------------------------------------------------------------------------------------------

struct Life {
    CUmemGenericAllocationHandle handle = 0;
    CUdeviceptr address = 0;
    FabricBytes exported{};
};

class Lives {
public:
    Lives(Driver& driver, const CUmemAllocationProp& wanted, const std::vector<CUmemAccessDesc>& access)
        : driver_(driver), wanted_(wanted), access_(access), lives_(kSome) {}

    void create(std::size_t i) { require(driver_.mem_create(&lives_[i].handle, kTwoMiB, &wanted_, 0)); }
    void reserve(std::size_t i) { require(driver_.mem_address_reserve(&lives_[i].address, kTwoMiB, 0, 0, 0)); }
    void map(std::size_t i) { require(driver_.mem_map(lives_[i].address, kTwoMiB, 0, lives_[i].handle, 0)); }
    void give_access(std::size_t i) {
        require(driver_.mem_set_access(lives_[i].address, kTwoMiB, access_.data(), access_.size()));
    }
    void export_it(std::size_t i) { require(export_fabric(driver_, lives_[i].handle, &lives_[i].exported)); }
    void unmap(std::size_t i) { require(driver_.mem_unmap(lives_[i].address, kTwoMiB)); }
    void release(std::size_t i) { require(driver_.mem_release(lives_[i].handle)); }
    void free(std::size_t i) { require(driver_.mem_address_free(lives_[i].address, kTwoMiB)); }

    void all(void (Lives::*step)(std::size_t)) {
        for (std::size_t i = 0; i < kSome; ++i) (this->*step)(i);
    }
    [[nodiscard]] const FabricBytes& exported(std::size_t i) const { return lives_[i].exported; }

private:
    Driver& driver_;
    CUmemAllocationProp wanted_;
    std::vector<CUmemAccessDesc> access_;
    std::vector<Life> lives_;
};

void bench_life(Driver& driver, const char* what, const CUmemAllocationProp& wanted,
                const std::vector<CUmemAccessDesc>& access) {
    const auto named = [&](const char* call) {
        static char text[80];
        std::snprintf(text, sizeof text, "%s, %s", call, what);
        return text;
    };
    Lives lives(driver, wanted, access);
    const auto step = [&](void (Lives::*call)(std::size_t)) {
        return [&lives, call](std::size_t i) { (lives.*call)(i); };
    };
    const auto steps = [&](std::vector<void (Lives::*)(std::size_t)> calls) {
        return [&lives, calls] {
            for (const auto call : calls) lives.all(call);
        };
    };
    using L = Lives;
    measure(named("cuMemAddressReserve"), 5, kSome, step(&L::reserve), steps({}), steps({&L::free}));
    measure(named("cuMemCreate"), 15, kSome, step(&L::create), steps({}), steps({&L::release}));
    measure(named("cuMemMap"), 5, kSome, step(&L::map), steps({&L::reserve, &L::create}),
            steps({&L::unmap, &L::release, &L::free}));
    measure(named("cuMemSetAccess"), 5, kSome, step(&L::give_access), steps({&L::reserve, &L::create, &L::map}),
            steps({&L::unmap, &L::release, &L::free}));
    measure(named("cuMemExportToShareableHandle, fabric"), 5, kSome, step(&L::export_it), steps({&L::create}),
            steps({&L::release}));
    measure(named("cuMemUnmap"), kNoGoal, kSome, step(&L::unmap),
            steps({&L::reserve, &L::create, &L::map, &L::give_access}), steps({&L::release, &L::free}));
    measure(named("cuMemRelease of untouched memory"), kNoGoal, kSome, step(&L::release), steps({&L::create}),
            steps({}));
    measure(named("cuMemAddressFree"), kNoGoal, kSome, step(&L::free), steps({&L::reserve}), steps({}));
}

void bench_imports(Driver& driver) {
    std::vector<FabricBytes> own;
    Lives lives(driver, device_memory(kFabric), {});
    lives.all(&Lives::create);
    lives.all(&Lives::export_it);
    std::vector<CUmemGenericAllocationHandle> handles(kSome);
    const auto release_all = [&](Driver& by) {
        for (const auto handle : handles) require(by.mem_release(handle));
    };
    measure(
        "cuMemImportFromShareableHandle, of the process's own", 15, kSome,
        [&](std::size_t i) { require(import_fabric(driver, lives.exported(i), &handles[i])); }, [] {},
        [&] { release_all(driver); });
    const auto other = make_emulated_driver({.node = "another"});
    measure(
        "cuMemImportFromShareableHandle, of another driver's here", 15, kSome,
        [&](std::size_t i) { require(import_fabric(*other, lives.exported(i), &handles[i])); }, [] {},
        [&] { release_all(*other); });
    lives.all(&Lives::release);

    Peer peer;
    std::vector<FabricBytes> theirs;
    for (std::size_t i = 0; i < kSome; ++i) {
        theirs.push_back(from_hex(peer.ask("export " + std::to_string(i) + " device 8").values.at(0)));
    }
    const auto import = [&](std::size_t i) { require(import_fabric(driver, theirs[i], &handles[i])); };
    measure(
        "cuMemImportFromShareableHandle, of another process's", 15, kSome, import, [] {}, [&] { release_all(driver); });
    measure(
        "cuMemRelease of such an import", kNoGoal, kSome,
        [&](std::size_t i) { require(driver.mem_release(handles[i])); },
        [&] {
            for (std::size_t i = 0; i < kSome; ++i) import(i);
        });
    std::vector<CUmemGenericAllocationHandle> kept;
    for (std::size_t i = 0; i < kSome; ++i) {
        import(i);
        kept.push_back(handles[i]);
    }
    measure(
        "cuMemImportFromShareableHandle, of one that is imported", 15, kSome, import, [] {},
        [&] { release_all(driver); });
    for (const auto handle : kept) require(driver.mem_release(handle));
}

// --- releases
// -----------------------------------------------------------------------------------------------------------

void bench_release(Driver& driver, std::size_t bytes, std::size_t touched_pages) {
    constexpr std::size_t kCount = 4;
    std::vector<std::unique_ptr<Mapped>> memories(kCount);
    const std::vector<unsigned char> page(kPage, 1);
    const auto before = [&] {
        for (auto& memory : memories) {
            memory = std::make_unique<Mapped>(driver, device_memory(kFabric), std::vector{access_for(kDevice)}, bytes);
            require(memory->result());
            const std::size_t apart = touched_pages < 2 ? 0 : bytes / touched_pages;
            for (std::size_t i = 0; i < touched_pages; ++i) {
                require(driver.memcpy_htod(memory->address() + i * apart, page.data(), kPage));
            }
            require(memory->unmap());
        }
    };
    char name[80];
    std::snprintf(name, sizeof name, "cuMemRelease, %zu MiB, %zu pages of 4 KiB touched", bytes >> 20, touched_pages);
    measure(
        name, kNoGoal, kCount, [&](std::size_t i) { require(memories[i]->release()); }, before);
}

// What counting adds, at the cheapest call there is.
void bench_counting(const std::shared_ptr<Driver>& driver) {
    const auto counting = make_counting_driver(driver);
    int number = 0;
    measure("cuDeviceGetCount, not counted", kNoGoal, kMany, [&](std::size_t) { driver->device_get_count(&number); });
    measure("cuDeviceGetCount, by a counting driver", kNoGoal, kMany,
            [&](std::size_t) { counting->device_get_count(&number); });
}

}  // namespace

int main() {
    ::setenv("FABRICMEM_TEST_DRIVER", "emulated", 1);  // for the second process
    std::printf("the emulated driver; microseconds a call\n");
    std::printf("| %-58s | %8s | %8s | %8s | %-9s|\n", "call", "median", "1st dec.", "9th dec.", "goal");
    std::printf("| --- | --- | --- | --- | --- |\n");
    const auto driver = make_emulated_driver({.devices = 2});
    const CurrentContext context(*driver);
    {
        const Mapped memory(*driver, device_memory(kFabric), {access_for(kDevice)});
        require(memory.result());
        bench_questions(*driver, memory);
        bench_pointers_and_contexts(*driver, memory);
    }
    bench_counting(driver);
    bench_life(*driver, "device", device_memory(kFabric), {access_for(kDevice)});
    bench_life(*driver, "host", host_memory(kFabric), {access_for(kDevice), access_for(kHostNuma)});
    bench_imports(*driver);
    for (const std::size_t bytes : {kTwoMiB, k64MiB}) {
        for (const std::size_t pages : {std::size_t{0}, std::size_t{1}, std::size_t{512}})
            bench_release(*driver, bytes, pages);
    }
}
