// SPDX-License-Identifier: Apache-2.0
// Calls that the seam lacks are looked up by name, so that nothing here is linked with libcuda or NCCL.
#include "other_allocators.hpp"

#include <cstdint>
#include <cstdlib>
#include <exception>
#include <limits>
#include <stdexcept>
#include <utility>

#include "common/text.hpp"
#include "loaded_library.hpp"
#include "pingpong_gpu.hpp"

namespace bench {
namespace {

class PlainAllocator final : public OtherAllocator {
public:
    explicit PlainAllocator(std::shared_ptr<fabricmem::Driver> driver) : driver_(std::move(driver)) {}

    void allocate_and_free(std::size_t bytes) override {
        CUdeviceptr address = 0;
        examples::check_call(*driver_, driver_->mem_alloc(&address, bytes), "cuMemAlloc");
        examples::check_call(*driver_, driver_->mem_free(address), "cuMemFree");
    }

private:
    std::shared_ptr<fabricmem::Driver> driver_;
};

struct PoolCalls {
    CUresult (*create)(CUmemoryPool*, const CUmemPoolProps*) = nullptr;
    CUresult (*destroy)(CUmemoryPool) = nullptr;
    CUresult (*set_attribute)(CUmemoryPool, CUmemPool_attribute, void*) = nullptr;
    CUresult (*allocate)(CUdeviceptr*, std::size_t, CUmemoryPool, CUstream) = nullptr;
    CUresult (*free)(CUdeviceptr, CUstream) = nullptr;

    /// Of the driver that this process has loaded already. Returns what is missing; empty: nothing.
    [[nodiscard]] std::string find() {
        LoadedLibrary libcuda("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
        const bool found = libcuda.find(create, "cuMemPoolCreate") && libcuda.find(destroy, "cuMemPoolDestroy") &&
                           libcuda.find(set_attribute, "cuMemPoolSetAttribute") &&
                           libcuda.find(allocate, "cuMemAllocFromPoolAsync") && libcuda.find(free, "cuMemFreeAsync");
        return found ? std::string() : libcuda.missing();
    }
};

class PoolAllocator final : public OtherAllocator {
public:
    PoolAllocator(std::shared_ptr<fabricmem::Driver> driver, const PoolCalls& calls, int device, PoolKeeps keeps)
        : driver_(std::move(driver)), calls_(calls), stream_(driver_) {
        CUmemPoolProps properties{};
        properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
        properties.handleTypes = CU_MEM_HANDLE_TYPE_FABRIC;
        properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
        properties.location.id = device;
        examples::check_call(*driver_, calls_.create(&pool_, &properties), "cuMemPoolCreate");
        cuuint64_t kept_bytes = keeps == PoolKeeps::all ? std::numeric_limits<cuuint64_t>::max() : 0;
        const CUresult set = calls_.set_attribute(pool_, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &kept_bytes);
        if (set != CUDA_SUCCESS) (void)calls_.destroy(pool_);
        examples::check_call(*driver_, set, "cuMemPoolSetAttribute");
    }
    ~PoolAllocator() override { (void)calls_.destroy(pool_); }

    void allocate_and_free(std::size_t bytes) override {
        CUdeviceptr address = 0;
        examples::check_call(*driver_, calls_.allocate(&address, bytes, pool_, stream_.get()),
                             "cuMemAllocFromPoolAsync");
        synchronize();
        examples::check_call(*driver_, calls_.free(address, stream_.get()), "cuMemFreeAsync");
        synchronize();
    }

private:
    void synchronize() {
        examples::check_call(*driver_, driver_->stream_synchronize(stream_.get()), "cuStreamSynchronize");
    }

    std::shared_ptr<fabricmem::Driver> driver_;
    PoolCalls calls_;
    pingpong::Stream stream_;
    CUmemoryPool pool_ = nullptr;
};

/// nccl.h, as far as it is needed. ncclResult_t is an enum of int's size, 0 is success.
struct NcclCalls {
    int (*allocate)(void**, std::size_t) = nullptr;
    int (*free)(void*) = nullptr;
    const char* (*words)(int) = nullptr;
};

class NcclAllocator final : public OtherAllocator {
public:
    explicit NcclAllocator(const NcclCalls& calls) : calls_(calls) {}

    void allocate_and_free(std::size_t bytes) override {
        void* address = nullptr;
        check(calls_.allocate(&address, bytes), "ncclMemAlloc");
        check(calls_.free(address), "ncclMemFree");
    }

private:
    void check(int result, const char* call) const {
        if (result != 0) throw std::runtime_error(examples::formatted("{}: {}", call, calls_.words(result)));
    }

    NcclCalls calls_;
};

std::string nccl_file(const Options& options) {
    if (!options.nccl.empty()) return options.nccl;
    const char* const named = std::getenv("FABRICMEM_NCCL");
    return named != nullptr && *named != '\0' ? named : "libnccl.so.2";
}

}  // namespace

FoundAllocator plain_allocator(const std::shared_ptr<fabricmem::Driver>& driver) {
    return {.name = "cuMemAlloc", .allocator = std::make_unique<PlainAllocator>(driver)};
}

FoundAllocator pool_allocator(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options,
                              PoolKeeps keeps) {
    FoundAllocator found{.name = keeps == PoolKeeps::all ? "pool that keeps" : "pool"};
    PoolCalls calls;
    found.missing = calls.find();
    if (!found.missing.empty()) return found;
    try {
        found.allocator = std::make_unique<PoolAllocator>(driver, calls, options.device, keeps);
    } catch (const std::exception& error) {
        found.missing = error.what();
    }
    return found;
}

FoundAllocator nccl_allocator(const Options& options) {
    FoundAllocator found{.name = "ncclMemAlloc"};
    LoadedLibrary nccl(nccl_file(options), RTLD_NOW | RTLD_LOCAL);
    NcclCalls calls;
    if (nccl.find(calls.allocate, "ncclMemAlloc") && nccl.find(calls.free, "ncclMemFree") &&
        nccl.find(calls.words, "ncclGetErrorString")) {
        found.allocator = std::make_unique<NcclAllocator>(calls);
    } else {
        found.missing = nccl.missing();
    }
    return found;
}

}  // namespace bench
