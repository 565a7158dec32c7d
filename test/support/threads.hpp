// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace fabricmem::test {

/// Threads of this process with that name, which are the library's: a sanitizer has some of its own.
inline std::size_t threads_called(std::string_view name) {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
        std::ifstream file(entry.path() / "comm");
        std::string called;
        if (std::getline(file, called) && called == name) ++count;
    }
    return count;
}

}  // namespace fabricmem::test
