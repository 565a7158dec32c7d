// SPDX-License-Identifier: Apache-2.0
// Makes calls of any driver fail, late or never return, by rules: for tests of what a program does then.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <fabricmem/forwarding_driver.hpp>

namespace fabricmem {

/// A rule. Which calls: those of the name `call`, one of them or by chance.
struct Fault {
    enum class Effect : std::uint8_t {
        fail,   ///< returns `result`. A call that gives something back (release, unmap, free, destroy, pop) is made all
                ///< the same, so that whatever is leaked then was leaked by the caller; every other call is not made
        delay,  ///< is made `delay` later
        hang,   ///< does not return until end_hangs() or the rule is taken back; then it is made
    };

    Effect effect = Effect::fail;
    std::string call{};        ///< the seam's name ("mem_create") or CUDA's ("cuMemCreate"); empty: every call
    std::uint64_t number = 0;  ///< which one of these calls, counted from 1 since add(); 0: every one
    double probability = 1;    ///< of each call that the two above name, 0 to 1
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    std::chrono::microseconds delay{0};
};

/// Wraps a driver, the real one too, lists its calls and applies rules to them. Of the rules that meet a call all
/// delays are taken, then a hang, then the first failure in the order of add(). Thread-safe: the calls of all threads
/// are counted together, so one of them meets "the k-th call", and which thread's that is is up to the threads. A call
/// takes no memory. In a child of fork() calls go past the rules to the driver, and add() and what follows it here must
/// not be used.
class FABRICMEM_API FaultDriver : public ForwardingDriver {
public:
    /// How many calls calls() lists at most.
    static constexpr std::size_t kCallsKept = 4096;

    /// `seed` decides the calls that a probability meets: the same seed and the same calls, the same faults. Throws
    /// Error{bad_argument} where `inner` is null.
    explicit FaultDriver(std::shared_ptr<Driver> inner, std::uint64_t seed = 1);
    /// Ends hangs and delays and waits for the calls under way; no new one may be made any more.
    ~FaultDriver() override;

    /// Throws Error{bad_argument} for a call that the seam does not have, a probability that is none, a delay that is
    /// negative or longer than 24 hours, a failure with CUDA_SUCCESS.
    void add(Fault fault);
    /// Takes all rules back and ends hangs and delays, of calls too that have met their rule and do not hang yet.
    void clear();
    /// Lets the calls go that hang now, or are to once their delay is over; the rules stay.
    void end_hangs();

    /// The names of the last kCallsKept calls, in order, faulty ones too; forget() empties it.
    [[nodiscard]] std::vector<std::string> calls() const;
    void forget();
    /// How many calls a rule has met since the last clear().
    [[nodiscard]] std::uint64_t met() const;
    /// How many calls hang now.
    [[nodiscard]] std::size_t hanging() const;
    /// Waits until so many calls hang; false where the time is up before.
    [[nodiscard]] bool wait_until_hanging(std::size_t count, std::chrono::milliseconds timeout) const;

    /// Every function of the seam, by its name, in the order of driver.hpp.
    [[nodiscard]] static const std::vector<std::string>& call_names();

    CUresult init(unsigned int flags) noexcept override;
    CUresult driver_get_version(int* version) noexcept override;
    CUresult get_error_name(CUresult error, const char** name) noexcept override;
    CUresult get_error_string(CUresult error, const char** text) noexcept override;
    CUresult device_get_count(int* count) noexcept override;
    CUresult device_get(CUdevice* device, int ordinal) noexcept override;
    CUresult device_get_name(char* name, int name_bytes, CUdevice device) noexcept override;
    CUresult device_get_uuid(CUuuid* uuid, CUdevice device) noexcept override;
    CUresult device_get_pci_bus_id(char* pci_bus_id, int pci_bus_id_bytes, CUdevice device) noexcept override;
    CUresult device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) noexcept override;
    CUresult device_total_mem(std::size_t* bytes, CUdevice device) noexcept override;
    CUresult device_can_access_peer(int* can_access, CUdevice device, CUdevice peer) noexcept override;
    CUresult device_primary_ctx_retain(CUcontext* context, CUdevice device) noexcept override;
    CUresult device_primary_ctx_release(CUdevice device) noexcept override;
    CUresult device_primary_ctx_get_state(CUdevice device, unsigned int* flags, int* active) noexcept override;
    CUresult ctx_get_current(CUcontext* context) noexcept override;
    CUresult ctx_set_current(CUcontext context) noexcept override;
    CUresult ctx_push_current(CUcontext context) noexcept override;
    CUresult ctx_pop_current(CUcontext* context) noexcept override;
    CUresult ctx_get_device(CUdevice* device) noexcept override;
    CUresult ctx_synchronize() noexcept override;
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
    CUresult mem_alloc(CUdeviceptr* address, std::size_t bytes) noexcept override;
    CUresult mem_free(CUdeviceptr address) noexcept override;
    CUresult mem_alloc_host(void** address, std::size_t bytes) noexcept override;
    CUresult mem_free_host(void* address) noexcept override;
    CUresult ipc_get_mem_handle(CUipcMemHandle* handle, CUdeviceptr address) noexcept override;
    CUresult pointer_get_attribute(void* value, CUpointer_attribute attribute, CUdeviceptr address) noexcept override;
    CUresult pointer_get_attributes(unsigned int count, CUpointer_attribute* attributes, void** values,
                                    CUdeviceptr address) noexcept override;
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
    CUresult stream_begin_capture(CUstream stream, CUstreamCaptureMode mode) noexcept override;
    CUresult stream_end_capture(CUstream stream, CUgraph* graph) noexcept override;
    CUresult stream_is_capturing(CUstream stream, CUstreamCaptureStatus* status) noexcept override;
    CUresult thread_exchange_stream_capture_mode(CUstreamCaptureMode* mode) noexcept override;
    CUresult graph_destroy(CUgraph graph) noexcept override;

private:
    struct Rules;

    template <typename Call>
    CUresult ask(const char* name, Call&& call) noexcept;
    template <typename Call>
    CUresult give_back(const char* name, Call&& call) noexcept;

    std::unique_ptr<Rules> rules_;
};

/// `driver` wrapped by the rules in the environment variable FABRICMEM_FAULTS, or `driver` itself where it is not set:
///
///     FABRICMEM_FAULTS="cuMemCreate#3=fail:2; *%0.01=delay:5000; mem_import_from_shareable_handle=hang; seed=7"
///
/// Each rule is CALL[#NUMBER][%PROBABILITY]=fail[:CURESULT], =delay:MICROSECONDS or =hang; `*` is every call. Throws
/// Error{bad_argument} that names the rule that is wrong.
[[nodiscard]] FABRICMEM_API std::shared_ptr<Driver> with_faults_from_environment(std::shared_ptr<Driver> driver);

}  // namespace fabricmem
