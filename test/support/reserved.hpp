// SPDX-License-Identifier: Apache-2.0
// An address range of a test's own.
#pragma once

#include <cstddef>

#include <fabricmem/driver.hpp>

#include "support/test.hpp"

namespace fabricmem::test {

/// Reserved, and freed at the end, when nothing may be mapped there any more.
struct Reserved {
    Reserved(Driver& to, std::size_t size) : driver(to), bytes(size) {
        REQUIRE(driver.mem_address_reserve(&address, bytes, 0, 0, 0) == CUDA_SUCCESS);
    }
    Reserved(const Reserved&) = delete;
    Reserved& operator=(const Reserved&) = delete;
    ~Reserved() { CHECK(driver.mem_address_free(address, bytes) == CUDA_SUCCESS); }

    Driver& driver;
    std::size_t bytes;
    CUdeviceptr address = 0;
};

}  // namespace fabricmem::test
