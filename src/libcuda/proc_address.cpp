// SPDX-License-Identifier: Apache-2.0
// cuGetProcAddress: which function a name means in which version of CUDA.
#include <string>

#include "libcuda/libcuda.hpp"
#include "libcuda/versions.hpp"

using namespace fabricmem::detail;
using namespace fabricmem::detail::libcuda;

namespace {

struct Found {
    void* function = nullptr;
    bool of_a_newer_version = false;
};

// With the ending of functions whose null stream is the thread's own, where there is such a one.
void* find(std::string_view symbol, bool own_stream) {
    if (own_stream) {
        for (const char* const ending : {"_ptsz", "_ptds"}) {
            if (void* const function = find_symbol(std::string(symbol) + ending)) return function;
        }
    }
    return find_symbol(symbol);
}

// A name that is written down in versions.hpp: the newest function up to that version.
Found find_versioned(std::string_view name, int version, bool own_stream) {
    Found found;
    for (const Version& row : kVersions) {
        if (row.name != name) continue;
        if (row.version > version)
            found.of_a_newer_version = true;
        else
            found.function = find(row.symbol, own_stream);
    }
    return found;
}

bool has_version_ending(std::string_view name) {
    const std::size_t at = name.rfind("_v");
    return at != std::string_view::npos && at + 3 == name.size() && name[at + 2] >= '2' && name[at + 2] <= '9';
}
bool has_stream_ending(std::string_view name) {
    return name.size() > 5 && (name.substr(name.size() - 5) == "_ptsz" || name.substr(name.size() - 5) == "_ptds");
}

// Any other name: a stub, of whatever version is the newest.
void* find_stub(std::string_view name, bool own_stream) {
    if (has_version_ending(name) || has_stream_ending(name)) return nullptr;  // base names alone are looked up
    for (char digit = '9'; digit >= '2'; --digit) {
        if (void* const function = find(std::string(name) + "_v" + digit, own_stream)) return function;
    }
    return find(name, own_stream);
}

CUresult look_up(const char* name, void** function, int version, cuuint64_t flags,
                 CUdriverProcAddressQueryResult* status) {
    constexpr cuuint64_t kOwnStream = CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
    if (name == nullptr || function == nullptr || version > emulated::kDriverVersion || flags > kOwnStream) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    Found found = find_versioned(name, version, flags == kOwnStream);
    if (found.function == nullptr && !found.of_a_newer_version) found.function = find_stub(name, flags == kOwnStream);
    *function = found.function;
    if (found.function != nullptr) {
        if (status != nullptr) *status = CU_GET_PROC_ADDRESS_SUCCESS;
        return CUDA_SUCCESS;
    }
    if (found.of_a_newer_version) {  // cuda.h: success, and a null pointer
        if (status != nullptr) *status = CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
        return CUDA_SUCCESS;
    }
    if (status == nullptr) return CUDA_ERROR_NOT_FOUND;  // invented
    *status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;      // as an H100's driver does: success, and a null pointer
    return CUDA_SUCCESS;
}

}  // namespace

FABRICMEM_CUDA cuGetProcAddress_v2(const char* name, void** function, int version, cuuint64_t flags,
                                   CUdriverProcAddressQueryResult* status) {
    return emulated::guarded([&] { return look_up(name, function, version, flags, status); });
}
FABRICMEM_CUDA cuGetProcAddress(const char* name, void** function, int version, cuuint64_t flags) {
    return emulated::guarded([&] { return look_up(name, function, version, flags, nullptr); });
}
