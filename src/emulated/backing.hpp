// SPDX-License-Identifier: Apache-2.0
// The file behind an allocation, which the drivers of a process share: one descriptor and at most one alias for each
// allocation, however many of them hold it. Knows no driver and no handle.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include <sys/stat.h>

#include <cuda.h>

#include "emulated/exporters.hpp"
#include "emulated/process.hpp"

namespace fabricmem::detail::emulated {

class Backing {
public:
    using Key = std::pair<std::uint32_t, std::uint64_t>;  // as much of st_dev as a fabric handle tells, and st_ino
    [[nodiscard]] static Key key_of(const struct stat& status) noexcept {
        return {static_cast<std::uint32_t>(status.st_dev), status.st_ino};
    }

    Backing(FileDescriptor file, const Key& key, std::size_t bytes) noexcept
        : file_(std::move(file)), key_(key), bytes_(bytes) {}
    Backing(const Backing&) = delete;
    Backing& operator=(const Backing&) = delete;
    ~Backing();

    [[nodiscard]] int descriptor() const noexcept { return file_.get(); }
    [[nodiscard]] const Key& key() const noexcept { return key_; }
    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

    /// The whole memory where this process's emulator can load and store it, made at the first call; null where the
    /// system refuses (logged). The user never sees this address.
    [[nodiscard]] std::byte* alias() noexcept;
    [[nodiscard]] std::byte* alias_if_made() const noexcept { return alias_.load(std::memory_order_acquire); }

    /// From here on a fabric handle of it can't be imported, although imports keep the memory. Kept as a seal of the
    /// file's, so that it is seen by every process that has it.
    void end_export() const noexcept;
    [[nodiscard]] bool export_ended() const noexcept { return export_ended(descriptor()); }
    [[nodiscard]] static bool export_ended(int descriptor) noexcept;

private:
    FileDescriptor file_;
    Key key_;
    std::size_t bytes_;
    std::mutex alias_mutex_;
    std::atomic<std::byte*> alias_{nullptr};
};

/// All backings of this process. Process-wide, since the limits that it keeps to are the process's: of descriptors and
/// of mappings. Thread-safe; no lock is held across a system call. Never destroyed, so that drivers in statics may end
/// when they like; a forked child has its own, empty one, since a thread of the parent may have held the lock.
class Backings {
public:
    [[nodiscard]] static Backings& of_this_process();
    Backings(const Backings&) = delete;
    Backings& operator=(const Backings&) = delete;

    /// A new file of zeros. OUT_OF_MEMORY where the system has no more.
    CUresult create(const char* name, std::size_t bytes, std::shared_ptr<Backing>* backing);
    /// The backing of a file that this process was given; `file` is closed where it is known already.
    std::shared_ptr<Backing> adopt(FileDescriptor file, const Backing::Key& key, std::size_t bytes);
    /// Null where this process has none with this key.
    [[nodiscard]] std::shared_ptr<Backing> find(const Backing::Key& key);

    [[nodiscard]] Exporters& exporters() noexcept { return exporters_; }
    [[nodiscard]] std::uint32_t process_id() const noexcept { return process_id_; }
    [[nodiscard]] std::uint64_t process_start() const noexcept { return process_start_; }

private:
    Backings(std::uint64_t epoch, Backings* parents) noexcept;
    // With mutex_ held.
    std::shared_ptr<Backing> insert(FileDescriptor file, const Backing::Key& key, std::size_t bytes);

    const std::uint64_t epoch_;
    [[maybe_unused]] Backings* const
        parents_;  // kept reachable, so that a leak checker in a child knows that it is meant
    const std::uint32_t process_id_;
    const std::uint64_t process_start_;
    Exporters exporters_;
    std::mutex mutex_;
    // Entries of dead backings are swept when the table has doubled, which bounds a lookup's cost and its size.
    std::map<Backing::Key, std::weak_ptr<Backing>> backings_;
    std::size_t sweep_at_ = 64;
};

}  // namespace fabricmem::detail::emulated
