// SPDX-License-Identifier: Apache-2.0
// Reads rlimits and /proc; slow, and only on the way to OUT_OF_MEMORY.
#include "emulated/limits.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "emulated/process.hpp"
#include "log/log.hpp"

namespace fabricmem::detail::emulated {

namespace {

using Resource = decltype(RLIMIT_AS);

struct Limit {
    const char* name;
    long long value = -1;  // -1: not known, or no number
    const char* unit = "";
};

// -1 where there is none.
long long soft_limit(Resource resource) noexcept {
    rlimit limit{};
    if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return -1;
    return static_cast<long long>(limit.rlim_cur);
}

// -1 where it can't be read.
long long number_in(const char* path) noexcept {
    const FileDescriptor file(::open(path, O_RDONLY | O_CLOEXEC));
    char text[32];
    const ssize_t length = file.valid() ? ::read(file.get(), text, sizeof text - 1) : -1;
    if (length <= 0) return -1;
    text[length] = '\0';
    return std::atoll(text);
}

// 0 where they can't be read.
long long kernel_mappings() noexcept {
    const FileDescriptor file(::open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
    if (!file.valid()) return 0;
    char text[4096];
    long long lines = 0;
    for (ssize_t length = 0; (length = ::read(file.get(), text, sizeof text)) > 0;) {
        lines += std::count(text, text + length, '\n');
    }
    return lines;
}

// The kernel has one number for three limits.
Limit behind_no_memory() noexcept {
    // A call may need two mappings more than it leaves: some slack.
    constexpr long long kSlack = 8;
    const long long most = number_in("/proc/sys/vm/max_map_count");
    if (most > 0 && kernel_mappings() + kSlack >= most) {
        return {"the limit of a process's mappings (vm.max_map_count)", most};
    }
    if (const long long bytes = soft_limit(RLIMIT_AS); bytes >= 0) {
        return {"this process's limit of address space (ulimit -v)", bytes / 1024, " KiB"};
    }
    return {"the machine's memory"};
}

Limit limit_behind(int error) noexcept {
    switch (error) {
        case EMFILE: return {"this process's limit of open descriptors (ulimit -n)", soft_limit(RLIMIT_NOFILE)};
        case ENFILE: return {"the system's limit of open files (fs.file-max)", number_in("/proc/sys/fs/file-max")};
        case ENOMEM: return behind_no_memory();
        case ENOSPC: return {"the limit of the machine's shared memory"};
        case EFBIG:
            return {"this process's limit of a file's size (ulimit -f)", soft_limit(RLIMIT_FSIZE) / 1024, " KiB"};
        default: return {"a limit of the system's"};
    }
}

}  // namespace

CUresult out_of_memory(const char* call, int error) noexcept {
    if (!log_enabled(LogLevel::warning)) return CUDA_ERROR_OUT_OF_MEMORY;
    const Limit limit = limit_behind(error);
    const char* const why = std::strerror(error);
    if (limit.value < 0) {
        log(LogLevel::warning, "The emulated driver met {}: {} failed with {}.", limit.name, call, why);
    } else {
        log(LogLevel::warning, "The emulated driver met {}, which is {}{}: {} failed with {}.", limit.name, limit.value,
            limit.unit, call, why);
    }
    return CUDA_ERROR_OUT_OF_MEMORY;
}

}  // namespace fabricmem::detail::emulated
