// SPDX-License-Identifier: Apache-2.0
// What a FabricBuffer promises, on every driver at hand: [each] cases run on the real one too.
#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/fault_driver.hpp>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "support/buffers.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

const std::vector<Location>& both_locations() {
    static const std::vector<Location> locations{Location::device(0), Location::host_numa(0)};
    return locations;
}

}  // namespace

TEST_CASE("A buffer tells what was asked and what was granted", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const Location& location : both_locations()) {
        CAPTURE(to_string(location));
        const FabricBuffer buffer(driver, kMiB + 1, {.location = location});
        CHECK(buffer.address() != nullptr);
        CHECK(buffer.bytes() == kMiB + 1);
        CHECK(buffer.granularity() == 2 * kMiB);
        CHECK(buffer.mapped_bytes() == 2 * kMiB);
        CHECK(buffer.location() == location);
        CHECK(buffer.kinds().has(HandleKind::fabric));
        CHECK(buffer.access().devices.front() == 0);
        CHECK(buffer.access().host == location.is_host());
        CHECK(buffer.driver() == driver);
        CHECK(buffer.is_open());
    }
}

TEST_CASE("A buffer's blob says where the memory is and who made it", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Id128 peer{{1, 2, 3}};
    const FabricBuffer buffer(driver, 5000, {.location = Location::device(0), .peer = peer, .generation = 7});
    const HandleBlob& blob = buffer.blob();
    blob.validate();
    CHECK(blob.kinds == HandleKinds(HandleKind::fabric));
    CHECK(blob.location_kind == LocationKind::device);
    CHECK(blob.device_uuid.has_value());
    CHECK_FALSE(blob.device_uuid->is_zero());
    CHECK(blob.bytes == 5000);
    CHECK(blob.offset == 0);
    CHECK(blob.mapped_bytes == buffer.mapped_bytes());
    CHECK(blob.granularity == buffer.granularity());
    CHECK(blob.peer == peer);
    CHECK(blob.generation == 7);
    CHECK(blob.boot_id == driver->platform().boot_id());
    CHECK(blob.process_id == driver->platform().process_id());
    CHECK(blob.process_start.has_value());
    CHECK(blob.imex_channel.has_value());
    CHECK(blob.rdma == buffer.rdma());
    CHECK(blob.created_ns.value_or(0) > 1'700'000'000'000'000'000U);
    CHECK(HandleBlob::from_bytes(blob.to_bytes()) == blob);
    const FabricBuffer other(driver, 5000);
    CHECK(other.blob().allocation_id != blob.allocation_id);
}

TEST_CASE("A buffer exported again is the same memory, under a blob of now", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(under_test);
    const auto driver = std::make_shared<FaultDriver>(under_test);
    FabricBuffer buffer(driver, 5000, {.location = Location::host_numa(0), .generation = 7});
    static_cast<unsigned char*>(buffer.address())[4999] = 0x5a;
    driver->forget();
    HandleBlob again = buffer.export_again();
    CHECK(driver->calls() == std::vector<std::string>{"mem_export_to_shareable_handle"});
    CHECK(again.created_ns.value_or(0) > buffer.blob().created_ns.value_or(0));
    {
        const ImportedFabricBuffer peer(driver, again);
        CHECK(peer.bytes() == 5000);
        CHECK(static_cast<const unsigned char*>(peer.address())[4999] == 0x5a);
    }
    again.created_ns = buffer.blob().created_ns;
    again.handle = buffer.blob().handle;
    CHECK(again == buffer.blob());
    buffer.close();
    CHECK(kind_of([&] { static_cast<void>(buffer.export_again()); }) == ErrorKind::closed);
}

TEST_CASE("Host memory is loaded and stored by the CPU and seen by copies", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const PrimaryContext context(driver, 0);
    const FabricBuffer buffer(driver, 4096, {.location = Location::host_nearest(0)});
    CHECK(buffer.location().kind() == LocationKind::host_numa);
    std::memset(buffer.address(), 0x5a, 4096);
    CHECK(read_back(*driver, buffer) == std::vector<unsigned char>(4096, 0x5a));
}

