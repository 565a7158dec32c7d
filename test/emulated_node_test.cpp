// SPDX-License-Identifier: Apache-2.0
// What an emulated driver is made of: options, nodes, devices, channels and memory limits.
#include <fabricmem/emulated_driver.hpp>

#include <unistd.h>

#include <cerrno>

#include <fabricmem/error.hpp>

#include "support/driver_kit.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

std::shared_ptr<Driver> with(const EmulatedOptions& options) { return make_emulated_driver(options); }

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

ErrorKind refusal_of(const EmulatedOptions& options) {
    try {
        static_cast<void>(make_emulated_driver(options));
    } catch (const Error& error) {
        return error.kind();
    }
    return ErrorKind::driver;
}

}  // namespace

TEST_CASE("Options out of range are bad arguments, no device is unsupported", "[emulated]") {
    const auto refused = [](auto change) {
        EmulatedOptions options;
        change(options);
        return refusal_of(options) == ErrorKind::bad_argument;
    };
    CHECK(refused([](EmulatedOptions& o) { o.devices = -1; }));
    CHECK(refused([](EmulatedOptions& o) { o.devices = 65; }));
    CHECK(refused([](EmulatedOptions& o) { o.numa_nodes = 0; }));
    CHECK(refused([](EmulatedOptions& o) { o.imex_channel = -1; }));
    CHECK(refused([](EmulatedOptions& o) { o.imex_channel_errno = -1; }));
    CHECK(refused([](EmulatedOptions& o) { o.device_memory_bytes = ~std::uint64_t{0}; }));
    CHECK(refused([](EmulatedOptions& o) { o.node = std::string(5000, 'x'); }));
    EmulatedOptions none;
    none.devices = 0;
    try {
        static_cast<void>(make_emulated_driver(none));
        CHECK(false);
    } catch (const Error& error) {
        CHECK(error.kind() == ErrorKind::unsupported);
        CHECK(error.code() == CUDA_ERROR_NO_DEVICE);
    }
}

TEST_CASE("Without an IMEX channel there is no fabric memory", "[emulated]") {
    EmulatedOptions options;
    options.imex_channel = std::nullopt;
    const auto driver = with(options);
    CHECK(driver->platform().imex_channels().empty());
    CHECK(create(*driver, device_memory(kFabric)) == CUDA_ERROR_NOT_PERMITTED);
    CHECK(create(*driver, device_memory(kFabric | kPosixFd)) == CUDA_ERROR_NOT_PERMITTED);
    CHECK(create(*driver, device_memory(kPosixFd)) == CUDA_SUCCESS);
}

TEST_CASE("A channel that does not open is listed with its errno and gives no fabric memory", "[emulated]") {
    const auto check_closed = [](int number, int given, int told) {
        EmulatedOptions options;
        options.imex_channel = number;
        options.imex_channel_errno = given;
        const auto driver = with(options);
        const std::vector<ImexChannel> channels = driver->platform().imex_channels();
        REQUIRE(channels.size() == 1);
        CHECK(channels.front().number == number);
        CHECK(channels.front().open_errno == told);
        CHECK(create(*driver, device_memory(kFabric)) == CUDA_ERROR_NOT_PERMITTED);
        const auto exporter = make_emulated_driver();
        const Mapped memory(*exporter, device_memory(kFabric), {});
        CHECK(try_import(*driver, export_of(*exporter, memory)) == CUDA_ERROR_NOT_PERMITTED);
    };
    check_closed(0, EACCES, EACCES);
    check_closed(2048, 0, ENXIO);
    EmulatedOptions last;
    last.imex_channel = 2047;
    CHECK(create(*with(last), device_memory(kFabric)) == CUDA_SUCCESS);
}

TEST_CASE("Exporter and importer need the same IMEX channel", "[emulated]") {
    const auto exporter = make_emulated_driver();
    const Mapped memory(*exporter, device_memory(kFabric), {});
    const FabricBytes bytes = export_of(*exporter, memory);
    EmulatedOptions options;
    options.imex_channel = 1;
    CHECK(try_import(*with(options), bytes) == CUDA_ERROR_NOT_PERMITTED);
    options.imex_channel = std::nullopt;
    CHECK(try_import(*with(options), bytes) == CUDA_ERROR_NOT_PERMITTED);
    options.imex_channel = 0;
    CHECK(try_import(*with(options), bytes) == CUDA_SUCCESS);
}

TEST_CASE("A device without fabric takes the request and grants nothing", "[emulated]") {
    EmulatedOptions options;
    options.fabric = FabricAttribute::unsupported;
    const auto driver = with(options);
    int supported = -1;
    CHECK(driver->device_get_attribute(&supported, static_cast<CUdevice_attribute>(128), 0) == CUDA_SUCCESS);
    CHECK(supported == 0);
    const Mapped memory(*driver, device_memory(kFabric | kPosixFd), {access_for(kDevice)});
    REQUIRE(memory.result() == CUDA_SUCCESS);
    FabricBytes bytes{};
    CHECK(export_fabric(*driver, memory.handle(), &bytes) == CUDA_ERROR_INVALID_VALUE);
    unsigned long long types = 0;
    CHECK(driver->pointer_get_attribute(&types, CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES, memory.address()) ==
          CUDA_SUCCESS);
    CHECK(types == kPosixFd);
}

