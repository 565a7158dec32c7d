// SPDX-License-Identifier: Apache-2.0
// The Driver of an emulated node. Its calls are in driver_*.cpp; what they do is in this folder's other files.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include <fabricmem/driver.hpp>
#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/emulated_fabric.hpp>

#include "emulated/address_space.hpp"
#include "emulated/context.hpp"
#include "emulated/guarded.hpp"
#include "emulated/latency.hpp"
#include "emulated/ledger.hpp"
#include "emulated/membership.hpp"
#include "emulated/memory.hpp"
#include "emulated/node.hpp"
#include "emulated/numbers.hpp"
#include "emulated/sharing.hpp"
#include "emulated/stream_engine.hpp"
#include "log/log.hpp"
#include "platform/fork_epoch.hpp"

namespace fabricmem::detail::emulated {

using Contexts = std::vector<std::unique_ptr<Context>>;

/// All that a driver has, in the order of making: work ends before addresses, addresses before memory.
struct World {
    World(std::shared_ptr<EmulatedFabric> joined, const EmulatedProcess& process);

    [[nodiscard]] bool has_device(int ordinal) const noexcept {
        return ordinal >= 0 && ordinal < fabric.device_count();
    }
    [[nodiscard]] bool has_node(int number) const noexcept {
        return number >= 0 && static_cast<std::size_t>(number) < node_budgets.size();
    }
    /// Whether memory of a place can be had with a fabric handle; `location_id`: an ordinal.
    [[nodiscard]] bool has_fabric(int location_kind, int location_id) const noexcept;
    /// The ordinal of the device with this number. invented: what it is for another node's, and one that is not seen.
    [[nodiscard]] int ordinal_at(int number, bool remote) const noexcept {
        const int ordinal = remote ? -1 : fabric.ordinal_of(number);
        return ordinal < 0 ? kNoDevice : ordinal;
    }
    /// What memory of a place is taken from; `location_id`: an ordinal.
    [[nodiscard]] const std::shared_ptr<Budget>& budget(int location_kind, int location_id) const noexcept;

    /// The calling thread's context, able to work: INVALID_CONTEXT without one, and what it was lost with.
    CUresult current(Context** context) const;
    /// The top of the calling thread's stack, whatever its state; null without one.
    [[nodiscard]] Context* top() const;
    /// The context with this handle; null where there is none or it is not retained.
    [[nodiscard]] Context* find_context(CUcontext handle) const noexcept;

    /// The stream of a handle, which may mean `context`'s default one or the calling thread's; null where it is none.
    [[nodiscard]] std::shared_ptr<Stream> find_stream(CUstream handle, Context* context);
    /// A context besides the primary ones, in use until end_context().
    [[nodiscard]] Context& make_context(int device, unsigned int flags);
    /// INVALID_CONTEXT for one that make_context() has not made, or that has ended.
    CUresult end_context(CUcontext handle);
    /// What a context holds ends with it: streams, events, cuMemAlloc's memory.
    void empty_context(Context& context);

    Membership fabric;
    std::vector<Id128> uuids;  // by ordinal
    Exporter exporter;
    const std::shared_ptr<DriverLife> life = std::make_shared<DriverLife>();
    const std::shared_ptr<Ledger> ledger = std::make_shared<Ledger>();
    std::vector<std::shared_ptr<Budget>> device_budgets;
    std::vector<std::shared_ptr<Budget>> node_budgets;
    mutable std::mutex context_mutex;  // guards retaining and releasing, with what follows from it
    Contexts contexts;                 // the primary ones, by device
    Contexts made_contexts;            // the others, ended ones too; guarded by context_mutex
    MemoryTable memories;
    AddressSpace space;
    StreamEngine streams;
    World* next_abandoned = nullptr;
};

/// cuGetErrorName's and cuGetErrorString's words, which are had without a driver.
CUresult error_name(CUresult error, const char** name) noexcept;
CUresult error_text(CUresult error, const char** text) noexcept;

class EmulatedDriver final : public Driver {
public:
    EmulatedDriver(std::shared_ptr<EmulatedFabric> fabric, const EmulatedProcess& process);
    ~EmulatedDriver() override;

    [[nodiscard]] EmulatedCounts counts() const;
    [[nodiscard]] std::string place() const;

    [[nodiscard]] std::string_view name() const noexcept override;
    [[nodiscard]] const Platform& platform() const noexcept override;