TEST_CASE("Who gets access is asked for in one call", "[buffer]") {
    const auto driver = std::make_shared<FaultDriver>(make_emulated_driver({.devices = 4}));
    const FabricBuffer warm(driver, 1);
    driver->forget();
    const FabricBuffer buffer(driver, 1, {.location = Location::host_numa(0)});
    CHECK(buffer.access().devices == std::vector<int>{0, 1, 2, 3});
    CHECK(buffer.access().host);
    CHECK(count(driver->calls(), "mem_set_access") == 1);
    const FabricBuffer chosen(driver, 1, {.location = Location::device(1), .access = std::vector<int>{3, 1, 3}});
    CHECK(chosen.access().devices == std::vector<int>{1, 3});
    CHECK_FALSE(chosen.access().host);
}

TEST_CASE("Making and destroying a buffer makes no call beyond the necessary ones", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(under_test);
    const auto driver =
        std::make_shared<FaultDriver>(testing_cuda() ? under_test : make_emulated_driver({.devices = 2}));
    for (const Location& location : both_locations()) {
        CAPTURE(to_string(location));
        { const FabricBuffer warm(driver, 1, {.location = location}); }
        driver->forget();
        { const FabricBuffer buffer(driver, 1, {.location = location}); }
        CHECK(driver->calls() == std::vector<std::string>{"mem_address_reserve", "mem_create", "mem_map",
                                                          "mem_set_access", "pointer_get_attributes",
                                                          "mem_export_to_shareable_handle", "mem_unmap", "mem_release",
                                                          "mem_address_free"});
    }
}

TEST_CASE("Out of memory is never taken for missing fabric", "[buffer][fault]") {
    const auto driver = make_emulated_driver({.device_memory_bytes = 8 * kMiB});
    const FabricBuffer first(driver, 6 * kMiB);
    CHECK(kind_of([&] { FabricBuffer(driver, 4 * kMiB); }) == ErrorKind::out_of_memory);
    const FabricBuffer second(driver, 2 * kMiB);
    CHECK(second.is_open());
}

TEST_CASE("Access refused to all at once is asked for one by one", "[buffer][fault]") {
    class OneAtATime : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                                std::size_t n) noexcept override {
            if (n > 1) return CUDA_ERROR_NOT_SUPPORTED;
            if (access->location.type == CU_MEM_LOCATION_TYPE_HOST) return host_;
            if (access->location.id == 1) return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
            return FaultDriver::mem_set_access(address, bytes, access, n);
        }
        CUresult host_ = CUDA_ERROR_NOT_SUPPORTED;
    };
    const auto emulated = make_emulated_driver({.devices = 3});
    const auto driver = std::make_shared<OneAtATime>(emulated);
    const EmulatedCounts before = emulated_counts(*emulated);
    {
        const CapturedLog log;
        const FabricBuffer buffer(driver, 1, {.location = Location::host_numa(0)});
        CHECK(buffer.access().devices == std::vector<int>{0, 2});
        CHECK_FALSE(buffer.access().host);
        CHECK(log.text() ==
              "cuMemSetAccess of 2097152 bytes was refused (217) to device 1 and the host; granted: read-write by "
              "devices 0,2\n");
    }
    {
        const CapturedLog log;
        const FabricBuffer buffer(driver, 1, {.location = Location::device(0), .access = std::vector<int>{0, 2}});
        CHECK(buffer.access().devices == std::vector<int>{0, 2});
        CHECK(log.text() ==
              "cuMemSetAccess of 2097152 bytes was refused (801) for all at once and granted one by one: read-write by "
              "devices 0,2\n");
    }
    CHECK(kind_of([&] {
              FabricBuffer(driver, 1, {.location = Location::host_numa(0), .host_access = HostAccess::required});
          }) == ErrorKind::unsupported);
    CHECK(kind_of([&] {
              FabricBuffer(driver, 1, {.location = Location::host_numa(0), .access = std::vector<int>{1}});
          }) == ErrorKind::unsupported);
    driver->host_ = CUDA_ERROR_OUT_OF_MEMORY;
    CHECK(kind_of([&] { FabricBuffer(driver, 1, {.location = Location::host_numa(0)}); }) == ErrorKind::out_of_memory);
    CHECK(emulated_counts(*emulated) == before);
}

