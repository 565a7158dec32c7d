// SPDX-License-Identifier: Apache-2.0
// Reads /proc/PID/task/PID/stat and counts forks.
#include "emulated/process.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace fabricmem::detail::emulated {

namespace {

ProcessStat failed(int error) noexcept {
    ProcessStat stat;
    stat.found = error == ENOENT || error == ESRCH ? ProcessStat::Found::no : ProcessStat::Found::unknown;
    stat.error = error;
    return stat;
}

}  // namespace

FileDescriptor::~FileDescriptor() {
    // Not again on EINTR: Linux has closed it by then, and the number may be another thread's.
    if (number_ >= 0) ::close(number_);
}

ProcessStat read_process_stat(std::uint32_t process_id) noexcept {
    // The main thread's file has the same start time as the process's, is cheaper to make, and user-mode emulators,
    // which invent /proc/self/stat, pass it through.
    char path[64];
    std::snprintf(path, sizeof path, "/proc/%u/task/%u/stat", process_id, process_id);
    const FileDescriptor file(::open(path, O_RDONLY | O_CLOEXEC));
    if (!file.valid()) return failed(errno);
    char text[1024];
    const ssize_t length = ::read(file.get(), text, sizeof text - 1);
    if (length < 0) return failed(errno);
    text[length] = '\0';
    const char* field = std::strrchr(text, ')');  // the name before it may hold blanks and brackets
    if (field == nullptr || field[1] != ' ') return {};
    field += 2;
    ProcessStat stat{.found = ProcessStat::Found::yes, .ended = *field == 'Z' || *field == 'X'};
    constexpr int kStateField = 3;
    constexpr int kStartField = 22;
    for (int number = kStateField; number < kStartField; ++number) {
        field = std::strchr(field, ' ');
        if (field == nullptr) return {};
        ++field;
    }
    char* next = nullptr;
    stat.start = std::strtoull(field, &next, 10);
    // The next field is the size of its address space. A process that is being killed loses that first, and with it
    // its owner, before it is a zombie.
    if (std::strtoull(next, nullptr, 10) == 0) stat.ended = true;
    return stat;
}

}  // namespace fabricmem::detail::emulated
