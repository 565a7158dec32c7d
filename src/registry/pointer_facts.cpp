// SPDX-License-Identifier: Apache-2.0
#include "registry/pointer_facts.hpp"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "text/text.hpp"

namespace fabricmem::detail {
namespace {

bool contains(const Range& range, std::uintptr_t address) noexcept {
    return range.address != 0 && address - static_cast<std::uintptr_t>(range.address) < range.bytes;
}

void* to_pointer(std::uintptr_t address) noexcept {
    return reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr)
}

[[noreturn]] void raise_errno(const char* call, int code) {
    throw Error({.kind = ErrorKind::system,
                 .call = call,
                 .subject = "finding out whether an address is readable",
                 .cause = std::strerror(code),  // NOLINT(concurrency-mt-unsafe): a constant text of glibc's
                 .cure = code == EMFILE ? "raise the limit of open files (ulimit -n)" : ""});
}

struct Pipe {
    Pipe() {
        if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) raise_errno("pipe2", errno);
    }
    Pipe(const Pipe&) = delete;
    Pipe& operator=(const Pipe&) = delete;
    ~Pipe() {
        for (const int end : ends) ::close(end);
    }
    std::array<int, 2> ends{};
};

}  // namespace

PointerFacts facts_of(Driver& driver, std::uintptr_t address) {
    PointerFacts facts;
    std::array<CUpointer_attribute, 12> attributes{
        CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR,
        CU_POINTER_ATTRIBUTE_MAPPING_SIZE,
        CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
        CU_POINTER_ATTRIBUTE_RANGE_SIZE,
        CU_POINTER_ATTRIBUTE_BUFFER_ID,
        CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES,
        CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE,
        CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
        CU_POINTER_ATTRIBUTE_IS_MANAGED,
        CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE,
        CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE,
        CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
    };
    std::array<void*, 12> values{&facts.mapping.address,
                                 &facts.mapping.bytes,
                                 &facts.reservation.address,
                                 &facts.reservation.bytes,
                                 &facts.buffer_id,
                                 &facts.handle_types,
                                 &facts.pool,
                                 &facts.memory_type,
                                 &facts.is_managed,
                                 &facts.is_rdma_capable,
                                 &facts.is_ipc_capable,
                                 &facts.device};
    static_assert(sizeof(std::size_t) == sizeof facts.mapping.bytes);
    check(driver.pointer_get_attributes(static_cast<unsigned int>(attributes.size()), attributes.data(), values.data(),
                                        static_cast<CUdeviceptr>(address)),
          driver, CallContext{.call = "cuPointerGetAttributes"});
    return facts;
}

Range mapping_around(const PointerFacts& facts, std::uintptr_t address) {
    if (contains(facts.mapping, address)) return facts.mapping;
    // Host memory's base is 0 by cuMemGetAddressRange; were it so here, a reservation of the same size is the mapping.
    const bool same_size = facts.mapping.bytes == 0 || facts.mapping.bytes == facts.reservation.bytes;
    if (same_size && contains(facts.reservation, address)) return facts.reservation;
    throw Error(
        {.kind = ErrorKind::unsupported,
         .subject = formatted("the driver does not say where the mapping around {} begins", to_pointer(address)),
         .cause =
             formatted("it names a mapping of {} bytes at {}, in a reservation of {} bytes at {}", facts.mapping.bytes,
                       facts.mapping.address, facts.reservation.bytes, facts.reservation.address),
         .cure = "map each allocation into a reservation of its own"});
}

bool is_mapped(Driver& driver, const MappingKey& key) {
    const PointerFacts now = facts_of(driver, key.base);
    return now.memory_type != 0 && now.buffer_id == key.buffer_id;
}

Allocation retain(Driver& driver, std::uintptr_t address, const PointerFacts& facts) {
    CUmemGenericAllocationHandle handle = 0;
    const CUresult result = driver.mem_retain_allocation_handle(&handle, to_pointer(address));
    if (result == CUDA_SUCCESS) return {driver, handle};
    // What can be shared by handles and comes from no pool was made by cuMemCreate, so this is no answer for it.
    const bool has_handle = facts.handle_types != 0 && facts.pool == 0;
    if (result != CUDA_ERROR_INVALID_VALUE || has_handle)
        raise(result, driver, {.call = "cuMemRetainAllocationHandle", .bytes = facts.mapping.bytes});
    return {};
}

bool is_readable(std::uintptr_t address) {
    const Pipe pipe;
    for (;;) {
        // The bare system call: sanitizers look into what write() is given, and freed memory is a fair question here.
        const long written = ::syscall(SYS_write, pipe.ends[1], to_pointer(address), std::size_t{1});
        if (written == 1) return true;
        if (errno == EFAULT) return false;
        if (errno != EINTR) raise_errno("write", errno);
    }
}

}  // namespace fabricmem::detail
