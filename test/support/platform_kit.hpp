// SPDX-License-Identifier: Apache-2.0
// What tests of the system's Platform say often: a tree of files that looks like another machine, a fake NVML, a forked
// child. Knows no CUDA.
#pragma once

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>

#include "platform/system_platform.hpp"
#include "support/test.hpp"

namespace fabricmem::test {

inline constexpr const char* kNoNvml = "libno-such-nvml.so.1";

/// A folder that is gone at the end.
class Tree {
public:
    Tree() {
        std::string name = (std::filesystem::temp_directory_path() / "fabricmem-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        root_ = name;
    }
    Tree(const Tree&) = delete;
    Tree& operator=(const Tree&) = delete;
    ~Tree() {
        std::error_code ignored;
        std::filesystem::remove_all(root_, ignored);
    }
    [[nodiscard]] std::string path(const std::string& name) const { return root_ + name; }
    void write(const std::string& name, std::string_view text) const {
        folder(std::filesystem::path(name).parent_path().string());
        std::ofstream(path(name), std::ios::binary) << text;
    }
    void folder(const std::string& name) const { std::filesystem::create_directories(path(name)); }
    [[nodiscard]] std::unique_ptr<Platform> platform(const char* nvml = kNoNvml) const {
        return detail::make_system_platform_with(root_, nvml);
    }

private:
    std::string root_;
};

/// Runs `body` in a forked child and returns its answer, -1 where it died.
template <typename Body>
int in_child(Body body) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(body());
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace fabricmem::test