TEST_CASE("Each device and NUMA node has its memory and no more", "[emulated]") {
    EmulatedOptions options;
    options.devices = 2;
    options.device_memory_bytes = 3 * kTwoMiB;
    options.numa_node_memory_bytes = kTwoMiB;
    const auto driver = with(options);
    std::size_t bytes = 0;
    CHECK(driver->device_total_mem(&bytes, 0) == CUDA_SUCCESS);
    CHECK(bytes == 3 * kTwoMiB);
    {
        const Mapped memory(*driver, device_memory(kFabric), {}, 2 * kTwoMiB);
        REQUIRE(memory.result() == CUDA_SUCCESS);
        CHECK(create(*driver, device_memory(kFabric), 2 * kTwoMiB) == CUDA_ERROR_OUT_OF_MEMORY);
        CHECK(create(*driver, memory_at(kDevice, 1, kFabric), 2 * kTwoMiB) == CUDA_SUCCESS);
        CHECK(create(*driver, device_memory(kFabric)) == CUDA_SUCCESS);
        // An import costs the exporter's memory alone.
        CHECK(try_import(*driver, export_of(*driver, memory)) == CUDA_SUCCESS);
    }
    CHECK(create(*driver, device_memory(kFabric), 3 * kTwoMiB) == CUDA_SUCCESS);
    CHECK(create(*driver, host_memory(kFabric), 2 * kTwoMiB) == CUDA_ERROR_OUT_OF_MEMORY);
    CHECK(create(*driver, host_memory(kFabric)) == CUDA_SUCCESS);
}

TEST_CASE("Nodes of different names are different machines, of one name the same", "[emulated]") {
    EmulatedOptions options;
    const auto real = with(options);
    options.node = "a";
    const auto a = with(options);
    const auto also_a = with(options);
    options.node = "b";
    const auto b = with(options);
    const auto uuid = [](Driver& driver) {
        CUuuid id{};
        CHECK(driver.device_get_uuid(&id, 0) == CUDA_SUCCESS);
        return std::string(id.bytes, sizeof id.bytes);
    };
    CHECK(a->platform().host_id() == also_a->platform().host_id());
    CHECK(a->platform().boot_id() == also_a->platform().boot_id());
    CHECK(uuid(*a) == uuid(*also_a));
    for (const auto& other : {real, b}) {
        CHECK(a->platform().host_id() != other->platform().host_id());
        CHECK(a->platform().boot_id() != other->platform().boot_id());
        CHECK(uuid(*a) != uuid(*other));
    }
    CHECK(real->platform().host_id().has_value());
    CHECK(real->platform().boot_id().has_value());

    const Mapped memory(*a, device_memory(kFabric), {});
    CHECK(try_import(*b, export_of(*a, memory)) == CUDA_SUCCESS);  // one NVLink domain
}

TEST_CASE("The platform tells this process, its channel and one fabric", "[emulated]") {
    EmulatedOptions options;
    options.imex_channel = 7;
    const auto driver = with(options);
    const Platform& platform = driver->platform();
    const auto self = static_cast<std::uint32_t>(::getpid());
    CHECK(platform.process_id() == self);
    CHECK(platform.pid_namespace().has_value());
    REQUIRE(platform.process_start().has_value());
    CHECK(platform.process_state(self, *platform.process_start()) == ProcessState::alive);
    CHECK(platform.process_state(self, *platform.process_start() + 1) == ProcessState::gone);
    REQUIRE(platform.imex_channels().size() == 1);
    CHECK(platform.imex_channels().front().number == 7);
    char bus[32];
    REQUIRE(driver->device_get_pci_bus_id(bus, sizeof bus, 0) == CUDA_SUCCESS);
    const auto info = platform.fabric_info(bus);
    REQUIRE(info.has_value());
    CHECK(info->state == FabricInfo::State::completed);
    CHECK(!info->cluster_uuid.is_zero());
    CHECK(!platform.fabric_info("0000:ff:00.0").has_value());
}

TEST_CASE("Devices tell names, ids and attributes, and absent ones are refused", "[emulated]") {
    EmulatedOptions options;
    options.devices = 3;
    options.numa_nodes = 2;
    const auto driver = with(options);
    int value = 0;
    CHECK(driver->device_get_attribute(&value, static_cast<CUdevice_attribute>(134), 2) == CUDA_SUCCESS);
    CHECK(value == 0);
    CHECK(driver->device_get_attribute(&value, static_cast<CUdevice_attribute>(134), 1) == CUDA_SUCCESS);
    CHECK(value == 1);
    CHECK(driver->device_can_access_peer(&value, 0, 2) == CUDA_SUCCESS);
    CHECK(value == 1);
    CHECK(driver->device_get_attribute(&value, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 3) ==
          CUDA_ERROR_INVALID_DEVICE);
    char name[64];
    CHECK(driver->device_get_name(name, sizeof name, 0) == CUDA_SUCCESS);
    CHECK(std::string(name) == "Emulated GPU");
    CHECK(driver->device_get_pci_bus_id(name, 5, 0) == CUDA_ERROR_INVALID_VALUE);
    const char* text = nullptr;
    CHECK(driver->get_error_name(CUDA_ERROR_NOT_PERMITTED, &text) == CUDA_SUCCESS);
    CHECK(std::string(text) == "CUDA_ERROR_NOT_PERMITTED");
}

TEST_CASE("Memory of a device that the importer does not have is INVALID_DEVICE", "[emulated]") {
    EmulatedOptions options;
    options.devices = 2;
    const auto exporter = with(options);
    const Mapped memory(*exporter, memory_at(kDevice, 1, kFabric), {});
    const auto importer = make_emulated_driver();
    CHECK(try_import(*importer, export_of(*exporter, memory)) == CUDA_ERROR_INVALID_DEVICE);
    CHECK(emulated_counts(*importer) == EmulatedCounts{});
}
