// SPDX-License-Identifier: Apache-2.0
// Blobs of other nodes and other GPU types: whose numbers are believed, and whose are not. And what close() says where
// it can't find out.
#include <vector>

#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/fault_driver.hpp>

#include "support/buffers.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

// Another GPU type than the exporter's.
class Coarse : public FaultDriver {
public:
    using FaultDriver::FaultDriver;
    CUresult mem_get_allocation_granularity(std::size_t* bytes, const CUmemAllocationProp*,
                                            CUmemAllocationGranularity_flags) noexcept override {
        *bytes = 4 * kMiB;
        return CUDA_SUCCESS;
    }
};

std::uint64_t alignment_of(const MappedBuffer& buffer) {
    const std::uint64_t address = pointer(buffer);
    return address & (~address + 1);
}

}  // namespace

TEST_CASE("A size that this driver's granularity does not divide is a bad blob that reaches no driver", "[buffer]") {
    const auto driver = std::make_shared<FaultDriver>(make_emulated_driver());
    const FabricBuffer own(driver, 1);
    driver->forget();
    for (const std::uint64_t claimed : {std::uint64_t{1}, std::uint64_t{4096}}) {
        CAPTURE(claimed);
        HandleBlob blob = own.blob();
        blob.granularity = claimed;
        blob.mapped_bytes = 4096;
        const auto error = error_of([&] { ImportedFabricBuffer(driver, HandleBlob::from_bytes(blob.to_bytes())); });
        REQUIRE(error.has_value());
        CHECK(error->kind() == ErrorKind::bad_blob);
        CHECK(contains(error->what(), "4096 mapped bytes"));
        CHECK(contains(error->what(), "2097152"));
        CHECK(driver->calls().empty());
    }
}

TEST_CASE("The importer's own granularity decides, whatever the exporter's is", "[buffer]") {
    const auto emulated = make_emulated_driver();
    const auto coarse = std::make_shared<Coarse>(emulated);
    const FabricBuffer small(emulated, 1);
    const auto error = error_of([&] { ImportedFabricBuffer(coarse, small.blob()); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::bad_blob);
    CHECK(contains(error->what(), "2097152 mapped bytes"));
    CHECK(contains(error->what(), "4194304"));
    CHECK_FALSE(error->details().cure.empty());

    const FabricBuffer fits(emulated, 4 * kMiB);
    const ImportedFabricBuffer imported(coarse, fits.blob());
    CHECK(imported.granularity() == 4 * kMiB);
    CHECK(imported.blob().granularity == 2 * kMiB);
    CHECK(alignment_of(imported) >= 4 * kMiB);
}

TEST_CASE("An import is aligned to the larger of both granularities", "[buffer]") {
    class Watcher : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult mem_address_reserve(CUdeviceptr* address, std::size_t bytes, std::size_t alignment, CUdeviceptr hint,
                                     unsigned long long flags) noexcept override {
            asked = alignment;
            return FaultDriver::mem_address_reserve(address, bytes, alignment, hint, flags);
        }
        std::size_t asked = 0;
    };
    const auto emulated = make_emulated_driver();
    const FabricBuffer own(std::make_shared<Coarse>(emulated), 1);
    CHECK(own.granularity() == 4 * kMiB);
    const auto driver = std::make_shared<Watcher>(emulated);
    CHECK(ImportedFabricBuffer(driver, own.blob()).granularity() == 2 * kMiB);
    CHECK(driver->asked == 4 * kMiB);
    HandleBlob damaged = own.blob();
    damaged.granularity = 1;
    CHECK(ImportedFabricBuffer(driver, damaged).granularity() == 2 * kMiB);
    CHECK(driver->asked == 2 * kMiB);
}

TEST_CASE("Host memory of another node has no NUMA number here, and imports where there is no such node", "[buffer]") {
    const auto there = make_emulated_driver({.numa_nodes = 4, .node = "there"});
    const auto here = make_emulated_driver({.numa_nodes = 1, .node = "here"});
    const FabricBuffer own(there, 1, {.location = Location::host_numa(3)});
    CHECK(own.blob().numa_node == 3);
    CHECK(ImportedFabricBuffer(here, own.blob()).location() == Location::host_numa(-1));
    const auto bare = HandleBlob::from_bare(own.blob().bare_hex(), own.mapped_bytes(), Location::host_numa(3));
    CHECK(ImportedFabricBuffer(here, bare).location() == Location::host_numa(-1));
    HandleBlob unknown_boot = own.blob();
    unknown_boot.boot_id = std::nullopt;
    CHECK(ImportedFabricBuffer(there, unknown_boot).location() == Location::host_numa(-1));
    CHECK(ImportedFabricBuffer(there, own.blob()).location() == Location::host_numa(3));
}

TEST_CASE("Host memory is imported on a machine that has no NUMA node 0", "[buffer]") {
    class Sparse : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult device_get_attribute(int* value, CUdevice_attribute which, CUdevice device) noexcept override {
            if (which != CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID)
                return FaultDriver::device_get_attribute(value, which, device);
            *value = 2;
            return CUDA_SUCCESS;
        }
        CUresult mem_get_allocation_granularity(std::size_t* bytes, const CUmemAllocationProp* properties,
                                                CUmemAllocationGranularity_flags option) noexcept override {
            const bool on_host = properties->location.type == CU_MEM_LOCATION_TYPE_HOST_NUMA;
            if (on_host && properties->location.id != 2) return CUDA_ERROR_INVALID_VALUE;
            return FaultDriver::mem_get_allocation_granularity(bytes, properties, option);
        }
    };
    const auto emulated = make_emulated_driver({.numa_nodes = 3});
    const auto driver = std::make_shared<Sparse>(emulated);
    const FabricBuffer own(emulated, 1, {.location = Location::host_numa(0)});
    const auto bare = HandleBlob::from_bare(own.blob().bare_hex(), own.mapped_bytes(), Location::host_numa(0));
    CHECK(ImportedFabricBuffer(driver, bare).granularity() == 2 * kMiB);
}

TEST_CASE("Closing says that it does not know where asking for references fails", "[buffer][fault]") {
    const auto emulated = make_emulated_driver();
    const auto closed = [&](CUresult answer, std::string* text) {
        const auto driver = std::make_shared<FaultDriver>(emulated);
        driver->add({.call = "mem_import_from_shareable_handle", .result = answer});
        FabricBuffer buffer(driver, 1);
        const CapturedLog log;
        const CloseResult result = buffer.close();
        *text = log.text();
        CHECK(emulated_counts(*emulated) == EmulatedCounts());
        return result;
    };
    std::string text;
    for (const CUresult code : {CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_NOT_PERMITTED, CUDA_ERROR_UNKNOWN}) {
        CHECK(closed(code, &text) == CloseResult::unknown);
        CHECK(contains(text, "is not known"));
        CHECK(contains(text, "(" + std::to_string(static_cast<int>(code)) + ")"));
    }
    CHECK(closed(CUDA_ERROR_NOT_SUPPORTED, &text) == CloseResult::released);
    CHECK(text.empty());
    CHECK(closed(CUDA_ERROR_DEINITIALIZED, &text) == CloseResult::released);  // at exit all is gone with the driver
    CHECK(text.empty());
}
