// SPDX-License-Identifier: Apache-2.0
#include <fabricmem/probe.hpp>

#include <fabricmem/fault_driver.hpp>

#include <vector>

#include "support/buffers.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

TEST_CASE("A probe that succeeds has touched memory, and leaves the context as it was", "[probe][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const Location& location : {Location::device(0), Location::host_numa(0), Location::host_nearest(0)}) {
        CAPTURE(to_string(location));
        const ProbeResult result = probe(driver, location);
        INFO(result.summary);
        CHECK(result.usable());
        CHECK(result.location == location);
        CHECK(result.kinds.has(HandleKind::fabric));
        CUcontext current = nullptr;
        CHECK(driver->ctx_get_current(&current) == CUDA_SUCCESS);
        CHECK(current == nullptr);
    }
}

TEST_CASE("A probe tells why not, and does not throw", "[probe]") {
    const ProbeResult no_channel = probe(make_emulated_driver({.imex_channel = std::nullopt}), Location::device(0));
    REQUIRE_FALSE(no_channel.usable());
    CHECK(no_channel.why_not->kind() == ErrorKind::not_permitted);
    CHECK(contains(no_channel.summary, "IMEX channel"));
    CHECK_FALSE(probe(make_emulated_driver({.fabric = FabricAttribute::unsupported}), Location::device(0)).usable());
    CHECK(probe(make_emulated_driver(), Location::device(3)).why_not->kind() == ErrorKind::bad_argument);
    CHECK(probe(nullptr, Location::device(0)).why_not->kind() == ErrorKind::bad_argument);
}

TEST_CASE("A probe finds out that a write through the import does not arrive", "[probe][fault]") {
    class Deaf : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult memset_d8_async(CUdeviceptr, unsigned char, std::size_t, CUstream) noexcept override {
            return CUDA_SUCCESS;
        }
    };
    const auto emulated = make_emulated_driver();
    const ProbeResult result = probe(std::make_shared<Deaf>(emulated), Location::device(0));
    REQUIRE_FALSE(result.usable());
    CHECK(contains(result.summary, "did not arrive"));
    CHECK(emulated_counts(*emulated) == EmulatedCounts());
}

TEST_CASE("A probe touches with the device that it is asked about, and makes no other's context", "[probe]") {
    class Watcher : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult device_primary_ctx_retain(CUcontext* context, CUdevice device) noexcept override {
            retained.push_back(device);
            return FaultDriver::device_primary_ctx_retain(context, device);
        }
        std::vector<CUdevice> retained;
    };
    for (const Location& location : {Location::device(2), Location::host_nearest(2)}) {
        CAPTURE(to_string(location));
        const auto driver = std::make_shared<Watcher>(make_emulated_driver({.devices = 4}));
        CHECK(probe(driver, location).usable());
        CHECK(driver->retained == std::vector<CUdevice>{2});
    }
}

TEST_CASE("A probe of host memory that no GPU gets access to says so", "[probe][fault]") {
    class HostAlone : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                                std::size_t count) noexcept override {
            for (std::size_t i = 0; i < count; ++i) {
                if (access[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE) return CUDA_ERROR_NOT_SUPPORTED;
            }
            return FaultDriver::mem_set_access(address, bytes, access, count);
        }
    };
    const QuietLog quiet;
    const auto emulated = make_emulated_driver();
    const ProbeResult result = probe(std::make_shared<HostAlone>(emulated), Location::host_numa(0));
    REQUIRE_FALSE(result.usable());
    CHECK(result.why_not->kind() == ErrorKind::unsupported);
    CHECK(contains(result.summary, "no GPU got access"));
    CHECK(emulated_counts(*emulated) == EmulatedCounts());
}
