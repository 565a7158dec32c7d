// SPDX-License-Identifier: Apache-2.0
// Ends while buffers are alive: in statics made before and after the driver, in thread_local storage, in a thread that
// still runs; while calls of the driver hang that were given up; while import caches and views are alive. Exit code 0
// unless something crashes. Run by lifetime_test.cpp, deadline_test.cpp, memory_report_test.cpp and
// import_cache_fault_test.cpp.
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <thread>

#include <unistd.h>

#include <fabricmem/cuda_driver.hpp>
#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/fault_driver.hpp>
#include <fabricmem/import_cache.hpp>
#include <fabricmem/log.hpp>
#include <fabricmem/memory_report.hpp>

namespace {

using fabricmem::FabricBuffer;
using fabricmem::ImportCache;
using fabricmem::ImportedFabricBuffer;
using fabricmem::ImportView;

std::shared_ptr<fabricmem::Driver> make_driver() {
    const char* const name = std::getenv("FABRICMEM_TEST_DRIVER");
    if (name != nullptr && std::string_view(name) == "cuda") return fabricmem::make_cuda_driver();
    return fabricmem::make_emulated_driver();
}

ImportView view_after_cache;  // destroyed after the cache
std::optional<ImportCache> cache_static;
ImportView view_before_cache;
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

// What is logged goes to stdout from here on, for whoever started this.
void report_at_exit(const std::shared_ptr<fabricmem::Driver>& driver) {
    fabricmem::set_log_sink([](fabricmem::LogLevel, std::string_view line) {
        std::printf("%.*s\n", static_cast<int>(line.size()), line.data());
        std::fflush(stdout);
    });
    fabricmem::report_memory_at_exit(driver);
    fabricmem::report_memory_at_exit(driver);
    fabricmem::report_memory_at_exit(fabricmem::make_emulated_driver());  // is gone by then
}

// A cache with views that go before it and after it, one that waits for work for ever, and one that another thread
// copies all the time; what ends at exit hangs in the driver.
bool leave_caches(const std::shared_ptr<fabricmem::Driver>& inner) {
    static const FabricBuffer own(inner, 1), other(inner, 1), third(inner, 1);
    static const auto driver = std::make_shared<fabricmem::FaultDriver>(inner);
    cache_static.emplace(driver);
    view_after_cache = cache_static->acquire(own.blob());
    view_before_cache = cache_static->acquire(other.blob());
    cache_static->invalidate(*other.blob().allocation_id);
    cache_static->acquire(third.blob()).retire_after([] { return false; });
    cache_static->add_range({}, 0, third.blob());
    std::thread([view = view_after_cache] {
        for (;;) {
            const ImportView copy = view;
        }
    }).detach();
    driver->add({.effect = fabricmem::Fault::Effect::hang, .call = "cuMemUnmap"});
    fabricmem::report_memory_at_exit(driver);
    return cache_static->statistics().entries == 3;
}

// An import and a tear-down that never return.
bool leave_calls_stuck(const std::shared_ptr<fabricmem::Driver>& inner) {
    static const FabricBuffer own(inner, 1);
    static const auto driver = std::make_shared<fabricmem::FaultDriver>(inner);
    static std::optional<ImportedFabricBuffer> imported(
        std::in_place, driver, own.blob(),
        fabricmem::ImportOptions{.tear_down_timeout = std::chrono::milliseconds(10)});
    driver->add({.effect = fabricmem::Fault::Effect::hang, .call = "cuMemRelease"});
    driver->add({.effect = fabricmem::Fault::Effect::hang, .call = "cuMemImportFromShareableHandle"});
    imported.reset();
    try {
        static const ImportedFabricBuffer late(driver, own.blob(), {.timeout = std::chrono::milliseconds(10)});
    } catch (const fabricmem::Error& error) {
        return error.kind() == fabricmem::ErrorKind::timed_out && fabricmem::stuck_calls(*driver) == 2 &&
               driver->wait_until_hanging(2, std::chrono::seconds(60));
    }
    return false;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string_view how = argc > 1 ? argv[1] : "return";
    const bool stuck = argc > 2 && argv[2] == std::string_view("stuck");
    const bool report = argc > 2 && argv[2] == std::string_view("report");
    const bool caches = argc > 2 && argv[2] == std::string_view("caches");
    try {
        const auto driver = make_driver();
        if (report) report_at_exit(driver);
        if (caches && !leave_caches(driver)) return 4;
        if (stuck && !leave_calls_stuck(driver)) return 4;
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