    // Versions and words
    CUresult init(unsigned int flags) noexcept override;
    CUresult driver_get_version(int* version) noexcept override;
    CUresult get_error_name(CUresult error, const char** name) noexcept override;
    CUresult get_error_string(CUresult error, const char** text) noexcept override;

    // Devices
    CUresult device_get_count(int* count) noexcept override;
    CUresult device_get(CUdevice* device, int ordinal) noexcept override;
    CUresult device_get_name(char* name, int name_bytes, CUdevice device) noexcept override;
    CUresult device_get_uuid(CUuuid* uuid, CUdevice device) noexcept override;
    CUresult device_get_pci_bus_id(char* pci_bus_id, int pci_bus_id_bytes, CUdevice device) noexcept override;
    CUresult device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) noexcept override;
    CUresult device_total_mem(std::size_t* bytes, CUdevice device) noexcept override;
    CUresult device_can_access_peer(int* can_access, CUdevice device, CUdevice peer) noexcept override;

    // Contexts
    CUresult device_primary_ctx_retain(CUcontext* context, CUdevice device) noexcept override;
    CUresult device_primary_ctx_release(CUdevice device) noexcept override;
    CUresult device_primary_ctx_get_state(CUdevice device, unsigned int* flags, int* active) noexcept override;
    CUresult ctx_get_current(CUcontext* context) noexcept override;
    CUresult ctx_set_current(CUcontext context) noexcept override;
    CUresult ctx_push_current(CUcontext context) noexcept override;
    CUresult ctx_pop_current(CUcontext* context) noexcept override;
    CUresult ctx_get_device(CUdevice* device) noexcept override;
    CUresult ctx_synchronize() noexcept override;

