// SPDX-License-Identifier: Apache-2.0
// Ends while buffers are alive: in statics made before and after the driver, in thread_local storage, in a thread that
// still runs. Exit code 0 unless something crashes. Run by lifetime_test.cpp.
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <thread>

#include <unistd.h>

#include <fabricmem/cuda_driver.hpp>
#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/fabric_buffer.hpp>

namespace {

using fabricmem::FabricBuffer;
using fabricmem::ImportedFabricBuffer;

std::shared_ptr<fabricmem::Driver> make_driver() {
    const char* const name = std::getenv("FABRICMEM_TEST_DRIVER");
    if (name != nullptr && std::string_view(name) == "cuda") return fabricmem::make_cuda_driver();
    return fabricmem::make_emulated_driver();
}

std::optional<FabricBuffer> first_static;  // destroyed after the function-local statics below
std::optional<ImportedFabricBuffer> import_static;

FabricBuffer& late_static(const std::shared_ptr<fabricmem::Driver>& driver) {
    static FabricBuffer buffer(driver, 1);
    return buffer;
}

void live_in_thread(const std::shared_ptr<fabricmem::Driver>& driver) {
    int made[2];
    if (::pipe(made) != 0) std::exit(3);
    std::thread([driver, write_end = made[1]] {
        static thread_local std::optional<FabricBuffer> local;
        local.emplace(driver, 1, fabricmem::FabricBufferOptions{.location = fabricmem::Location::host_numa(0)});
        const FabricBuffer on_stack(driver, 1);
        const char done = 1;
        if (::write(write_end, &done, 1) != 1) std::abort();
        ::pause();  // until the process ends
    }).detach();
    char done = 0;
    if (::read(made[0], &done, 1) != 1) std::exit(3);
}

}  // namespace

int main(int argc, char** argv) {
    const std::string_view how = argc > 1 ? argv[1] : "return";
    try {
        const auto driver = make_driver();
        first_static.emplace(driver, 1);
        import_static.emplace(driver, late_static(driver).blob());
        live_in_thread(driver);
    } catch (const fabricmem::Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
    if (how == "exit") std::exit(0);
    if (how == "quick") std::quick_exit(0);
    return 0;
}
