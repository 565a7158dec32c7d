// SPDX-License-Identifier: Apache-2.0
// A consumer without a GPU and without cuda.h: fabricmem::emulated.
#include <cstdio>

#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/fabricmem.hpp>

int main() {
    const std::shared_ptr<fabricmem::Driver> driver = fabricmem::make_emulated_driver();
    if (fabricmem::emulated_counts(*driver) != fabricmem::EmulatedCounts{}) return 1;
    std::puts("emulated: a driver that holds nothing");
    return 0;
}