TEST_CASE("Host access to device memory can be asked for, and is refused", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const auto error = error_of(
        [&] { FabricBuffer(driver, 1, {.location = Location::device(0), .host_access = HostAccess::required}); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::unsupported);
    CHECK(error->code() == CUDA_ERROR_NOT_SUPPORTED);
}

TEST_CASE("A wrong argument is a typed error and leaves nothing", "[buffer]") {
    const auto driver =
        make_emulated_driver({.devices = 2, .device_memory_bytes = std::uint64_t{1} << 30, .numa_nodes = 2});
    const EmulatedCounts before = emulated_counts(*driver);
    const auto refused = [&](std::uint64_t bytes, FabricBufferOptions options) {
        const ErrorKind kind = kind_of([&] { FabricBuffer(driver, bytes, std::move(options)); });
        CHECK(emulated_counts(*driver) == before);
        return kind;
    };
    CHECK(refused(0, {}) == ErrorKind::bad_argument);
    CHECK(refused((std::uint64_t{1} << 47) + 1, {}) == ErrorKind::bad_argument);
    CHECK(refused(std::numeric_limits<std::uint64_t>::max(), {}) == ErrorKind::bad_argument);
    CHECK(refused((std::uint64_t{1} << 30) + 1, {}) == ErrorKind::out_of_memory);
    for (const int device : {-1, 2, 7, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()}) {
        CAPTURE(device);
        CHECK(refused(1, {.location = Location::device(device)}) == ErrorKind::bad_argument);
        CHECK(refused(1, {.location = Location::host_nearest(device)}) == ErrorKind::bad_argument);
        CHECK(refused(1, {.access = std::vector<int>{0, device}}) == ErrorKind::bad_argument);
    }
    CHECK(refused(1, {.location = Location::host_numa(2)}) == ErrorKind::bad_argument);
    CHECK(refused(1, {.location = Location::host_numa(-1)}) == ErrorKind::bad_argument);
    CHECK(refused(1, {.access = std::vector<int>{}}) == ErrorKind::bad_argument);
    for (const std::uint64_t alignment :
         {std::uint64_t{3}, std::uint64_t{12345}, std::uint64_t{1} << 48, ~std::uint64_t{0}}) {
        CHECK(refused(1, {.alignment_bytes = alignment}) == ErrorKind::bad_argument);
    }
    CHECK(refused(1, {.kinds = HandleKind::posix_fd}) == ErrorKind::unsupported);
    CHECK(refused(1, {.kinds = {HandleKind::fabric, HandleKind::cuda_ipc}}) == ErrorKind::unsupported);
    CHECK(kind_of([] { FabricBuffer(nullptr, 1); }) == ErrorKind::bad_argument);
}

TEST_CASE("A size that the machine has no room for is out of memory", "[buffer]") {
    // qemu-user keeps a record of every page, and would need more memory for 64 TiB than there is.
    if (std::getenv("FABRICMEM_TEST_LAUNCHER") != nullptr) FABRICMEM_SKIP("reserves 64 TiB of addresses");
    const auto driver = make_emulated_driver();
    CHECK(kind_of([&] { FabricBuffer(driver, std::uint64_t{1} << 46); }) == ErrorKind::out_of_memory);
    CHECK(emulated_counts(*driver) == EmulatedCounts{});
}

TEST_CASE("The address is aligned as asked", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const std::uint64_t alignment :
         {std::uint64_t{0}, std::uint64_t{64}, std::uint64_t{1} << 22, std::uint64_t{1} << 30}) {
        const FabricBuffer buffer(driver, 1, {.alignment_bytes = alignment});
        const std::uint64_t expected = std::max<std::uint64_t>(alignment, buffer.granularity());
        CHECK(reinterpret_cast<std::uintptr_t>(buffer.address()) % expected == 0);
    }
}

TEST_CASE("Zeroing sets all mapped bytes and leaves the caller's context alone", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const HostAccess host : {HostAccess::none, HostAccess::automatic}) {
        for (const Location& location : both_locations()) {
            CAPTURE(to_string(location));
            const FabricBuffer buffer(driver, 100,
                                      {.location = location, .host_access = host, .zeroing = Zeroing::memset});
            CUcontext current = nullptr;
            CHECK(driver->ctx_get_current(&current) == CUDA_SUCCESS);
            CHECK(current == nullptr);
            const PrimaryContext context(driver, 0);
            CHECK(read_back(*driver, buffer) == std::vector<unsigned char>(100, 0));
        }
    }
}

