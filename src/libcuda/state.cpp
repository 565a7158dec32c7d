// SPDX-License-Identifier: Apache-2.0
// Makes the process's driver at cuInit, and ends it with the process. Never destroyed: other threads and statics may
// still call.
#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include <fabricmem/emulated_fabric.hpp>
#include <fabricmem/error.hpp>
#include <fabricmem/fault_driver.hpp>
#include <fabricmem/forwarding_driver.hpp>

#include "libcuda/libcuda.hpp"
#include "log/log.hpp"

namespace fabricmem::detail::libcuda {

namespace {

constinit std::atomic<const Backend*> g_backend{nullptr};
constinit std::atomic<bool> g_ended{false};
constinit std::mutex g_making;

// The emulated driver that `driver` is, or wraps.
emulated::EmulatedDriver* emulator_of(Driver* driver) {
    while (auto* const wrapper = dynamic_cast<ForwardingDriver*>(driver)) driver = wrapper->inner().get();
    return dynamic_cast<emulated::EmulatedDriver*>(driver);
}

// invented: the moment from which calls answer DEINITIALIZED is that of an atexit function which cuInit registers.
void end() { g_ended.store(true, std::memory_order_release); }

CUresult make() {
    const std::lock_guard lock(g_making);
    if (g_backend.load(std::memory_order_acquire) != nullptr) return CUDA_SUCCESS;
    auto made = std::make_unique<Backend>();
    made->driver = with_faults_from_environment(make_emulated_driver_from_environment());
    made->emulator = emulator_of(made->driver.get());
    made->born_in = fork_epoch();
    if (made->emulator == nullptr || std::atexit(end) != 0) return CUDA_ERROR_OUT_OF_MEMORY;
    if (const CUresult result = made->driver->init(0); result != CUDA_SUCCESS) return result;
    log(LogLevel::warning, "this libcuda.so.1 is libfabricmem's emulated driver: no GPU is used");
    g_backend.store(made.release(), std::memory_order_release);
    return CUDA_SUCCESS;
}

}  // namespace

CUresult start() noexcept {
    CUresult why_not = CUDA_SUCCESS;
    if (backend(&why_not) != nullptr) return CUDA_SUCCESS;
    if (g_backend.load(std::memory_order_acquire) != nullptr) return why_not;
    try {
        return make();
    } catch (const Error& error) {
        log(LogLevel::error, "cuInit: {}", error.what());
        return error.code() == 0 ? CUDA_ERROR_UNKNOWN : static_cast<CUresult>(error.code());
    } catch (...) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
}

const Backend* backend(CUresult* why_not) noexcept {
    const Backend* const found = g_backend.load(std::memory_order_acquire);
    *why_not = CUDA_ERROR_NOT_INITIALIZED;
    if (found == nullptr || found->born_in != fork_epoch()) return nullptr;
    *why_not = CUDA_ERROR_DEINITIALIZED;
    return g_ended.load(std::memory_order_acquire) ? nullptr : found;
}

namespace {

struct Named {
    std::mutex mutex;
    std::set<std::string_view> names;
};

bool first_time(const char* name) {
    static Named& named = *std::make_unique<Named>().release();  // never destroyed: calls come at exit, too
    const std::lock_guard lock(named.mutex);
    return named.names.insert(name).second;
}

}  // namespace

CUresult not_supported(const char* name) noexcept {
    return with_driver([&](Driver&) {
        return emulated::guarded([&] {
            if (first_time(name)) {
                log(LogLevel::warning, "{} is not emulated: it answers CUDA_ERROR_NOT_SUPPORTED, each time", name);
            }
            return CUDA_ERROR_NOT_SUPPORTED;
        });
    });
}

}  // namespace fabricmem::detail::libcuda

using namespace fabricmem;
using namespace fabricmem::detail::libcuda;

/// What the generated stubs call.
extern "C" int fabricmem_libcuda_stub(const char* name) { return static_cast<int>(not_supported(name)); }

FABRICMEM_CUDA cuInit(unsigned int flags) { return flags == 0 ? start() : CUDA_ERROR_INVALID_VALUE; }

FABRICMEM_CUDA cuDriverGetVersion(int* version) {
    if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *version = detail::emulated::kDriverVersion;  // had before cuInit too
    return CUDA_SUCCESS;
}

FABRICMEM_CUDA cuGetErrorName(CUresult error, const char** name) { return detail::emulated::error_name(error, name); }
FABRICMEM_CUDA cuGetErrorString(CUresult error, const char** text) { return detail::emulated::error_text(error, text); }

FABRICMEM_CUDA cuGetExportTable(const void** table, const CUuuid*) {
    if (table != nullptr) *table = nullptr;
    detail::log(LogLevel::warning, "cuGetExportTable: the CUDA runtime's private tables are not emulated");
    return CUDA_ERROR_NOT_SUPPORTED;
}
