// SPDX-License-Identifier: Apache-2.0
// What the ping-pong needs of a GPU besides fabric memory: a context, streams, pinned and device memory, each with one
// cleanup. Calls go through the Driver, so all of it runs on the emulated one too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <fabricmem/driver.hpp>

#include "common/driver_choice.hpp"

namespace pingpong {

using namespace examples;  // what the programs share

/// The device's primary context, current on this thread while this object lives.
class CurrentContext {
public:
    CurrentContext(std::shared_ptr<fabricmem::Driver> driver, int ordinal);
    CurrentContext(const CurrentContext&) = delete;
    CurrentContext& operator=(const CurrentContext&) = delete;
    ~CurrentContext();

private:
    std::shared_ptr<fabricmem::Driver> driver_;
    CUdevice device_;
};

/// A stream that does not wait for the default stream. What is copied on it outlives it.
class Stream {
public:
    explicit Stream(std::shared_ptr<fabricmem::Driver> driver);
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    /// Waits until nothing is under way on it: memory has to be idle when it is freed or unmapped, or the whole context
    /// is lost. Where the GPU does not come to rest the process ends here, with one line on stderr.
    ~Stream();

    [[nodiscard]] CUstream get() const noexcept { return stream_; }
    /// Throws where the work on it failed.
    [[nodiscard]] bool is_idle() const;

    void copy(CUdeviceptr destination, CUdeviceptr source, std::size_t bytes) const;
    void write_value(CUdeviceptr address, std::uint32_t value) const;
    /// Bytes of the host, by as many write-values as they take; they are taken before this returns.
    void write_bytes(CUdeviceptr address, const std::byte* from, std::size_t bytes) const;
    /// Work that is put on the stream after this waits until the word there is `value` or beyond it.
    void wait_value(CUdeviceptr address, std::uint32_t value) const;

private:
    void drain() const noexcept;

    std::shared_ptr<fabricmem::Driver> driver_;
    CUstream stream_ = nullptr;
};

/// Host memory that the GPU reaches without a detour.
class PinnedMemory {
public:
    PinnedMemory(std::shared_ptr<fabricmem::Driver> driver, std::size_t bytes);
    PinnedMemory(const PinnedMemory&) = delete;
    PinnedMemory& operator=(const PinnedMemory&) = delete;
    ~PinnedMemory();

    [[nodiscard]] std::byte* get() const noexcept { return static_cast<std::byte*>(address_); }

private:
    std::shared_ptr<fabricmem::Driver> driver_;
    void* address_ = nullptr;
};

class DeviceMemory {
public:
    DeviceMemory(std::shared_ptr<fabricmem::Driver> driver, std::size_t bytes);
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;
    ~DeviceMemory();

    [[nodiscard]] CUdeviceptr get() const noexcept { return address_; }

private:
    std::shared_ptr<fabricmem::Driver> driver_;
    CUdeviceptr address_ = 0;
};

}  // namespace pingpong