TEST_CASE("Zeroing writes, it does not trust new memory", "[buffer]") {
    const auto driver = std::make_shared<FaultDriver>(make_emulated_driver());
    const FabricBuffer buffer(driver, 1, {.zeroing = Zeroing::memset});
    CHECK(count(driver->calls(), "memset_d8_async") == 1);
    CHECK(count(driver->calls(), "device_primary_ctx_retain") == 1);
    CHECK(count(driver->calls(), "device_primary_ctx_release") == 1);
    CHECK(count(driver->calls(), "ctx_synchronize") == 0);
    driver->forget();
    const PrimaryContext context(driver, 0);
    driver->forget();
    const FabricBuffer in_current(driver, 1, {.zeroing = Zeroing::memset});
    CHECK(count(driver->calls(), "device_primary_ctx_retain") == 0);
    CHECK(count(driver->calls(), "ctx_push_current") == 0);
}

TEST_CASE("Without zeroing no context is made", "[buffer]") {
    const auto driver = std::make_shared<FaultDriver>(make_emulated_driver());
    { const FabricBuffer buffer(driver, 1); }
    for (const std::string& call : driver->calls()) {
        CAPTURE(call);
        CHECK(call.find("ctx") == std::string::npos);
        CHECK(call.find("stream") == std::string::npos);
    }
}

TEST_CASE("Memory is zeroed by a device that has access", "[buffer]") {
    const auto driver = make_emulated_driver({.devices = 2});
    const FabricBuffer buffer(driver, 64, {.access = std::vector<int>{1}, .zeroing = Zeroing::memset});
    const PrimaryContext context(driver, 1);
    CHECK(read_back(*driver, buffer) == std::vector<unsigned char>(64, 0));
}

TEST_CASE("Zeroing leaves another device's context current", "[buffer]") {
    const auto driver = make_emulated_driver({.devices = 2});
    const PrimaryContext context(driver, 1);
    CUcontext before = nullptr;
    REQUIRE(driver->ctx_get_current(&before) == CUDA_SUCCESS);
    const FabricBuffer buffer(driver, 64, {.zeroing = Zeroing::memset});
    CUcontext after = nullptr;
    REQUIRE(driver->ctx_get_current(&after) == CUDA_SUCCESS);
    CHECK(after == before);
    CHECK(emulated_counts(*driver).primary_contexts == 1);
}

TEST_CASE("Access goes by default to the devices that can reach the memory, and to no other", "[buffer]") {
    class OneWay : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult device_can_access_peer(int* can, CUdevice device, CUdevice peer) noexcept override {
            *can = device == 2 && peer == 0 ? 0 : 1;  // device 2 can't reach the memory of device 0
            return CUDA_SUCCESS;
        }
    };
    const auto driver = std::make_shared<OneWay>(make_emulated_driver({.devices = 3}));
    const FabricBuffer on_0(driver, 1);
    CHECK(on_0.access().devices == std::vector<int>{0, 1});
    CHECK(ImportedFabricBuffer(driver, on_0.blob()).access().devices == std::vector<int>{0, 1});
    CHECK(FabricBuffer(driver, 1, {.location = Location::device(2)}).access().devices == std::vector<int>{0, 1, 2});
}

TEST_CASE("The nearest host node is the one that the device names", "[buffer]") {
    class Far : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult device_get_attribute(int* value, CUdevice_attribute which, CUdevice device) noexcept override {
            if (which != CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID)
                return FaultDriver::device_get_attribute(value, which, device);
            *value = device == 1 ? 3 : -1;  // -1: the system has no NUMA
            return CUDA_SUCCESS;
        }
    };
    const auto driver = std::make_shared<Far>(make_emulated_driver({.devices = 2, .numa_nodes = 4}));
    const FabricBuffer near_1(driver, 1, {.location = Location::host_nearest(1)});
    CHECK(near_1.location() == Location::host_numa(3));
    CHECK(near_1.blob().numa_node == 3);
    CHECK(FabricBuffer(driver, 1, {.location = Location::host_nearest(0)}).location() == Location::host_numa(0));
}

