// SPDX-License-Identifier: Apache-2.0
// The Platform of the machine that this process runs on: reads /proc, /dev and /etc, and hands NVML's part to Nvml.
// Nothing that it reads is trusted: what is missing, cut short or nonsense is "not known". Knows no CUDA.
#include "platform/system_platform.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
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

/// A decimal number that is the whole of `text`.
template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
    Number number{};
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{} || stop != end) return std::nullopt;
    return number;
}

/// 32 hexadecimal digits, or a UUID of 8-4-4-4-12, and at most a line end after it. All zeros name nothing.
std::optional<Id128> parse_id(std::string_view text) {
    if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
    const bool dashes = text.size() == 36;
    if (!dashes && text.size() != 32) return std::nullopt;
    Id128 id;
    for (std::uint8_t& byte : id.bytes) {
        const auto index = static_cast<std::size_t>(&byte - id.bytes.data());
        if (dashes && (index == 4 || index == 6 || index == 8 || index == 10)) {
            if (text.front() != '-') return std::nullopt;
            text.remove_prefix(1);
        }
        const auto [stop, error] = std::from_chars(text.data(), text.data() + 2, byte, 16);
        if (error != std::errc{} || stop != text.data() + 2) return std::nullopt;
        text.remove_prefix(2);
    }
    if (id.is_zero()) return std::nullopt;
    return id;
}

std::optional<Id128> read_id(const std::string& path) { return parse_id(read_file(path, 64).text); }

/// What is read of /proc/PID/stat.
struct ProcessStat {
    char state = 0;
    std::uint64_t threads = 0;
    std::uint64_t start = 0;
};

std::optional<ProcessStat> parse_stat(std::string_view text) {
    // "PID (NAME) STATE ...": the name is the process's own choice and may hold spaces, parentheses and line ends.
    const std::size_t name_end = text.rfind(')');
    if (name_end == std::string_view::npos || text.substr(name_end).size() < 2) return std::nullopt;
    text.remove_prefix(name_end + 2);
    constexpr std::size_t kState = 3;  // fields are counted from 1, as proc(5) does
    constexpr std::size_t kThreads = 20;
    constexpr std::size_t kStart = 22;
    std::array<std::string_view, kStart + 1> fields{};
    for (std::size_t field = kState; field <= kStart; ++field) {
        const std::size_t end = text.find(' ');
        if (end == std::string_view::npos) return std::nullopt;  // more fields follow: the file is cut short
        fields[field] = text.substr(0, end);
        text.remove_prefix(end + 1);
    }
    const auto threads = parse_number<std::uint64_t>(fields[kThreads]);
    const auto start = parse_number<std::uint64_t>(fields[kStart]);
    if (fields[kState].size() != 1 || !threads || !start) return std::nullopt;
    return ProcessStat{.state = fields[kState].front(), .threads = *threads, .start = *start};
}

/// The number of the file "channelN"; nullopt for any other name.
std::optional<int> channel_number(std::string_view name) {
    constexpr std::string_view kPrefix = "channel";
    if (name.substr(0, kPrefix.size()) != kPrefix) return std::nullopt;
    name.remove_prefix(kPrefix.size());
    if (name.empty() || name.front() == '-' || (name.front() == '0' && name.size() > 1)) return std::nullopt;
    return parse_number<int>(name);
}

/// The major number in a line "NNN nvidia-caps-imex-channels" of /proc/devices.
std::optional<unsigned int> channel_major(std::string_view devices) {
    while (!devices.empty()) {
        std::string_view line = devices.substr(0, devices.find('\n'));
        devices.remove_prefix(std::min(line.size() + 1, devices.size()));
        line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
        const std::size_t space = line.find(' ');
        if (space == std::string_view::npos || line.substr(space + 1) != "nvidia-caps-imex-channels") continue;
        return parse_number<unsigned int>(line.substr(0, space));
    }
    return std::nullopt;
}

ImexChannel look_at_channel(int directory, const char* name, int number, std::optional<unsigned int> major) {
    ImexChannel channel{.number = number};
    struct stat node {};
    // A node of another kind than a character device has no major number that could match.
    if (::fstatat(directory, name, &node, 0) == 0)
        channel.major_matches = S_ISCHR(node.st_mode) && (!major || ::major(node.st_rdev) == *major);
    const FileDescriptor opened(::openat(directory, name, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (opened.get() < 0) channel.open_errno = errno;
    return channel;
}

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

private:
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
    const auto stat = parse_stat(read_stat("self").text);
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
    const auto stat = parse_stat(file.text);
    if (!stat) return ProcessState::unknown;
    if (stat->start != process_start) return ProcessState::gone;
    // A process whose first thread has ended shows Z while its other threads run on.
    const bool dead = (stat->state == 'Z' && stat->threads <= 1) || stat->state == 'X' || stat->state == 'x';
    return dead ? ProcessState::gone : ProcessState::alive;
}

std::vector<ImexChannel> SystemPlatform::imex_channels() const {
    struct CloseDirectory {
        void operator()(DIR* directory) const noexcept { ::closedir(directory); }
    };
    std::vector<ImexChannel> channels;
    const std::unique_ptr<DIR, CloseDirectory> directory(::opendir((root_ + "/dev/nvidia-caps-imex-channels").c_str()));
    if (directory == nullptr) return channels;
    constexpr std::size_t kLimit = 65536;
    const auto major = channel_major(read_file(root_ + "/proc/devices", kLimit).text);
    while (const dirent* const entry = ::readdir(directory.get())) {
        if (const auto number = channel_number(entry->d_name))
            channels.push_back(look_at_channel(::dirfd(directory.get()), entry->d_name, *number, major));
    }
    std::sort(channels.begin(), channels.end(),
              [](const ImexChannel& a, const ImexChannel& b) { return a.number < b.number; });
    return channels;
}

}  // namespace

std::unique_ptr<Platform> make_system_platform(std::string root) {
    return detail::make_system_platform_with(std::move(root), "libnvidia-ml.so.1");
}

std::unique_ptr<Platform> detail::make_system_platform_with(std::string root, std::string nvml_library) {
    return std::make_unique<SystemPlatform>(std::move(root), std::move(nvml_library));
}

}  // namespace fabricmem