    // Virtual memory management: the life of an allocation
    CUresult mem_get_allocation_granularity(std::size_t* bytes, const CUmemAllocationProp* properties,
                                            CUmemAllocationGranularity_flags option) noexcept override;
    CUresult mem_create(CUmemGenericAllocationHandle* handle, std::size_t bytes, const CUmemAllocationProp* properties,
                        unsigned long long flags) noexcept override;
    CUresult mem_release(CUmemGenericAllocationHandle handle) noexcept override;
    CUresult mem_retain_allocation_handle(CUmemGenericAllocationHandle* handle, void* address) noexcept override;
    CUresult mem_get_allocation_properties_from_handle(CUmemAllocationProp* properties,
                                                       CUmemGenericAllocationHandle handle) noexcept override;
    CUresult mem_export_to_shareable_handle(void* shareable, CUmemGenericAllocationHandle handle,
                                            CUmemAllocationHandleType type, unsigned long long flags) noexcept override;
    CUresult mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                              CUmemAllocationHandleType type) noexcept override;
    CUresult mem_address_reserve(CUdeviceptr* address, std::size_t bytes, std::size_t alignment, CUdeviceptr hint,
                                 unsigned long long flags) noexcept override;
    CUresult mem_address_free(CUdeviceptr address, std::size_t bytes) noexcept override;
    CUresult mem_map(CUdeviceptr address, std::size_t bytes, std::size_t offset, CUmemGenericAllocationHandle handle,
                     unsigned long long flags) noexcept override;
    CUresult mem_unmap(CUdeviceptr address, std::size_t bytes) noexcept override;
    CUresult mem_set_access(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                            std::size_t count) noexcept override;
    CUresult mem_get_access(unsigned long long* flags, const CUmemLocation* location,
                            CUdeviceptr address) noexcept override;
    CUresult mem_get_address_range(CUdeviceptr* base, std::size_t* bytes, CUdeviceptr address) noexcept override;
    CUresult mem_get_handle_for_address_range(void* handle, CUdeviceptr address, std::size_t bytes,
                                              CUmemRangeHandleType type, unsigned long long flags) noexcept override;

    // Other memory, and what a pointer is
    CUresult mem_alloc(CUdeviceptr* address, std::size_t bytes) noexcept override;
    CUresult mem_free(CUdeviceptr address) noexcept override;
    CUresult mem_alloc_host(void** address, std::size_t bytes) noexcept override;
    CUresult mem_free_host(void* address) noexcept override;
    CUresult ipc_get_mem_handle(CUipcMemHandle* handle, CUdeviceptr address) noexcept override;
    CUresult pointer_get_attribute(void* value, CUpointer_attribute attribute, CUdeviceptr address) noexcept override;
    CUresult pointer_get_attributes(unsigned int count, CUpointer_attribute* attributes, void** values,
                                    CUdeviceptr address) noexcept override;

    // Copy and set
    CUresult memcpy(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept override;
    CUresult memcpy_htod(CUdeviceptr destination, const void* source, std::size_t bytes) noexcept override;
    CUresult memcpy_dtoh(void* destination, CUdeviceptr source, std::size_t bytes) noexcept override;
    CUresult memcpy_dtod(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) noexcept override;
    CUresult memcpy_async(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes,
                          CUstream stream) noexcept override;
    CUresult memcpy_batch_async(CUdeviceptr* destinations, CUdeviceptr* sources, std::size_t* bytes, std::size_t count,
                                CUstream stream) noexcept override;
    CUresult memset_d8(CUdeviceptr destination, unsigned char value, std::size_t count) noexcept override;
    CUresult memset_d8_async(CUdeviceptr destination, unsigned char value, std::size_t count,
                             CUstream stream) noexcept override;

    // Streams
    CUresult stream_create(CUstream* stream, unsigned int flags) noexcept override;
    CUresult stream_destroy(CUstream stream) noexcept override;
    CUresult stream_query(CUstream stream) noexcept override;
    CUresult stream_synchronize(CUstream stream) noexcept override;
    CUresult stream_write_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                  unsigned int flags) noexcept override;
    CUresult stream_wait_value32(CUstream stream, CUdeviceptr address, cuuint32_t value,
                                 unsigned int flags) noexcept override;
    CUresult stream_write_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                  unsigned int flags) noexcept override;
    CUresult stream_wait_value64(CUstream stream, CUdeviceptr address, cuuint64_t value,
                                 unsigned int flags) noexcept override;

    // Capture
    CUresult stream_begin_capture(CUstream stream, CUstreamCaptureMode mode) noexcept override;
    CUresult stream_end_capture(CUstream stream, CUgraph* graph) noexcept override;
    CUresult stream_is_capturing(CUstream stream, CUstreamCaptureStatus* status) noexcept override;
    CUresult thread_exchange_stream_capture_mode(CUstreamCaptureMode* mode) noexcept override;
    CUresult graph_destroy(CUgraph graph) noexcept override;

    // Not of the seam. What the drop-in libcuda needs besides is written with these (src/libcuda).
    template <typename Function>
    CUresult call(Function&& function) const noexcept {
        if (forked()) return CUDA_ERROR_NOT_INITIALIZED;
        const DeferredLog later;  // the locks are let go before a sink is called
        if (const CUresult cut_off = world_->fabric.look(); cut_off != CUDA_SUCCESS) [[unlikely]]
            return cut_off;
        return guarded([&] { return function(*world_); });
    }
    template <typename Function>
    CUresult call_with_context(Function&& function) const noexcept {
        return call([&](World& world) {
            Context* context = nullptr;
            const CUresult result = world.current(&context);
            return result == CUDA_SUCCESS ? function(world, *context) : result;
        });
    }
    // invented: a stream's own handle is enough, the default streams need a current context.
    template <typename Function>
    CUresult with_stream(CUstream stream, Function&& function) const noexcept {
        return call([&](World& world) {
            Context* context = nullptr;
            const CUresult result = world.current(&context);
            const std::shared_ptr<Stream> found = world.find_stream(stream, context);
            if (found) return function(world, found);
            return context == nullptr && result != CUDA_SUCCESS ? result : CUDA_ERROR_INVALID_HANDLE;
        });
    }
    CUresult work(const Work& work, CUstream stream) const noexcept;
    /// In the default stream of the current context, and waited for.
    CUresult work_now(const Work& work) const noexcept;

private:
    /// In a forked child the driver is dead: locks may be held by threads that are not there.
    [[nodiscard]] bool forked() const noexcept { return fork_epoch() != born_in_; }

    CUresult word(Work::Kind kind, CUstream stream, CUdeviceptr address, std::size_t bytes, std::uint64_t value,
                  unsigned int flags) const noexcept;

    const std::uint64_t born_in_;
    std::unique_ptr<World> world_;
    const EmulatedPlatform platform_;
};

}  // namespace fabricmem::detail::emulated
