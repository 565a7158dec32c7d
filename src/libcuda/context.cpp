// SPDX-License-Identifier: Apache-2.0
// The drop-in libcuda's contexts: primary ones by the seam, others by the emulator.
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "libcuda/libcuda.hpp"

using namespace fabricmem;
using namespace fabricmem::detail;
using namespace fabricmem::detail::libcuda;

namespace {

constexpr unsigned int kKnownContextFlags = 0xff;  // CU_CTX_FLAGS_MASK of CUDA 12.3
constexpr unsigned int kApiVersion = 3020;         // invented
constexpr std::pair<int, std::size_t> kLimits[] = {
    // invented: CU_LIMIT_* and the values that a new context has
    {CU_LIMIT_STACK_SIZE, 1024},
    {CU_LIMIT_PRINTF_FIFO_SIZE, std::size_t{7} << 20},
    {CU_LIMIT_MALLOC_HEAP_SIZE, std::size_t{8} << 20},
    {CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH, 2},
    {CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT, 2048},
    {CU_LIMIT_MAX_L2_FETCH_GRANULARITY, 64},
    {CU_LIMIT_PERSISTING_L2_CACHE_SIZE, 0},
};

// What contexts were told that changes nothing here, to be asked back. Never destroyed: calls come late.
struct Told {
    std::mutex mutex;
    std::map<std::pair<const Context*, int>, std::size_t> limits;
    std::set<std::pair<const Context*, const Context*>> peers;
};
Told& told() {
    static Told& leaked = *new Told;
    return leaked;
}

const std::size_t* default_limit(CUlimit limit) {
    for (const auto& [number, value] : kLimits) {
        if (number == static_cast<int>(limit)) return &value;
    }
    return nullptr;
}

CUresult create(CUcontext* context, unsigned int flags, CUdevice device) {
    return with_world([&](World& world) {
        if (context == nullptr || (flags & ~kKnownContextFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
        if (!world.has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
        emulated::ThreadState* const state = emulated::thread_state(world.life);
        if (state == nullptr) return CUDA_ERROR_DEINITIALIZED;
        state->contexts.reserve(state->contexts.size() + 1);
        Context& made = world.make_context(device, flags);
        state->contexts.push_back(&made);
        *context = made.handle();
        return CUDA_SUCCESS;
    });
}

// Of a handle, or of the thread's current one for null.
template <typename Function>
CUresult with_this_or_current(CUcontext context, Function&& function) {
    return with_world([&](World& world) {
        Context* const found = context == nullptr ? world.top() : world.find_context(context);
        return found == nullptr ? CUDA_ERROR_INVALID_CONTEXT : function(world, *found);
    });
}

CUresult set_primary_flags(CUdevice device, unsigned int flags) {
    return with_world([&](World& world) {
        if (!world.has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
        if ((flags & ~kKnownContextFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
        world.contexts[static_cast<std::size_t>(device)]->flags = flags;
        return CUDA_SUCCESS;
    });
}

// invented: who has retained it keeps a context that is empty and whole.
CUresult reset_primary(CUdevice device) {
    return with_world([&](World& world) {
        if (!world.has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
        const std::lock_guard lock(world.context_mutex);
        world.empty_context(*world.contexts[static_cast<std::size_t>(device)]);
        return CUDA_SUCCESS;
    });
}

}  // namespace

FABRICMEM_CUDA cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    return with_driver([&](Driver& driver) { return driver.device_primary_ctx_retain(context, device); });
}
FABRICMEM_CUDA cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    return with_driver([&](Driver& driver) { return driver.device_primary_ctx_release(device); });
}
FABRICMEM_CUDA cuDevicePrimaryCtxRelease(CUdevice device) { return cuDevicePrimaryCtxRelease_v2(device); }
FABRICMEM_CUDA cuDevicePrimaryCtxGetState(CUdevice device, unsigned int* flags, int* active) {
    return with_driver([&](Driver& driver) { return driver.device_primary_ctx_get_state(device, flags, active); });
}
FABRICMEM_CUDA cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned int flags) {
    return set_primary_flags(device, flags);
}
FABRICMEM_CUDA cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned int flags) {
    return set_primary_flags(device, flags);
}
FABRICMEM_CUDA cuDevicePrimaryCtxReset_v2(CUdevice device) { return reset_primary(device); }
FABRICMEM_CUDA cuDevicePrimaryCtxReset(CUdevice device) { return reset_primary(device); }

FABRICMEM_CUDA cuCtxCreate(CUcontext* context, unsigned int flags, CUdevice device) {
    return create(context, flags, device);
}
FABRICMEM_CUDA cuCtxCreate_v2(CUcontext* context, unsigned int flags, CUdevice device) {
    return create(context, flags, device);
}
FABRICMEM_CUDA cuCtxCreate_v3(CUcontext* context, CUexecAffinityParam*, int count, unsigned int flags,
                              CUdevice device) {
    return count == 0 ? create(context, flags, device) : not_supported("cuCtxCreate_v3 with an execution affinity");
}
// A struct that cuda.h has from 12.5 on.
FABRICMEM_CUDA cuCtxCreate_v4(CUcontext* context, struct CUctxCreateParams_st* parameters, unsigned int flags,
                              CUdevice device) {
    return parameters == nullptr ? create(context, flags, device) : not_supported("cuCtxCreate_v4 with parameters");
}
FABRICMEM_CUDA cuCtxDestroy_v2(CUcontext context) {
    return with_world([&](World& world) {
        const CUresult result = world.end_context(context);
        emulated::ThreadState* const state = emulated::thread_state(world.life);
        if (result == CUDA_SUCCESS && state != nullptr && !state->contexts.empty() &&
            state->contexts.back()->handle() == context) {
            state->contexts.pop_back();
        }
        return result;
    });
}
FABRICMEM_CUDA cuCtxDestroy(CUcontext context) { return cuCtxDestroy_v2(context); }

FABRICMEM_CUDA cuCtxGetCurrent(CUcontext* context) {
    return with_driver([&](Driver& driver) { return driver.ctx_get_current(context); });
}
FABRICMEM_CUDA cuCtxSetCurrent(CUcontext context) {
    return with_driver([&](Driver& driver) { return driver.ctx_set_current(context); });
}
FABRICMEM_CUDA cuCtxPushCurrent_v2(CUcontext context) {
    return with_driver([&](Driver& driver) { return driver.ctx_push_current(context); });
}
FABRICMEM_CUDA cuCtxPushCurrent(CUcontext context) { return cuCtxPushCurrent_v2(context); }
FABRICMEM_CUDA cuCtxPopCurrent_v2(CUcontext* context) {
    return with_driver([&](Driver& driver) { return driver.ctx_pop_current(context); });
}
FABRICMEM_CUDA cuCtxPopCurrent(CUcontext* context) { return cuCtxPopCurrent_v2(context); }
FABRICMEM_CUDA cuCtxGetDevice(CUdevice* device) {
    return with_driver([&](Driver& driver) { return driver.ctx_get_device(device); });
}
FABRICMEM_CUDA cuCtxSynchronize() {
    return with_driver([](Driver& driver) { return driver.ctx_synchronize(); });
}
FABRICMEM_CUDA cuCtxGetDevice_v2(CUdevice* device, CUcontext context) {
    return with_this_or_current(context, [&](World&, Context& found) {
        if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *device = found.device;
        return CUDA_SUCCESS;
    });
}
FABRICMEM_CUDA cuCtxSynchronize_v2(CUcontext context) {
    return with_this_or_current(context, [](World& world, Context& found) {
        return found.active() ? world.streams.synchronize(found) : CUDA_ERROR_CONTEXT_IS_DESTROYED;
    });
}

FABRICMEM_CUDA cuCtxGetFlags(unsigned int* flags) {
    return with_context([&](World&, Context& context) {
        if (flags == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *flags = context.flags;
        return CUDA_SUCCESS;
    });
}
FABRICMEM_CUDA cuCtxSetFlags(unsigned int flags) {
    return with_context([&](World&, Context& context) {
        if ((flags & ~kKnownContextFlags) != 0) return CUDA_ERROR_INVALID_VALUE;
        context.flags = flags;
        return CUDA_SUCCESS;
    });
}
FABRICMEM_CUDA cuCtxGetId(CUcontext context, unsigned long long* id) {
    return with_this_or_current(context, [&](World&, const Context& found) {
        if (id == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *id = found.id;
        return CUDA_SUCCESS;
    });
}
FABRICMEM_CUDA cuCtxGetApiVersion(CUcontext context, unsigned int* version) {
    return with_this_or_current(context, [&](World&, const Context&) {
        if (version == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *version = kApiVersion;
        return CUDA_SUCCESS;
    });
}
FABRICMEM_CUDA cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    return with_context([&](World&, const Context&) {
        if (least != nullptr) *least = 0;
        if (greatest != nullptr) *greatest = kGreatestPriority;
        return CUDA_SUCCESS;
    });
}
FABRICMEM_CUDA cuCtxGetLimit(std::size_t* value, CUlimit limit) {
    return with_context([&](World&, const Context& context) {
        const std::size_t* const fallback = default_limit(limit);
        if (value == nullptr || fallback == nullptr) return CUDA_ERROR_INVALID_VALUE;
        const std::lock_guard lock(told().mutex);
        const auto set = told().limits.find({&context, static_cast<int>(limit)});
        *value = set == told().limits.end() ? *fallback : set->second;
        return CUDA_SUCCESS;
    });
}
FABRICMEM_CUDA cuCtxSetLimit(CUlimit limit, std::size_t value) {
    return with_context([&](World&, const Context& context) {
        if (default_limit(limit) == nullptr) return CUDA_ERROR_INVALID_VALUE;
        const std::lock_guard lock(told().mutex);
        told().limits[{&context, static_cast<int>(limit)}] = value;
        return CUDA_SUCCESS;
    });
}

// invented: the codes. cuMemAlloc's memory is open to all devices without it.
FABRICMEM_CUDA cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags) {
    return with_context([&](World& world, const Context& context) {
        if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
        const Context* const found = world.find_context(peer);
        if (found == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
        if (found->device == context.device) return CUDA_ERROR_INVALID_DEVICE;
        const std::lock_guard lock(told().mutex);
        return told().peers.insert({&context, found}).second ? CUDA_SUCCESS : CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
    });
}
FABRICMEM_CUDA cuCtxDisablePeerAccess(CUcontext peer) {
    return with_context([&](World& world, const Context& context) {
        const Context* const found = world.find_context(peer);
        if (found == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
        const std::lock_guard lock(told().mutex);
        return told().peers.erase({&context, found}) != 0 ? CUDA_SUCCESS : CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
    });
}
