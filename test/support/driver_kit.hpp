// SPDX-License-Identifier: Apache-2.0
// What tests at the seam say often: properties, access, a mapped allocation, a current context.
#pragma once

#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <fabricmem/driver.hpp>

namespace fabricmem::test {

inline constexpr std::size_t kTwoMiB = std::size_t{2} << 20;
inline constexpr unsigned int kNoHandle = 0;
inline constexpr unsigned int kPosixFd = 1;
inline constexpr unsigned int kFabric = 8;
inline constexpr int kDevice = 1;
inline constexpr int kHost = 2;
inline constexpr int kHostNuma = 3;
inline constexpr int kHostNumaCurrent = 4;

using FabricBytes = std::array<unsigned char, 64>;

[[nodiscard]] inline CUmemAllocationProp memory_at(int kind, int id, unsigned int handle_types, bool rdma = false) {
    CUmemAllocationProp properties{};
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = static_cast<CUmemLocationType>(kind);
    properties.location.id = id;
    properties.requestedHandleTypes = static_cast<CUmemAllocationHandleType>(handle_types);
    properties.allocFlags.gpuDirectRDMACapable = rdma ? 1 : 0;
    return properties;
}
[[nodiscard]] inline CUmemAllocationProp device_memory(unsigned int handle_types) {
    return memory_at(kDevice, 0, handle_types);
}
[[nodiscard]] inline CUmemAllocationProp host_memory(unsigned int handle_types) {
    return memory_at(kHostNuma, 0, handle_types);
}

[[nodiscard]] inline CUmemAccessDesc access_for(int kind, unsigned int flags = 3, int id = 0) {
    CUmemAccessDesc access{};
    access.location.type = static_cast<CUmemLocationType>(kind);
    access.location.id = id;
    access.flags = static_cast<CUmemAccess_flags>(flags);
    return access;
}

[[nodiscard]] inline CUresult export_fabric(Driver& driver, CUmemGenericAllocationHandle handle, FabricBytes* bytes) {
    return driver.mem_export_to_shareable_handle(bytes->data(), handle, static_cast<CUmemAllocationHandleType>(kFabric),
                                                 0);
}
[[nodiscard]] inline CUresult import_fabric(Driver& driver, FabricBytes bytes, CUmemGenericAllocationHandle* handle) {
    return driver.mem_import_from_shareable_handle(handle, bytes.data(),
                                                   static_cast<CUmemAllocationHandleType>(kFabric));
}

[[nodiscard]] inline std::string to_hex(const FabricBytes& bytes) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    for (const unsigned char byte : bytes) text.append({kDigits[byte >> 4], kDigits[byte & 15]});
    return text;
}
[[nodiscard]] inline FabricBytes from_hex(const std::string& text) {
    FabricBytes bytes{};
    for (std::size_t i = 0; i < bytes.size() && 2 * i + 1 < text.size(); ++i) {
        bytes[i] = static_cast<unsigned char>(std::stoi(text.substr(2 * i, 2), nullptr, 16));
    }
    return bytes;
}

inline void close_descriptor(int descriptor) {
    if (descriptor >= 0) ::close(descriptor);
}

/// Makes device 0's primary context current for the time of its life.
class CurrentContext {
public:
    explicit CurrentContext(Driver& driver) : driver_(driver) {
        CUcontext context = nullptr;
        if (driver_.device_primary_ctx_retain(&context, 0) == CUDA_SUCCESS) driver_.ctx_push_current(context);
    }
    CurrentContext(const CurrentContext&) = delete;
    CurrentContext& operator=(const CurrentContext&) = delete;
    ~CurrentContext() {
        driver_.ctx_pop_current(nullptr_context());
        driver_.device_primary_ctx_release(0);
    }

private:
    CUcontext* nullptr_context() { return &popped_; }
    Driver& driver_;
    CUcontext popped_ = nullptr;
};

/// Memory at an address of its own, with one mapping. Every step is kept in `result`; the first failure ends it.
class Mapped {
public:
    Mapped(Driver& driver, const CUmemAllocationProp& properties, const std::vector<CUmemAccessDesc>& access,
           std::size_t bytes = kTwoMiB)
        : driver_(driver), bytes_(bytes) {
        result_ = driver_.mem_create(&handle_, bytes, &properties, 0);
        if (result_ == CUDA_SUCCESS) owned_ = true;
        map(access);
    }
    /// Of an imported handle, which it takes over.
    Mapped(Driver& driver, CUmemGenericAllocationHandle handle, const std::vector<CUmemAccessDesc>& access,
           std::size_t bytes = kTwoMiB)
        : driver_(driver), bytes_(bytes), handle_(handle), owned_(true) {
        map(access);
    }
    Mapped(const Mapped&) = delete;
    Mapped& operator=(const Mapped&) = delete;
    ~Mapped() { destroy(); }

    [[nodiscard]] CUresult result() const { return result_; }
    [[nodiscard]] CUdeviceptr address() const { return address_; }
    [[nodiscard]] std::size_t bytes() const { return bytes_; }
    [[nodiscard]] CUmemGenericAllocationHandle handle() const { return handle_; }

    CUresult unmap() {
        if (!mapped_) return CUDA_SUCCESS;
        mapped_ = false;
        return driver_.mem_unmap(address_, bytes_);
    }
    CUresult release() {
        if (!owned_) return CUDA_SUCCESS;
        owned_ = false;
        return driver_.mem_release(handle_);
    }

    /// Forgets all of it: the driver takes it along when it ends.
    void abandon() {
        mapped_ = false;
        owned_ = false;
        address_ = 0;
    }
    /// All of it; the first failure's code.
    CUresult destroy() {
        CUresult result = unmap();
        if (const CUresult released = release(); result == CUDA_SUCCESS) result = released;
        if (address_ == 0) return result;
        const CUresult freed = driver_.mem_address_free(address_, bytes_);
        address_ = 0;
        return result == CUDA_SUCCESS ? freed : result;
    }

private:
    void map(const std::vector<CUmemAccessDesc>& access) {
        if (result_ == CUDA_SUCCESS) result_ = driver_.mem_address_reserve(&address_, bytes_, 0, 0, 0);
        if (result_ != CUDA_SUCCESS) return;
        result_ = driver_.mem_map(address_, bytes_, 0, handle_, 0);
        mapped_ = result_ == CUDA_SUCCESS;
        if (mapped_ && !access.empty()) {
            result_ = driver_.mem_set_access(address_, bytes_, access.data(), access.size());
        }
    }

    Driver& driver_;
    std::size_t bytes_;
    CUmemGenericAllocationHandle handle_ = 0;
    CUdeviceptr address_ = 0;
    bool owned_ = false;
    bool mapped_ = false;
    CUresult result_ = CUDA_SUCCESS;
};

}  // namespace fabricmem::test