TEST_CASE("Attributes that an old driver does not know are taken as not there", "[buffer][fault]") {
    class Old : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult device_get_attribute(int*, CUdevice_attribute, CUdevice) noexcept override {
            return CUDA_ERROR_INVALID_VALUE;
        }
        CUresult mem_create(CUmemGenericAllocationHandle* handle, std::size_t bytes,
                            const CUmemAllocationProp* properties, unsigned long long flags) noexcept override {
            if (knows_fabric) return FaultDriver::mem_create(handle, bytes, properties, flags);
            return CUDA_ERROR_INVALID_VALUE;
        }
        bool knows_fabric = true;
    };
    const auto driver = std::make_shared<Old>(make_emulated_driver());
    CHECK_FALSE(FabricBuffer(driver, 1).rdma());  // attribute 128 proves nothing, so it is tried all the same
    driver->knows_fabric = false;
    const auto error = error_of([&] { FabricBuffer(driver, 1); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::unsupported);
    CHECK(contains(error->details().cause, "older than fabric handles"));
}

TEST_CASE("Read-only memory is zeroed first where that is asked for, and can't be written", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const PrimaryContext context(driver, 0);
    const FabricBuffer buffer(driver, 64, {.permission = Permission::read_only, .zeroing = Zeroing::memset});
    CHECK(buffer.access().permission == Permission::read_only);
    CHECK(read_back(*driver, buffer) == std::vector<unsigned char>(64, 0));
    const int value = 1;
    CHECK(driver->memcpy_htod(pointer(buffer), &value, sizeof value) == CUDA_ERROR_INVALID_VALUE);
    CHECK(read_back(*driver, buffer) == std::vector<unsigned char>(64, 0));
}

TEST_CASE("RDMA is what was granted, and required is required", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    CHECK_FALSE(FabricBuffer(driver, 1, {.rdma = Rdma::off}).rdma());
    int has_rdma = 0;
    REQUIRE(driver->device_get_attribute(&has_rdma, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, 0) ==
            CUDA_SUCCESS);
    CHECK(FabricBuffer(driver, 1).rdma() == (has_rdma != 0));
    if (has_rdma != 0) CHECK(FabricBuffer(driver, 1, {.rdma = Rdma::required}).rdma());
    CHECK_FALSE(FabricBuffer(driver, 1, {.location = Location::host_numa(0)}).rdma());
}

TEST_CASE("RDMA that is required and not granted is an error", "[buffer][fault]") {
    class NoRdma : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult mem_create(CUmemGenericAllocationHandle* handle, std::size_t bytes,
                            const CUmemAllocationProp* properties, unsigned long long flags) noexcept override {
            CUmemAllocationProp changed = *properties;
            changed.allocFlags.gpuDirectRDMACapable = 0;
            return FaultDriver::mem_create(handle, bytes, &changed, flags);
        }
    };
    const auto emulated = make_emulated_driver();
    const auto driver = std::make_shared<NoRdma>(emulated);
    CHECK(kind_of([&] { FabricBuffer(driver, 1, {.rdma = Rdma::required}); }) == ErrorKind::unsupported);
    CHECK_FALSE(FabricBuffer(driver, 1).rdma());
    CHECK(emulated_counts(*emulated) == EmulatedCounts());
}

TEST_CASE("A device that silently grants no fabric handle is found out", "[buffer][fault]") {
    const auto driver = make_emulated_driver({.fabric = FabricAttribute::unsupported});
    const auto error = error_of([&] { FabricBuffer(driver, 1); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::unsupported);
    CHECK(contains(error->what(), "silently granted none"));
    CHECK(error->details().check == "FM-FABRIC-001");
    CHECK(emulated_counts(*driver) == EmulatedCounts());
}

TEST_CASE("A device that says it has fabric handles and silently grants none is told from one that has none",
          "[buffer][fault]") {
    class Boastful : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) noexcept override {
            const CUresult result = FaultDriver::device_get_attribute(value, attribute, device);
            if (static_cast<int>(attribute) == 128) *value = 1;
            return result;
        }
    };
    const auto emulated = make_emulated_driver({.fabric = FabricAttribute::unsupported});
    const auto error = error_of([&] { FabricBuffer(std::make_shared<Boastful>(emulated), 1); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::unsupported);
    CHECK(error->details().check == "FM-FABRIC-002");
    CHECK(emulated_counts(*emulated) == EmulatedCounts());
}

TEST_CASE("Both handle types are granted where both are asked for", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const FabricBuffer buffer(driver, 1, {.kinds = {HandleKind::fabric, HandleKind::posix_fd}});
    CHECK(buffer.kinds() == HandleKinds({HandleKind::fabric, HandleKind::posix_fd}));
    CHECK(buffer.blob().kinds == HandleKinds(HandleKind::fabric));
    const ImportedFabricBuffer imported(driver, buffer.blob());
    CHECK(imported.is_open());
}

