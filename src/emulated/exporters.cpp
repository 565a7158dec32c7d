// SPDX-License-Identifier: Apache-2.0
// Looks at /proc/PID.
#include "emulated/exporters.hpp"

#include <sys/stat.h>

#include <cstdio>

namespace fabricmem::detail::emulated {

namespace {

// 0 where there is none.
std::uint64_t inode_of(std::uint32_t process_id) noexcept {
    char path[32];
    std::snprintf(path, sizeof path, "/proc/%u", process_id);
    struct stat status {};
    return ::stat(path, &status) == 0 ? status.st_ino : 0;
}

}  // namespace

bool Exporters::is_known(std::uint32_t process_id, const Known& now) {
    const std::lock_guard lock(mutex_);
    const auto found = known_.find(process_id);
    return found != known_.end() && found->second.start == now.start && found->second.inode == now.inode;
}

void Exporters::remember(std::uint32_t process_id, const Known& now) {
    const std::lock_guard lock(mutex_);
    if (known_.size() >= kMost) known_.clear();
    known_[process_id] = now;
}

Exporters::Answer Exporters::read(std::uint32_t process_id, std::uint64_t start) noexcept {
    const ProcessStat stat = read_process_stat(process_id);
    return {stat.found == ProcessStat::Found::yes && !stat.ended && stat.start == start, stat.error};
}

Exporters::Answer Exporters::find(std::uint32_t process_id, std::uint64_t start) {
    const Known now{start, inode_of(process_id)};
    if (now.inode != 0 && is_known(process_id, now)) return {true, 0};
    const Answer answer = read(process_id, start);
    // The same directory before and after: the start time that was read is its process's.
    if (answer.lives && now.inode != 0 && inode_of(process_id) == now.inode) remember(process_id, now);
    return answer;
}

}  // namespace fabricmem::detail::emulated
