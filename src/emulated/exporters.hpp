// SPDX-License-Identifier: Apache-2.0
// Tells whether a process still is the one that a handle names, and remembers those that were. Knows no memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

#include "emulated/process.hpp"

namespace fabricmem::detail::emulated {

/// Thread-safe; no lock is held across a system call.
class Exporters {
public:
    struct Answer {
        bool lives = false;
        int error = 0;  ///< errno, where it could not be found out
    };
    /// Whether process `process_id`, which has open descriptors, was started at `start`. Reading a start time costs
    /// more than the rest of an import. A directory of /proc keeps its inode's number as long as its process, and the
    /// next process with the same id gets another one: so where the number is the one that was seen before, the start
    /// time is the same too.
    [[nodiscard]] Answer find(std::uint32_t process_id, std::uint64_t start);
    /// The same without what is remembered, of a process that may be a zombie: those have their directory still.
    [[nodiscard]] static Answer read(std::uint32_t process_id, std::uint64_t start) noexcept;

private:
    struct Known {
        std::uint64_t start = 0;
        std::uint64_t inode = 0;
    };
    static constexpr std::size_t kMost = 256;

    [[nodiscard]] bool is_known(std::uint32_t process_id, const Known& now);
    void remember(std::uint32_t process_id, const Known& now);

    std::mutex mutex_;
    std::map<std::uint32_t, Known> known_;
};

}  // namespace fabricmem::detail::emulated
