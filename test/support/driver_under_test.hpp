// SPDX-License-Identifier: Apache-2.0
// The driver that conformance cases run on: FABRICMEM_TEST_DRIVER=emulated (default) or cuda.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>

#include <fabricmem/cuda_driver.hpp>
#include <fabricmem/driver.hpp>
#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/error.hpp>

#include "support/driver_kit.hpp"

namespace fabricmem::test {

[[nodiscard]] inline bool testing_cuda() {
    const char* const name = std::getenv("FABRICMEM_TEST_DRIVER");
    return name != nullptr && std::string(name) == "cuda";
}

/// A new emulated driver each time, the one CUDA driver otherwise. Throws Error where there is none.
[[nodiscard]] inline std::shared_ptr<Driver> driver_under_test() {
    if (!testing_cuda()) return make_emulated_driver();
    static const std::shared_ptr<Driver> driver = make_cuda_driver();
    return driver;
}

/// Null, with the reason, where there is no such driver or it can't make fabric memory here.
[[nodiscard]] inline std::shared_ptr<Driver> find_driver_under_test(std::string* why_not) {
    try {
        std::shared_ptr<Driver> driver = driver_under_test();
        CUmemGenericAllocationHandle handle = 0;
        const CUmemAllocationProp wanted = device_memory(kFabric);
        const CUresult result = driver->mem_create(&handle, kTwoMiB, &wanted, 0);
        if (result == CUDA_SUCCESS) {
            driver->mem_release(handle);
            return driver;
        }
        *why_not = "cuMemCreate of fabric memory answers " + std::to_string(result);
    } catch (const Error& error) {
        *why_not = error.what();
    }
    return nullptr;
}

}  // namespace fabricmem::test

/// Declares `name`, or ends the test case as skipped. First thing in a test case.
#define FABRICMEM_DRIVER_OR_SKIP(name)                                                                        \
    std::string name##_why_not;                                                                               \
    const std::shared_ptr<fabricmem::Driver> name = fabricmem::test::find_driver_under_test(&name##_why_not); \
    if (!name) FABRICMEM_SKIP(name##_why_not)

/// The same for a case that can be true on the real driver alone (tag [real]).
#define FABRICMEM_REAL_DRIVER_OR_SKIP(name)                                                \
    if (!fabricmem::test::testing_cuda()) FABRICMEM_SKIP("true of the real driver alone"); \
    FABRICMEM_DRIVER_OR_SKIP(name)
