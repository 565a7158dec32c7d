// SPDX-License-Identifier: Apache-2.0
// A libcuda that only writes down how it is called. It is found by cuGetProcAddress alone, as the library must find it.
// With FAKE_LIBCUDA_OLD defined it is one of before CUDA 12.0, whose cuGetProcAddress has another name.
#include "support/fake_libcuda.hpp"

#include <cuda.h>

#define FAKE_EXPORT extern "C" __attribute__((visibility("default")))

FAKE_EXPORT FakeLibcuda* fake_libcuda() {
    static FakeLibcuda fake;
    return &fake;
}

namespace {

template <int Index, typename Function>
struct Entry;
template <int Index, typename... Args>
struct Entry<Index, CUresult (*)(Args...)> {
    static inline const char* name = nullptr;
    static CUresult call(Args... args) {
        FakeLibcuda& fake = *fake_libcuda();
        ++fake.calls;
        fake.last = {};
        fake.last.name = name;
        ((fake.last.arguments[fake.last.count++] = as_number(args)), ...);
        if (fake.last.name == "cuInit") return static_cast<CUresult>(fake.control.init_result);
        return static_cast<CUresult>(FakeLibcuda::kFirstResult + Index);
    }
};

enum Index : int {
#define FAKE_INDEX(seam, entry, version) k_##seam,
    FABRICMEM_TEST_CUDA_CALLS(FAKE_INDEX)
#undef FAKE_INDEX
};

struct Found {
    void* function = nullptr;
    int version = 0;
};

// cuMemcpyBatchAsync, of which cuda.h knows one signature or none.
template <int Version, typename... Args>
struct Batch {
    static CUresult call(CUdeviceptr* destinations, CUdeviceptr* sources, std::size_t* bytes, std::size_t count,
                         void* attributes, std::size_t* first_copies, std::size_t attribute_count, Args... rest) {
        FakeLibcuda& fake = *fake_libcuda();
        ++fake.calls;
        fake.last = {};
        fake.last.name = "cuMemcpyBatchAsync";
        int& used = fake.last.count;
        for (const std::uint64_t value :
             {as_number(destinations), as_number(sources), as_number(bytes), as_number(count), as_number(rest)...})
            fake.last.arguments[used++] = value;
        // Where the attributes name the access order of streams, for all copies from the first on.
        fake.batch_is_in_stream_order =
            *static_cast<const int*>(attributes) == 1 && *first_copies == 0 && attribute_count == 1;
        return static_cast<CUresult>(Version / 100);
    }
};

[[maybe_unused]] Found find_batch(std::string_view symbol, int version) {
    if (symbol != "cuMemcpyBatchAsync") return {};
    if (version == 13000) return {reinterpret_cast<void*>(&Batch<13000, CUstream>::call), version};
    return {reinterpret_cast<void*>(&Batch<12080, std::size_t*, CUstream>::call), 12080};
}

[[maybe_unused]] Found find(std::string_view symbol) {
#define FAKE_FIND(seam, entry, version)                      \
    if (symbol == #entry) {                                  \
        using E = Entry<k_##seam, decltype(&::entry)>;       \
        E::name = #entry;                                    \
        return {reinterpret_cast<void*>(&E::call), version}; \
    }
    FABRICMEM_TEST_CUDA_CALLS(FAKE_FIND)
#undef FAKE_FIND
    return {};
}

}  // namespace

// The loader's way to say which file this is, and the version for those who can't look anything up.
FAKE_EXPORT CUresult cuInit(unsigned int) { return static_cast<CUresult>(fake_libcuda()->control.init_result); }
FAKE_EXPORT CUresult cuDriverGetVersion(int* version) {
#if defined(FAKE_LIBCUDA_OLD)
    *version = 11080;
#else
    *version = fake_libcuda()->control.version;
#endif
    return CUDA_SUCCESS;
}

#if defined(FAKE_LIBCUDA_OLD)
#undef cuGetProcAddress
FAKE_EXPORT CUresult cuGetProcAddress(const char*, void**, int, cuuint64_t) { return CUDA_ERROR_NOT_FOUND; }
#else
FAKE_EXPORT CUresult cuGetProcAddress_v2(const char* symbol, void** function, int version, cuuint64_t flags,
                                         CUdriverProcAddressQueryResult* status) {
    FakeLibcuda& fake = *fake_libcuda();
    fake.lookup_flags = flags;
    if (fake.control.lookup_result != 0) return static_cast<CUresult>(fake.control.lookup_result);
    *function = nullptr;
    *status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    Found found = find(symbol);
    if (found.function == nullptr) found = find_batch(symbol, version);
    // The real one answers a lower version with an older function, or with VERSION_NOT_SUFFICIENT, and a higher one
    // with a newer function where there is one: both would be wrong, so here neither is found.
    if (found.function == nullptr || found.version != version || fake.control.lacks == symbol)
        return CUDA_ERROR_NOT_FOUND;
    if (fake.control.too_new == symbol) {
        *status = CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
        *function = found.function;
        return CUDA_SUCCESS;
    }
    *status = CU_GET_PROC_ADDRESS_SUCCESS;
    if (fake.control.null_success != symbol) *function = found.function;
    return CUDA_SUCCESS;
}
#endif
