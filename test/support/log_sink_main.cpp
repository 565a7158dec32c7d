// SPDX-License-Identifier: Apache-2.0
// Makes a driver or NVML's loader log, with a sink that calls them again: ends with 0 where that works, hangs where a
// lock is held. Run by log_sink_test.cpp, since what makes the emulator log is a limit of the whole process.
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/log.hpp>

#include "platform/system_platform.hpp"
#include "support/driver_kit.hpp"

namespace {

using namespace fabricmem;
using namespace fabricmem::test;

constexpr std::size_t kBig = std::size_t{256} << 20;
constexpr std::size_t kSlack = std::size_t{64} << 20;

// Calls `again` from inside the sink, where no sink is under way in it already.
class CallingSink {
public:
    explicit CallingSink(std::function<void()> again) {
        set_log_level(LogLevel::debug);
        set_log_sink([this, again = std::move(again)](LogLevel, std::string_view line) {
            if (inside) return;
            inside = true;
            std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
            again();
            inside = false;
            const std::lock_guard lock(mutex_);
            ++calls_;
            changed_.notify_all();
        });
    }
    CallingSink(const CallingSink&) = delete;
    CallingSink& operator=(const CallingSink&) = delete;
    ~CallingSink() { set_log_sink({}); }

    bool was_called() {
        std::unique_lock lock(mutex_);
        return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return calls_ != 0; });
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    int calls_ = 0;
    inline static thread_local bool inside = false;
};

// From here on the process gets no block of addresses as large as kBig.
void limit_addresses() {
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlim_t now = pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const rlimit limit{now + kSlack, now + kSlack};
    ::setrlimit(RLIMIT_AS, &limit);
}

bool reserve(Driver& driver) {
    limit_addresses();
    CUdeviceptr address = 0;
    return driver.mem_address_reserve(&address, kBig, 0, 0, 0) == CUDA_ERROR_OUT_OF_MEMORY;
}

bool alloc(Driver& driver) {
    limit_addresses();
    CUdeviceptr address = 0;
    return driver.mem_alloc(&address, kBig) == CUDA_ERROR_OUT_OF_MEMORY;
}

bool alloc_host(Driver& driver) {
    limit_addresses();
    void* address = nullptr;
    return driver.mem_alloc_host(&address, kBig) == CUDA_ERROR_OUT_OF_MEMORY;
}

CUdeviceptr map_big(Driver& driver, CUdeviceptr at = 0) {
    const CUmemAllocationProp wanted = device_memory(kFabric);
    const CUmemAccessDesc access = access_for(kDevice);
    CUmemGenericAllocationHandle handle = 0;
    if (at == 0) driver.mem_address_reserve(&at, kBig, 0, 0, 0);
    driver.mem_create(&handle, kBig, &wanted, 0);
    driver.mem_map(at, kBig, 0, handle, 0);
    driver.mem_release(handle);
    return driver.mem_set_access(at, kBig, &access, 1) == CUDA_SUCCESS ? at : 0;
}

// The word that the sink writes too: both need the one alias.
CUdeviceptr word = 0;

bool write_word(Driver& driver) {
    word = map_big(driver);
    limit_addresses();
    return driver.stream_write_value32(nullptr, word, 1, 0) == CUDA_ERROR_OUT_OF_MEMORY;
}

bool wait_for_word(Driver& driver) {
    word = map_big(driver);
    limit_addresses();
    return driver.stream_wait_value32(nullptr, word, 1, CU_STREAM_WAIT_VALUE_EQ) == CUDA_ERROR_OUT_OF_MEMORY;
}

// A wait that stands in the queue, whose memory is another by the time that the thread gets to it.
bool wait_in_thread(Driver& driver) {
    const CUdeviceptr gate = map_big(driver);
    const CUdeviceptr behind = map_big(driver);
    if (driver.stream_wait_value32(nullptr, gate, 1, CU_STREAM_WAIT_VALUE_EQ) != CUDA_SUCCESS ||
        driver.stream_wait_value32(nullptr, behind, 1, CU_STREAM_WAIT_VALUE_EQ) != CUDA_SUCCESS)
        return false;
    driver.mem_unmap(behind, kBig);
    if (map_big(driver, behind) == 0) return false;
    limit_addresses();
    CUstream other = nullptr;
    driver.stream_create(&other, CU_STREAM_NON_BLOCKING);
    driver.stream_write_value32(other, gate, 1, 0);
    return driver.stream_synchronize(nullptr) == CUDA_ERROR_LAUNCH_FAILED;
}

int run_driver(bool (*action)(Driver&)) {
    const auto driver = make_emulated_driver();
    const CurrentContext context(*driver);
    CUstream free_stream = nullptr;  // waits for nobody's work
    if (driver->stream_create(&free_stream, CU_STREAM_NON_BLOCKING) != CUDA_SUCCESS) return 3;
    CallingSink sink([&] {
        static_cast<void>(emulated_counts(*driver));
        if (word != 0) driver->stream_write_value32(free_stream, word, 2, 0);
    });
    if (!action(*driver)) return 3;
    return sink.was_called() ? 0 : 4;
}

int run_nvml() {
    const auto platform = detail::make_system_platform_with({}, "libm.so.6");
    CallingSink sink([&] { static_cast<void>(platform->fabric_info("0000:1b:00.0")); });
    if (platform->fabric_info("0000:1b:00.0").has_value()) return 3;
    return sink.was_called() ? 0 : 4;
}

}  // namespace

int main(int argc, char** argv) {
    const std::map<std::string, bool (*)(Driver&)> actions{{"reserve", reserve},
                                                           {"alloc", alloc},
                                                           {"alloc_host", alloc_host},
                                                           {"write_word", write_word},
                                                           {"wait_for_word", wait_for_word},
                                                           {"wait_in_thread", wait_in_thread}};
    const std::string name = argc > 1 ? argv[1] : "";
    if (name == "nvml") return run_nvml();
    const auto found = actions.find(name);
    return found == actions.end() ? 2 : run_driver(found->second);
}
