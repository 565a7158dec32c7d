// SPDX-License-Identifier: Apache-2.0
// A device's way to memory that the CPU can't touch: copies on a non-blocking stream of our own, from and to memory of
// the host that both reach. Never the null stream: a kernel that spins there would hold the copies up for ever.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#include "vmm/context.hpp"
#include "vmm/unique_handle.hpp"

namespace fabricmem::detail {

/// Retains the device's primary context for its life.
class PrimaryContext {
public:
    PrimaryContext(Driver& driver, int ordinal);
    PrimaryContext(const PrimaryContext&) = delete;
    PrimaryContext& operator=(const PrimaryContext&) = delete;
    ~PrimaryContext();

    [[nodiscard]] CUcontext get() const noexcept { return context_; }
    /// It stays retained until the process ends: there is work in it that nobody waits for.
    void abandon() noexcept { retained_ = false; }

private:
    Driver& driver_;
    CUdevice device_ = 0;
    CUcontext context_ = nullptr;
    bool retained_ = false;
};

/// Queues copies and asks whether they are done; waits only where told to. Throws Error.
///
/// Threads: calls need a lock of the caller's. In a forked child the destructor does nothing.
class CopyPort {
public:
    /// `bytes`: how much of the host's memory there is to copy from and to. It is no page-locked memory of
    /// cuMemAllocHost's, whose end waits for all of the GPU's work (docs/driver-notes.md), but an allocation of the
    /// host node nearest to the device.
    CopyPort(std::shared_ptr<Driver> driver, int ordinal, std::uint64_t bytes);
    CopyPort(const CopyPort&) = delete;
    CopyPort& operator=(const CopyPort&) = delete;
    /// Never waits: what a copy is still under way to is given up, with the context that it is in.
    ~CopyPort();

    [[nodiscard]] int ordinal() const noexcept { return ordinal_; }
    [[nodiscard]] Driver& driver() const noexcept { return *driver_; }
    [[nodiscard]] std::byte* bounce() const noexcept { return bounce_; }

    /// From bounce() + `offset`, which has to be left alone until the copy is done.
    void write(std::uint64_t destination, std::uint64_t offset, std::size_t bytes);
    /// To bounce() + `offset`.
    void read(std::uint64_t offset, std::uint64_t source, std::size_t bytes);
    /// Whether all that was queued is done.
    [[nodiscard]] bool is_idle();
    [[nodiscard]] Finished wait(std::chrono::steady_clock::time_point deadline);
    /// False only where a copy is still under way; true too where the context failed, and nothing is any more.
    [[nodiscard]] bool is_at_rest() noexcept;

private:
    void copy(std::uint64_t destination, std::uint64_t source, std::size_t bytes);

    std::shared_ptr<Driver> driver_;
    int ordinal_;
    std::uint64_t born_in_;
    PrimaryContext context_;
    AddressRange range_;
    Allocation allocation_;
    Mapping mapping_;
    Stream stream_;
    std::byte* bounce_ = nullptr;
    bool busy_ = false;  // something was queued since it was last seen idle
};

}  // namespace fabricmem::detail
