// SPDX-License-Identifier: Apache-2.0
// IMEX channel nodes of this process's own, in place of the machine's: in a private mount namespace, so that nothing of
// the machine is changed. Needs root. Call it before anything loads libcuda and before a second thread is made.
#pragma once

#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

namespace fabricmem::test {

inline constexpr const char* kChannelDirectory = "/dev/nvidia-caps-imex-channels";
inline constexpr unsigned int kNobody = 65534;

/// The major number of channel nodes, by /proc/devices.
[[nodiscard]] inline std::optional<unsigned int> channel_major() {
    std::ifstream devices("/proc/devices");
    unsigned int major = 0;
    for (std::string line; std::getline(devices, line);) {
        const std::size_t name = line.find("nvidia-caps-imex-channels");
        if (name == std::string::npos) continue;
        major = static_cast<unsigned int>(std::stoul(line));
        return major;
    }
    return std::nullopt;
}

/// A number of /proc/driver/nvidia/params, "ImexChannelCount" say.
[[nodiscard]] inline std::optional<int> nvidia_parameter(const std::string& name) {
    std::ifstream parameters("/proc/driver/nvidia/params");
    for (std::string line; std::getline(parameters, line);) {
        if (line.rfind(name + ": ", 0) == 0) return std::stoi(line.substr(name.size() + 2));
    }
    return std::nullopt;
}

/// From here on this process and its children find these channel nodes and no other, with this mode, owned by root.
/// Empty, or why that can't be.
[[nodiscard]] inline std::string replace_channel_nodes(const std::vector<int>& numbers, mode_t mode) {
    const auto failed = [](const char* call) { return std::string(call) + ": " + std::strerror(errno); };
    const std::optional<unsigned int> major = channel_major();
    if (!numbers.empty() && !major) return "the driver has no IMEX channels (/proc/devices)";
    if (::unshare(CLONE_NEWNS) != 0) return failed("unshare of the mounts (it needs root)");
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return failed("making the mounts private");
    if (::access(kChannelDirectory, F_OK) != 0) return numbers.empty() ? "" : failed(kChannelDirectory);
    if (::mount("tmpfs", kChannelDirectory, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755") != 0) {
        return failed("mounting a tmpfs over the channels");
    }
    for (const int number : numbers) {
        const std::string node = std::string(kChannelDirectory) + "/channel" + std::to_string(number);
        const dev_t device = ::makedev(*major, static_cast<unsigned int>(number));
        if (::mknod(node.c_str(), S_IFCHR | mode, device) != 0) return failed(("mknod of " + node).c_str());
        if (::chmod(node.c_str(), mode) != 0) return failed(("chmod of " + node).c_str());
    }
    return {};
}

/// Becomes a user who owns nothing, for good. Empty, or why that can't be.
[[nodiscard]] inline std::string become_nobody() {
    if (::setgroups(0, nullptr) != 0 || ::setgid(kNobody) != 0 || ::setuid(kNobody) != 0) {
        return std::string("becoming another user: ") + std::strerror(errno);
    }
    ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);  // else /proc/self is root's from here on, and libcuda reads there
    return {};
}

}  // namespace fabricmem::test
