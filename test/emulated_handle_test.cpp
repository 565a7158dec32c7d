// SPDX-License-Identifier: Apache-2.0
// Forged fabric handles: a process number used again. They are made by the emulator's own file, compiled in here under
// another namespace, since the library hides it.
#define emulated emulated_for_test
#include "emulated/fabric_handle.cpp"
#undef emulated

#include <fabricmem/emulated_driver.hpp>

#include "support/driver_kit.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;
using detail::emulated_for_test::FabricHandle;

TEST_CASE("A handle of a process that only has the exporter's number is refused", "[emulated]") {
    const auto driver = make_emulated_driver();
    const Mapped memory(*driver, device_memory(kFabric), {});
    FabricBytes bytes{};
    REQUIRE(export_fabric(*driver, memory.handle(), &bytes) == CUDA_SUCCESS);
    FabricHandle handle;
    REQUIRE(detail::emulated_for_test::decode(bytes, &handle) == CUDA_SUCCESS);
    CHECK(detail::emulated_for_test::encode(handle) == bytes);

    CUmemGenericAllocationHandle imported = 0;
    const auto refused = [&](const FabricHandle& forged) {
        return import_fabric(*driver, detail::emulated_for_test::encode(forged), &imported) == CUDA_ERROR_NOT_SUPPORTED;
    };
    FabricHandle forged = handle;
    SECTION("started at another time") { ++forged.process_start; }
    SECTION("with another number") { forged.process_id = 0x7fffffff; }
    SECTION("with another file behind the descriptor") { ++forged.inode; }
    SECTION("on another file system") { ++forged.filesystem; }
    SECTION("of another size") { forged.bytes += kTwoMiB; }
    SECTION("with no such descriptor") { forged.descriptor = 1'000'000; }
    SECTION("with a descriptor that is something else") { forged.descriptor = 0; }
    CHECK(refused(forged));
    CHECK(emulated_counts(*driver).handles == 1);
}
