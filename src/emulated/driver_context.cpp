// SPDX-License-Identifier: Apache-2.0
// The emulated driver's contexts: primary ones, others that are made, and each thread's stack.
#include "emulated/emulated_driver.hpp"

namespace fabricmem::detail::emulated {

Context* World::top() const {
    const ThreadState* const state = thread_state(life);
    return state == nullptr || state->contexts.empty() ? nullptr : state->contexts.back();
}

CUresult World::current(Context** context) const {
    Context* const found = top();
    if (found == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    if (!found->active()) return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    *context = found;
    return found->lost;
}

Context* World::find_context(CUcontext handle) const noexcept {
    for (const auto& context : contexts) {
        if (context->handle() == handle) return context->active() ? context.get() : nullptr;
    }
    const std::lock_guard lock(context_mutex);
    for (const auto& context : made_contexts) {
        if (context->handle() == handle) return context->active() ? context.get() : nullptr;
    }
    return nullptr;
}

Context& World::make_context(int device, unsigned int flags) {
    auto context = std::make_unique<Context>(device);
    context->flags = flags;
    context->retained = 1;
    streams.adopt(*context);
    const std::lock_guard lock(context_mutex);
    context->id = contexts.size() + made_contexts.size() + 1;
    return *made_contexts.emplace_back(std::move(context));
}

CUresult World::end_context(CUcontext handle) {
    const std::lock_guard lock(context_mutex);
    for (const auto& context : made_contexts) {
        if (context->handle() != handle || !context->active()) continue;
        context->retained = 0;
        empty_context(*context);
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_CONTEXT;
}

void World::empty_context(Context& context) {
    // invented: pending work is abandoned rather than waited for, stream handles are invalid from here on, and a lost
    // primary context is whole when it is retained again.
    streams.destroy_all_of(context);
    space.free_device_allocs_of(&context);
    context.lost = CUDA_SUCCESS;
}

std::shared_ptr<Stream> World::find_stream(CUstream handle, Context* context) {
    if (handle != kStreamPerThread) return streams.find(handle, context);
    ThreadState* const state = context == nullptr ? nullptr : thread_state(life);
    if (state == nullptr) return nullptr;
    std::shared_ptr<Stream>& stream = state->streams[context];
    if (!stream) stream = std::make_shared<Stream>(*context, Stream::Kind::blocking);
    return stream;
}

CUresult EmulatedDriver::device_primary_ctx_retain(CUcontext* context, CUdevice device) noexcept {
    return call([&](World& world) {
        if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
        if (!world.has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
        const std::lock_guard lock(world.context_mutex);
        Context& primary = *world.contexts[static_cast<std::size_t>(device)];
        primary.retained.fetch_add(1, std::memory_order_acq_rel);
        *context = primary.handle();
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::device_primary_ctx_release(CUdevice device) noexcept {
    return call([&](World& world) {
        if (!world.has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
        const std::lock_guard lock(world.context_mutex);
        Context& primary = *world.contexts[static_cast<std::size_t>(device)];
        if (!primary.active()) return CUDA_ERROR_INVALID_CONTEXT;
        if (primary.retained.fetch_sub(1, std::memory_order_acq_rel) != 1) return CUDA_SUCCESS;
        world.empty_context(primary);
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::device_primary_ctx_get_state(CUdevice device, unsigned int* flags, int* active) noexcept {
    return call([&](World& world) {
        if (flags == nullptr || active == nullptr) return CUDA_ERROR_INVALID_VALUE;
        if (!world.has_device(device)) return CUDA_ERROR_INVALID_DEVICE;
        *flags = world.contexts[static_cast<std::size_t>(device)]->flags;
        *active = world.contexts[static_cast<std::size_t>(device)]->active() ? 1 : 0;
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::ctx_get_current(CUcontext* context) noexcept {
    return call([&](World& world) {
        if (context == nullptr) return CUDA_ERROR_INVALID_VALUE;
        Context* const top = world.top();
        *context = top == nullptr ? nullptr : top->handle();
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::ctx_set_current(CUcontext context) noexcept {
    return call([&](World& world) {
        ThreadState* const state = thread_state(world.life);
        if (state == nullptr) return CUDA_ERROR_DEINITIALIZED;
        if (context == nullptr) {
            if (!state->contexts.empty()) state->contexts.pop_back();
            return CUDA_SUCCESS;
        }
        Context* const found = world.find_context(context);
        if (found == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
        if (state->contexts.empty()) {
            state->contexts.push_back(found);
        } else {
            state->contexts.back() = found;
        }
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::ctx_push_current(CUcontext context) noexcept {
    return call([&](World& world) {
        ThreadState* const state = thread_state(world.life);
        if (state == nullptr) return CUDA_ERROR_DEINITIALIZED;
        Context* const found = world.find_context(context);
        if (found == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
        state->contexts.push_back(found);
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::ctx_pop_current(CUcontext* context) noexcept {
    return call([&](World& world) {
        ThreadState* const state = thread_state(world.life);
        if (state == nullptr || state->contexts.empty()) return CUDA_ERROR_INVALID_CONTEXT;
        if (context != nullptr) *context = state->contexts.back()->handle();
        state->contexts.pop_back();
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::ctx_get_device(CUdevice* device) noexcept {
    return call([&](World& world) {
        if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
        const Context* const top = world.top();
        if (top == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
        *device = top->device;
        return CUDA_SUCCESS;
    });
}

CUresult EmulatedDriver::ctx_synchronize() noexcept {
    return call_with_context([](World& world, Context& context) { return world.streams.synchronize(context); });
}

}  // namespace fabricmem::detail::emulated
