// SPDX-License-Identifier: Apache-2.0
// The Platform of the machine that this process runs on: reads /proc, /dev and /etc, and hands NVML's part to Nvml.
// Nothing that it reads is trusted: what is missing, cut short or nonsense is "not known". Knows no CUDA.
#include "platform/system_platform.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <limits>
#include <string_view>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <unistd.h>

#include "platform/fork_epoch.hpp"
#include "platform/nvml.hpp"
#include "platform/proc_text.hpp"

namespace fabricmem {
namespace {

class FileDescriptor {
public:
    explicit FileDescriptor(int fd) noexcept : fd_(fd) {}
    FileDescriptor(const FileDescriptor&) = delete;
    FileDescriptor& operator=(const FileDescriptor&) = delete;
    ~FileDescriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    [[nodiscard]] int get() const noexcept { return fd_; }

private:
    int fd_;
};

struct FileText {
    int error = 0;  // the errno of the failure
    std::string text{};
};

/// The file's first `limit` bytes. Does not wait, whatever the path turns out to be.
FileText read_file(const std::string& path, std::size_t limit) {
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (file.get() < 0) return {.error = errno};
    FileText result{.text = std::string(limit, '\0')};
    std::size_t have = 0;
    while (have < limit) {
        const ssize_t got = ::read(file.get(), result.text.data() + have, limit - have);
        if (got == 0) break;
        if (got > 0)
            have += static_cast<std::size_t>(got);
        else if (errno != EINTR)
            return {.error = errno};
    }
    result.text.resize(have);
    return result;
}

std::optional<Id128> read_id(const std::string& path) { return detail::parse_id(read_file(path, 64).text); }

ImexChannel look_at_channel(int directory, const char* name, int number, std::optional<unsigned int> major) {
    ImexChannel channel{.number = number};
    struct stat node {};
    // A node of another kind than a character device has no major number that could match.
    if (::fstatat(directory, name, &node, 0) == 0) {
        channel.major_matches = S_ISCHR(node.st_mode) && (!major || ::major(node.st_rdev) == *major);
        if (S_ISCHR(node.st_mode)) channel.device_minor = ::minor(node.st_rdev);
    }
    const FileDescriptor opened(::openat(directory, name, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (opened.get() < 0) channel.open_errno = errno;
    return channel;
}

constexpr std::size_t kProcLimit = 65536;  // of files that list devices or parameters

class SystemPlatform final : public Platform {
public:
    SystemPlatform(std::string root, std::string nvml_library)
        : root_(std::move(root)), nvml_(std::move(nvml_library)) {}

    [[nodiscard]] std::optional<Id128> host_id() const override { return host_id_; }
    [[nodiscard]] std::optional<Id128> boot_id() const override { return boot_id_; }
    [[nodiscard]] std::optional<std::uint32_t> process_id() const override {
        return static_cast<std::uint32_t>(::getpid());
    }
    [[nodiscard]] std::optional<std::uint64_t> pid_namespace() const override {
        return forked() ? read_pid_namespace() : pid_namespace_;
    }
    [[nodiscard]] std::optional<std::uint64_t> process_start() const override {
        return forked() ? read_process_start() : process_start_;
    }
    [[nodiscard]] ProcessState process_state(std::uint32_t process_id, std::uint64_t process_start) const override;
    [[nodiscard]] std::vector<ImexChannel> imex_channels() const override;
    [[nodiscard]] std::optional<FabricInfo> fabric_info(std::string_view pci_bus_id) const override {
        return nvml_.fabric_info(pci_bus_id);
    }
    [[nodiscard]] std::optional<KernelModule> kernel_module() const override;
    [[nodiscard]] std::optional<NvmlFacts> nvml() const override { return nvml_.facts(); }
    [[nodiscard]] int imex_channels_errno() const override;

private:
    struct CloseDirectory {
        void operator()(DIR* directory) const noexcept { ::closedir(directory); }
    };
    using Directory = std::unique_ptr<DIR, CloseDirectory>;

    [[nodiscard]] Directory open_channels() const;
    [[nodiscard]] std::optional<unsigned int> channel_major() const {
        return detail::parse_channel_major(read_file(root_ + "/proc/devices", kProcLimit).text);
    }
    [[nodiscard]] std::optional<Id128> read_host_id() const;
    [[nodiscard]] std::optional<std::uint64_t> read_pid_namespace() const;
    [[nodiscard]] std::optional<std::uint64_t> read_process_start() const;
    [[nodiscard]] FileText read_stat(const std::string& process) const;
    [[nodiscard]] bool forked() const noexcept { return detail::fork_epoch() != made_in_; }

    const std::string root_;
    const detail::Nvml nvml_;
    // Every blob asks for these. They are read once, here: a cache that is filled later would need a lock, which a
    // thread of the parent could hold for ever in a forked child.
    const std::uint64_t made_in_ = detail::fork_epoch();
    const std::optional<Id128> host_id_ = read_host_id();
    const std::optional<Id128> boot_id_ = read_id(root_ + "/proc/sys/kernel/random/boot_id");
    const std::optional<std::uint64_t> pid_namespace_ = read_pid_namespace();
    const std::optional<std::uint64_t> process_start_ = read_process_start();
};

std::optional<Id128> SystemPlatform::read_host_id() const {
    if (const auto id = read_id(root_ + "/etc/machine-id")) return id;
    return read_id(root_ + "/var/lib/dbus/machine-id");
}

std::optional<std::uint64_t> SystemPlatform::read_pid_namespace() const {
    struct stat node {};
    if (::stat((root_ + "/proc/self/ns/pid").c_str(), &node) != 0) return std::nullopt;
    return node.st_ino;
}

std::optional<std::uint64_t> SystemPlatform::read_process_start() const {
    const auto stat = detail::parse_stat(read_stat("self").text);
    if (!stat) return std::nullopt;
    return stat->start;
}

FileText SystemPlatform::read_stat(const std::string& process) const {
    constexpr std::size_t kLimit = 4096;  // 52 fields of at most 20 digits, and a name of at most 64 bytes
    return read_file(root_ + "/proc/" + process + "/stat", kLimit);
}

ProcessState SystemPlatform::process_state(std::uint32_t process_id, std::uint64_t process_start) const {
    // 0 is what a process of another pid namespace looks like from here.
    if (process_id == 0) return ProcessState::unknown;
    if (process_id > static_cast<std::uint32_t>(std::numeric_limits<pid_t>::max())) return ProcessState::gone;
    const FileText file = read_stat(std::to_string(process_id));
    if (file.error == ESRCH) return ProcessState::gone;  // it ended between open and read
    if (file.error == ENOENT) {
        // With hidepid=2 another user's process has no folder in /proc; kill(2) still sees it.
        const bool exists = ::kill(static_cast<pid_t>(process_id), 0) == 0 || errno != ESRCH;
        return exists ? ProcessState::unknown : ProcessState::gone;
    }
    const auto stat = detail::parse_stat(file.text);
    if (!stat) return ProcessState::unknown;
    if (stat->start != process_start) return ProcessState::gone;
    // A process whose first thread has ended shows Z while its other threads run on.
    const bool dead = (stat->state == 'Z' && stat->threads <= 1) || stat->state == 'X' || stat->state == 'x';
    return dead ? ProcessState::gone : ProcessState::alive;
}

SystemPlatform::Directory SystemPlatform::open_channels() const {
    return Directory(::opendir((root_ + "/dev/nvidia-caps-imex-channels").c_str()));
}

int SystemPlatform::imex_channels_errno() const { return open_channels() == nullptr ? errno : 0; }

std::vector<ImexChannel> SystemPlatform::imex_channels() const {
    std::vector<ImexChannel> channels;
    const Directory directory = open_channels();
    if (directory == nullptr) return channels;
    const auto major = channel_major();
    while (const dirent* const entry = ::readdir(directory.get())) {
        if (const auto number = detail::parse_channel_name(entry->d_name))
            channels.push_back(look_at_channel(::dirfd(directory.get()), entry->d_name, *number, major));
    }
    std::sort(channels.begin(), channels.end(),
              [](const ImexChannel& a, const ImexChannel& b) { return a.number < b.number; });
    return channels;
}

std::optional<KernelModule> SystemPlatform::kernel_module() const {
    const std::string folder = root_ + "/proc/driver/nvidia/";
    KernelModule module{.version = detail::parse_module_version(read_file(folder + "version", kProcLimit).text),
                        .imex_channel_count = detail::parse_module_parameter(
                            read_file(folder + "params", kProcLimit).text, "ImexChannelCount"),
                        .imex_channel_major = channel_major()};
    if (module.version.empty() && !module.imex_channel_count && !module.imex_channel_major) return std::nullopt;
    return module;
}

}  // namespace

std::unique_ptr<Platform> make_system_platform(std::string root) {
    return detail::make_system_platform_with(std::move(root), "libnvidia-ml.so.1");
}

std::unique_ptr<Platform> detail::make_system_platform_with(std::string root, std::string nvml_library) {
    return std::make_unique<SystemPlatform>(std::move(root), std::move(nvml_library));
}

}  // namespace fabricmem