TEST_CASE("Without an IMEX channel the error names the cause and the cure", "[buffer][fault]") {
    const auto driver = make_emulated_driver({.imex_channel = std::nullopt});
    const auto error = error_of([&] { FabricBuffer(driver, 1); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::not_permitted);
    CHECK(error->code() == CUDA_ERROR_NOT_PERMITTED);
    CHECK(contains(error->details().cause, "no IMEX channel node"));
    CHECK(contains(error->details().cure, "mknod"));
    CHECK(error->details().call == "cuMemCreate");
    CHECK(error->details().bytes == 2 * kMiB);
}

TEST_CASE("A moved-from buffer is empty and a moved-to one lives", "[buffer]") {
    static_assert(std::is_nothrow_move_constructible_v<FabricBuffer> &&
                  std::is_nothrow_move_assignable_v<FabricBuffer>);
    static_assert(!std::is_copy_constructible_v<FabricBuffer> && !std::is_copy_assignable_v<FabricBuffer>);
    static_assert(std::is_nothrow_move_constructible_v<ImportedFabricBuffer> &&
                  std::is_nothrow_move_assignable_v<ImportedFabricBuffer>);
    const auto driver = make_emulated_driver();
    FabricBuffer first(driver, 1);
    void* const address = first.address();
    FabricBuffer second = std::move(first);
    CHECK(second.address() == address);
    CHECK_FALSE(first.is_open());  // NOLINT(bugprone-use-after-move)
    CHECK(first.address() == nullptr);
    CHECK(first.bytes() == 0);
    CHECK(first.mapped_bytes() == 0);
    CHECK(first.granularity() == 0);
    CHECK(first.kinds().empty());
    CHECK(first.driver() == nullptr);
    CHECK(kind_of([&] { static_cast<void>(first.blob()); }) == ErrorKind::closed);
    CHECK(kind_of([&] { static_cast<void>(first.location()); }) == ErrorKind::closed);
    CHECK(kind_of([&] { static_cast<void>(first.access()); }) == ErrorKind::closed);
    second = FabricBuffer(driver, 3 * kMiB);
    CHECK(second.bytes() == 3 * kMiB);
    CHECK(emulated_counts(*driver).allocations == 1);
    FabricBuffer& itself = second;
    second = std::move(itself);
    CHECK(second.close() == CloseResult::released);
    CHECK(emulated_counts(*driver) == EmulatedCounts());
}

TEST_CASE("Closing releases, says so, and can be done twice", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    FabricBuffer buffer(driver, 1);
    CHECK(buffer.close() == CloseResult::released);
    CHECK_FALSE(buffer.is_open());
    CHECK(buffer.close() == CloseResult::released);
}

TEST_CASE("A failed release is thrown by close, and the rest is released", "[buffer][fault]") {
    const auto emulated = make_emulated_driver();
    for (const char* call : {"mem_unmap", "mem_release", "mem_address_free"}) {
        CAPTURE(call);
        const auto driver = std::make_shared<FaultDriver>(emulated);
        FabricBuffer buffer(driver, 1);
        driver->add({.call = call, .result = CUDA_ERROR_UNKNOWN});
        const auto error = error_of([&] { buffer.close(); });
        REQUIRE(error.has_value());
        CHECK(error->code() == CUDA_ERROR_UNKNOWN);
        CHECK_FALSE(buffer.is_open());
        CHECK(emulated_counts(*emulated) == EmulatedCounts());
    }
}

TEST_CASE("A failed release in the destructor is logged, and one at exit is not", "[buffer][fault]") {
    const auto driver = std::make_shared<FaultDriver>(make_emulated_driver());
    {
        const CapturedLog log;
        {
            const FabricBuffer buffer(driver, 1);
            driver->add({.call = "mem_release", .result = CUDA_ERROR_UNKNOWN});
        }
        CHECK(log.text().find("cuMemRelease") != std::string::npos);
    }
    const CapturedLog log;
    {
        driver->clear();
        const FabricBuffer buffer(driver, 1);
        for (const char* call : {"mem_unmap", "mem_release", "mem_address_free"})
            driver->add({.call = call, .result = CUDA_ERROR_DEINITIALIZED});
    }
    CHECK(log.text().empty());
}

TEST_CASE("Callbacks are told of a whole buffer and of its end", "[buffer]") {
    const auto driver = make_emulated_driver();
    std::vector<std::string> events;
    void* made = nullptr;
    {
        const FabricBuffer buffer(
            driver, 77,
            {.on_make =
                 [&](const BufferInfo& info) {
                     made = info.address;
                     events.push_back("make " + std::to_string(info.bytes) + " " + std::to_string(info.mapped_bytes));
                     info.blob.validate();
                 },
             .before_tear_down =
                 [&](const BufferInfo& info) {
                     events.push_back(info.address == made ? "end" : "another");
                     CHECK(emulated_counts(*driver).mappings == 1);
                 },
             .after_tear_down =
                 [&](const BufferInfo& info) {
                     events.push_back(info.address == made ? "gone" : "another");
                     CHECK(info.bytes == 77);
                     CHECK(emulated_counts(*driver) == EmulatedCounts());
                 }});
        CHECK(buffer.address() == made);
    }
    CHECK(events == std::vector<std::string>{"make 77 2097152", "end", "gone"});
}

TEST_CASE("A callback that throws undoes the making, and not the tear-down", "[buffer][fault]") {
    const auto driver = make_emulated_driver();
    int ends = 0;
    const auto end = [&](const BufferInfo&) { ++ends; };
    CHECK_THROWS_AS(FabricBuffer(driver, 1,
                                 {.on_make = [](const BufferInfo&) { throw std::runtime_error("no"); },
                                  .before_tear_down = end,
                                  .after_tear_down = end}),
                    std::runtime_error);
    CHECK(ends == 0);
    CHECK(emulated_counts(*driver) == EmulatedCounts());
    const CapturedLog log;
    {
        const FabricBuffer buffer(
            driver, 1,
            {.before_tear_down = [](const BufferInfo&) { throw std::runtime_error("never mind"); },
             .after_tear_down = [](const BufferInfo&) { throw std::runtime_error("too late"); }});
    }
    CHECK(log.text().find("before_tear_down threw, the tear-down goes on: never mind") != std::string::npos);
    CHECK(log.text().find("after_tear_down threw, the tear-down goes on: too late") != std::string::npos);
    CHECK(emulated_counts(*driver) == EmulatedCounts());
}

TEST_CASE("A retired address is not given out again", "[buffer][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    std::vector<void*> seen;
    for (int i = 0; i < 50; ++i) {
        const FabricBuffer buffer(driver, 1, {.retire_address = RetireAddress::yes});
        CHECK(std::find(seen.begin(), seen.end(), buffer.address()) == seen.end());
        seen.push_back(buffer.address());
    }
}

TEST_CASE("Retired addresses are capped, and hold no memory", "[buffer]") {
    const auto driver = make_emulated_driver();
    for (int i = 0; i < 1100; ++i) {
        const FabricBuffer buffer(driver, 1, {.retire_address = RetireAddress::yes});
    }
    const EmulatedCounts counts = emulated_counts(*driver);
    CHECK(counts.ranges == 1024);
    CHECK(counts.allocations == 0);
    CHECK(counts.descriptors == 0);
}

TEST_CASE("Retired addresses are capped at 1 TiB, and the oldest go first", "[buffer]") {
    // Only the addresses are large: memory is taken when it is touched.
    if (std::getenv("FABRICMEM_TEST_LAUNCHER") != nullptr) FABRICMEM_SKIP("qemu-user keeps a record of every page");
    class Watcher : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult mem_address_free(CUdeviceptr address, std::size_t bytes) noexcept override {
            freed.push_back(address);
            return FaultDriver::mem_address_free(address, bytes);
        }
        std::vector<CUdeviceptr> freed;
    };
    constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
    const auto driver = std::make_shared<Watcher>(make_emulated_driver({.device_memory_bytes = 512 * kGiB}));
    std::vector<CUdeviceptr> made;
    for (int i = 0; i < 4; ++i) {
        const FabricBuffer buffer(driver, 400 * kGiB, {.retire_address = RetireAddress::yes});
        made.push_back(pointer(buffer));
    }
    CHECK(driver->freed == std::vector<CUdeviceptr>{made[0], made[1]});
}
