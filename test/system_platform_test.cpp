// SPDX-License-Identifier: Apache-2.0
// SystemPlatform on this machine and on trees of files that look like other machines; over a fake NVML it is in
// nvml_test.cpp. Knows no CUDA.
#include <fabricmem/platform.hpp>

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/platform_kit.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr std::uint32_t kNoProcess = 4194304;  // PID_MAX_LIMIT: one more than any process id of Linux
constexpr std::string_view kStatTail =
    " 1 2 3 0 -1 4194560 10 0 0 0 1 2 0 0 20 0 1 0 987654321 1000 10 18446744073709551615 1 1 0\n";

std::string stat_line(std::string_view name, char state = 'S') {
    return "4194304 (" + std::string(name) + ") " + state + std::string(kStatTail);
}

}  // namespace

TEST_CASE("This machine's platform knows the process that asks", "[platform]") {
    const auto platform = make_system_platform();
    CHECK(platform->process_id() == static_cast<std::uint32_t>(::getpid()));
    REQUIRE(platform->boot_id());
    REQUIRE(platform->pid_namespace());
    REQUIRE(platform->process_start());
    CHECK(*platform->pid_namespace() > 0);
    CHECK(platform->process_state(static_cast<std::uint32_t>(::getpid()), *platform->process_start()) ==
          ProcessState::alive);
    CHECK(platform->process_state(static_cast<std::uint32_t>(::getpid()), *platform->process_start() + 1) ==
          ProcessState::gone);
    CHECK(platform->boot_id() == make_system_platform()->boot_id());
    for (const ImexChannel& channel : platform->imex_channels()) CHECK(channel.number >= 0);
    (void)platform->host_id();
    CHECK(!platform->fabric_info("ffff:ff:1f.7"));
}

TEST_CASE("Ids are read as they are written", "[platform]") {
    const Tree tree;
    tree.write("/etc/machine-id", "0123456789abcdef0011223344556677\n");
    tree.write("/var/lib/dbus/machine-id", "ffffffffffffffffffffffffffffffff\n");
    tree.write("/proc/sys/kernel/random/boot_id", "72801860-6870-4a1a-9b7b-406b4ef3acff\n");
    tree.write("/proc/self/ns/pid", "");
    tree.write("/proc/self/stat", stat_line("cat"));
    const auto platform = tree.platform();
    CHECK(to_string(platform->host_id().value()) == "0123456789abcdef0011223344556677");
    CHECK(to_string(platform->boot_id().value()) == "7280186068704a1a9b7b406b4ef3acff");
    struct stat node {};
    REQUIRE(::stat(tree.path("/proc/self/ns/pid").c_str(), &node) == 0);
    CHECK(platform->pid_namespace() == static_cast<std::uint64_t>(node.st_ino));
    CHECK(platform->process_start() == 987654321U);
}

TEST_CASE("The machine id of D-Bus stands in for a missing or unusable one", "[platform]") {
    const Tree tree;
    tree.write("/var/lib/dbus/machine-id", "0123456789abcdef0011223344556677");
    CHECK(tree.platform()->host_id());
    tree.write("/etc/machine-id", "uninitialized\n");
    CHECK(to_string(tree.platform()->host_id().value()) == "0123456789abcdef0011223344556677");
}

TEST_CASE("An id that is missing, cut short or nonsense is not known", "[platform]") {
    const Tree tree;
    CHECK(!tree.platform()->host_id());
    CHECK(!tree.platform()->boot_id());
    for (const std::string& text :
         {std::string(), std::string("\n"), std::string("0123456789abcdef001122334455667"),
          std::string("0123456789abcdef00112233445566778"), std::string("0123456789abcdef001122334455667g"),
          std::string("00000000000000000000000000000000\n"), std::string("+123456789abcdef0011223344556677"),
          std::string("0x23456789abcdef0011223344556677"), std::string("0123456789abcdef0011223344556677\n\n"),
          std::string("72801860-6870-4a1a-9b7b406b-4ef3acff"), std::string("728018606-870-4a1a-9b7b-406b4ef3acff"),
          std::string("72801860x6870x4a1ax9b7bx406b4ef3acff"), std::string(32, '\0'), std::string(1 << 20, 'a')}) {
        CAPTURE(text.substr(0, 40));
        tree.write("/etc/machine-id", text);
        tree.write("/proc/sys/kernel/random/boot_id", text);
        CHECK(!tree.platform()->host_id());
        CHECK(!tree.platform()->boot_id());
    }
    std::filesystem::remove(tree.path("/etc/machine-id"));
    tree.folder("/etc/machine-id");
    CHECK(!tree.platform()->host_id());
    std::filesystem::remove(tree.path("/etc/machine-id"));
    REQUIRE(::mkfifo(tree.path("/etc/machine-id").c_str(), 0600) == 0);
    CHECK(!tree.platform()->host_id());  // and does not wait for a writer
}

TEST_CASE("A process's start is found whatever the process calls itself", "[platform]") {
    const Tree tree;
    for (const std::string_view name : {"cat", "a b c", ")", "x) R 1 2 3", "((", ") S 1 (", "line\nend", ""}) {
        CAPTURE(name);
        tree.write("/proc/self/stat", stat_line(name));
        CHECK(tree.platform()->process_start() == 987654321U);
    }
}

TEST_CASE("A stat file that is missing, cut short or nonsense tells nothing", "[platform]") {
    const Tree tree;
    CHECK(!tree.platform()->process_start());
    const std::string good = stat_line("cat");
    const std::size_t start = good.find("987654321");
    for (std::size_t bytes = 0; bytes <= start + 9; ++bytes) {
        CAPTURE(bytes);
        tree.write("/proc/self/stat", good.substr(0, bytes));
        tree.write("/proc/4194304/stat", good.substr(0, bytes));
        CHECK(!tree.platform()->process_start());
        CHECK(tree.platform()->process_state(kNoProcess, 987654321) == ProcessState::unknown);
    }
    for (const std::string start_text : {"-987654321", "98765432x", "0x10", "99999999999999999999999", "+1", ""}) {
        CAPTURE(start_text);
        tree.write("/proc/self/stat", std::string(good).replace(start, 9, start_text));
        CHECK(!tree.platform()->process_start());
    }
    tree.write("/proc/self/stat", std::string(1 << 20, ' '));
    CHECK(!tree.platform()->process_start());
}

TEST_CASE("A process lives if its start is the same and it is not dead", "[platform]") {
    const Tree tree;
    const auto platform = tree.platform();
    CHECK(platform->process_state(kNoProcess, 987654321) == ProcessState::gone);
    for (const char state : {'R', 'S', 'D', 'T', 't', 'I'}) {
        CAPTURE(state);
        tree.write("/proc/4194304/stat", stat_line("cat", state));
        CHECK(platform->process_state(kNoProcess, 987654321) == ProcessState::alive);
        CHECK(platform->process_state(kNoProcess, 987654320) == ProcessState::gone);
    }
    for (const char state : {'Z', 'X', 'x'}) {
        CAPTURE(state);
        tree.write("/proc/4194304/stat", stat_line("cat", state));
        CHECK(platform->process_state(kNoProcess, 987654321) == ProcessState::gone);
    }
    // Its first thread has ended, another runs on.
    tree.write("/proc/4194304/stat",
               "4194304 (cat) Z 1 2 3 0 -1 4194560 10 0 0 0 1 2 0 0 20 0 2 0 987654321 1000 10 1 1 1 0\n");
    CHECK(platform->process_state(kNoProcess, 987654321) == ProcessState::alive);
}

TEST_CASE("What can't be looked at is unknown, not gone", "[platform]") {
    const Tree tree;
    const auto platform = tree.platform();
    // This process exists, but /proc does not show it, as with hidepid=2.
    CHECK(platform->process_state(static_cast<std::uint32_t>(::getpid()), 1) == ProcessState::unknown);
    tree.folder("/proc/4194304/stat");  // read(2) fails
    CHECK(platform->process_state(kNoProcess, 987654321) == ProcessState::unknown);
    CHECK(platform->process_state(0, 987654321) == ProcessState::unknown);
    tree.write("/proc/0/stat", stat_line("cat"));
    CHECK(platform->process_state(0, 987654321) == ProcessState::unknown);
}

TEST_CASE("Ids that no process can have are gone", "[platform]") {
    const auto platform = make_system_platform();
    CHECK(platform->process_state(kNoProcess, 1) == ProcessState::gone);
    CHECK(platform->process_state(0x7fffffffU, 1) == ProcessState::gone);
    CHECK(platform->process_state(0x80000000U, 1) == ProcessState::gone);
    CHECK(platform->process_state(0xffffffffU, 1) == ProcessState::gone);  // as a pid_t: "every process"
}

TEST_CASE("A real process is alive, then gone as a zombie, and gone when reaped", "[platform]") {
    const auto platform = make_system_platform();
    int to_child[2];
    int from_child[2];
    REQUIRE(::pipe(to_child) == 0);
    REQUIRE(::pipe(from_child) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        ::close(to_child[1]);
        const std::uint64_t start = platform->process_start().value_or(0);
        if (::write(from_child[1], &start, sizeof start) != sizeof start) ::_exit(1);
        char byte = 0;
        ::_exit(::read(to_child[0], &byte, 1) == 0 ? 0 : 1);
    }
    const auto id = static_cast<std::uint32_t>(child);
    ::close(from_child[1]);
    std::uint64_t start = 0;
    CHECK(::read(from_child[0], &start, sizeof start) == static_cast<ssize_t>(sizeof start));
    CHECK(start >= platform->process_start().value());
    CHECK(platform->process_state(id, start) == ProcessState::alive);
    ::close(to_child[1]);
    siginfo_t info{};
    CHECK(::waitid(P_PID, id, &info, WEXITED | WNOWAIT) == 0);
    CHECK(platform->process_state(id, start) == ProcessState::gone);
    CHECK(::waitpid(child, nullptr, 0) == child);
    CHECK(platform->process_state(id, start) == ProcessState::gone);
    ::close(to_child[0]);
    ::close(from_child[0]);
}

TEST_CASE("After fork the answers are the child's", "[platform]") {
    const Tree tree;
    tree.write("/proc/self/stat", stat_line("parent"));
    tree.write("/proc/self/ns/pid", "");
    const auto platform = tree.platform();
    CHECK(platform->process_start() == 987654321U);
    const std::string child_stat = stat_line("child").replace(stat_line("child").find("987654321"), 9, "987654399");
    const auto parent = static_cast<std::uint32_t>(::getpid());
    const int answer = in_child([&] {
        tree.write("/proc/self/stat", child_stat);
        std::filesystem::remove(tree.path("/proc/self/ns/pid"));
        if (platform->process_id() == parent) return 1;
        if (platform->process_start() != 987654399U) return 2;
        return platform->pid_namespace() ? 3 : 0;
    });
    CHECK(answer == 0);
    CHECK(platform->process_start() == 987654321U);  // the parent keeps its own
}

TEST_CASE("Channel nodes are listed by number, and each is tried", "[platform]") {
    const Tree tree;
    CHECK(tree.platform()->imex_channels().empty());
    const std::string folder = "/dev/nvidia-caps-imex-channels";
    tree.folder(folder);
    CHECK(tree.platform()->imex_channels().empty());
    tree.write(folder + "/channel10", "");
    tree.folder(folder + "/channel2");
    REQUIRE(::symlink("/nowhere/at/all", tree.path(folder + "/channel0").c_str()) == 0);
    REQUIRE(::symlink("/dev/null", tree.path(folder + "/channel7").c_str()) == 0);
    REQUIRE(::mkfifo(tree.path(folder + "/channel3").c_str(), 0600) == 0);
    for (const char* const other : {"channel", "channel-1", "channel01", "channel1x", "channel99999999999", "Channel1",
                                    "xchannel1", "channel+1", "channel 1"})
        tree.write(folder + "/" + other, "");
    const auto channels = tree.platform()->imex_channels();
    REQUIRE(channels.size() == 5);
    const int numbers[] = {0, 2, 3, 7, 10};
    const int errors[] = {ENOENT, EISDIR, 0, 0, 0};
    for (std::size_t i = 0; i < channels.size(); ++i) {
        CAPTURE(i);
        CHECK(channels[i].number == numbers[i]);
        CHECK(channels[i].open_errno == errors[i]);
    }
    CHECK(channels[3].major_matches);  // a character device, and no /proc/devices to tell
    CHECK(!channels[4].major_matches);
}

TEST_CASE("A channel node that may not be opened keeps its errno", "[platform]") {
    const Tree tree;
    tree.write("/dev/nvidia-caps-imex-channels/channel0", "");
    REQUIRE(::chmod(tree.path("/dev/nvidia-caps-imex-channels/channel0").c_str(), 0) == 0);
    REQUIRE(::chmod(tree.path("").c_str(), 0755) == 0);
    const auto platform = tree.platform();
    // Root opens every node, whatever its mode.
    constexpr uid_t kNobody = 65534;
    const bool root = ::geteuid() == 0;
    if (root) REQUIRE(::seteuid(kNobody) == 0);
    const auto channels = platform->imex_channels();
    if (root) REQUIRE(::seteuid(0) == 0);
    REQUIRE(channels.size() == 1);
    CHECK(channels[0].open_errno == EACCES);
}

TEST_CASE("Why the channels' folder can't be listed is told", "[platform]") {
    const Tree tree;
    CHECK(tree.platform()->imex_channels_errno() == ENOENT);
    tree.write("/dev/nvidia-caps-imex-channels", "");
    CHECK(tree.platform()->imex_channels_errno() == ENOTDIR);
    std::filesystem::remove(tree.path("/dev/nvidia-caps-imex-channels"));
    tree.folder("/dev/nvidia-caps-imex-channels");
    CHECK(tree.platform()->imex_channels_errno() == 0);
    REQUIRE(::chmod(tree.path("/dev/nvidia-caps-imex-channels").c_str(), 0) == 0);
    REQUIRE(::chmod(tree.path("").c_str(), 0755) == 0);
    const auto platform = tree.platform();
    constexpr uid_t kNobody = 65534;
    const bool root = ::geteuid() == 0;  // who may list every folder
    if (root) REQUIRE(::seteuid(kNobody) == 0);
    const int error = platform->imex_channels_errno();
    const bool none = platform->imex_channels().empty();
    if (root) REQUIRE(::seteuid(0) == 0);
    CHECK(error == EACCES);
    CHECK(none);
    REQUIRE(::chmod(tree.path("/dev/nvidia-caps-imex-channels").c_str(), 0755) == 0);
}

TEST_CASE("Which channel a node is for the driver is told by its minor number", "[platform]") {
    const Tree tree;
    const std::string folder = "/dev/nvidia-caps-imex-channels";
    tree.folder(folder);
    REQUIRE(::symlink("/dev/null", tree.path(folder + "/channel0").c_str()) == 0);  // minor number 3
    tree.write(folder + "/channel1", "");
    const auto channels = tree.platform()->imex_channels();
    REQUIRE(channels.size() == 2);
    CHECK(channels[0].number == 0);
    CHECK(channels[0].device_minor == 3U);
    CHECK(channels[0].channel() == 3);
    CHECK(!channels[1].device_minor);  // no character device
    CHECK(channels[1].channel() == 1);
}

TEST_CASE("Looking at the channels leaves no descriptor open", "[platform]") {
    const Tree tree;
    tree.write("/dev/nvidia-caps-imex-channels/channel0", "");
    const auto platform = tree.platform();
    const auto open_descriptors = [] {
        const std::filesystem::directory_iterator all("/proc/self/fd");
        return std::distance(begin(all), end(all));
    };
    const auto before = open_descriptors();
    for (int i = 0; i < 10; ++i) CHECK(platform->imex_channels().size() == 1);
    CHECK(open_descriptors() == before);
}

TEST_CASE("A channel node's major number is held against /proc/devices", "[platform]") {
    const Tree tree;
    const std::string folder = "/dev/nvidia-caps-imex-channels";
    tree.folder(folder);
    REQUIRE(::symlink("/dev/null", tree.path(folder + "/channel0").c_str()) == 0);
    struct stat null {};
    REQUIRE(::stat("/dev/null", &null) == 0);
    const std::string right = std::to_string(::major(null.st_rdev));
    const std::string wrong = std::to_string(::major(null.st_rdev) + 235);
    struct Row {
        std::string devices;
        bool matches;
    };
    const std::vector<Row> rows{
        {"Character devices:\n  5 tty\n  " + right + " nvidia-caps-imex-channels\n195 nvidia\n", true},
        {"Character devices:\n" + wrong + " nvidia-caps-imex-channels\n", false},
        {wrong + " nvidia-caps-imex-channels", false},
        {"Character devices:\n" + wrong + " nvidia-caps\n195 nvidia\n", true},  // can't be told
        {wrong + " nvidia-caps-imex-chan", true},
        {wrong + "x nvidia-caps-imex-channels\n", true},
        {" nvidia-caps-imex-channels\n", true},
        {"99999999999999999999 nvidia-caps-imex-channels\n", true},
        {"\n\n   \n\n" + wrong + " nvidia-caps-imex-channels\n", false},
        {std::string(1 << 20, '\n'), true},
        {"", true},
    };
    for (const Row& row : rows) {
        CAPTURE(row.devices.substr(0, 80));
        tree.write("/proc/devices", row.devices);
        const auto channels = tree.platform()->imex_channels();
        REQUIRE(channels.size() == 1);
        CHECK(channels[0].open_errno == 0);
        CHECK(channels[0].major_matches == row.matches);
    }
}

namespace {

constexpr std::string_view kParams = "EnableMSI: 1\nImexChannelCount: 2048\nCreateImexChannel0: 0\nRmMsg: \"\"\n";
constexpr std::string_view kVersion =
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (user@host)  Tue Jan  7 "
    "17:35:12 PST 2025\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n";

std::string module_version(const Tree& tree, std::string_view text) {
    tree.write("/proc/driver/nvidia/version", text);
    return tree.platform()->kernel_module().value().version;
}

}  // namespace

TEST_CASE("The kernel module tells its version, its channel count and their major number", "[platform]") {
    const Tree tree;
    CHECK(!tree.platform()->kernel_module());
    tree.write("/proc/driver/nvidia/version", kVersion);
    tree.write("/proc/driver/nvidia/params", kParams);
    tree.write("/proc/devices", "Character devices:\n  1 mem\n195 nvidia\n234 nvidia-caps-imex-channels\n");
    const auto module = tree.platform()->kernel_module();
    REQUIRE(module);
    CHECK(module->version == "580.159.04");
    CHECK(module->imex_channel_count == 2048U);
    CHECK(module->imex_channel_major == 234U);
}

TEST_CASE("What one file of the kernel module's does not tell, the others do", "[platform]") {
    const Tree version;
    version.write("/proc/driver/nvidia/version", kVersion);
    REQUIRE(version.platform()->kernel_module());
    CHECK(version.platform()->kernel_module()->version == "580.159.04");
    CHECK(!version.platform()->kernel_module()->imex_channel_count);
    CHECK(!version.platform()->kernel_module()->imex_channel_major);
    const Tree params;
    params.write("/proc/driver/nvidia/params", "ImexChannelCount: 0\n");
    REQUIRE(params.platform()->kernel_module());
    CHECK(params.platform()->kernel_module()->version.empty());
    CHECK(params.platform()->kernel_module()->imex_channel_count == 0U);
    const Tree devices;
    devices.write("/proc/devices", "509 nvidia-caps-imex-channels\n");
    REQUIRE(devices.platform()->kernel_module());
    CHECK(devices.platform()->kernel_module()->imex_channel_major == 509U);
}

TEST_CASE("Every kernel module's version is found among its words", "[platform]") {
    const Tree tree;
    tree.write("/proc/driver/nvidia/params", kParams);
    for (const std::string_view words :
         {"NVIDIA UNIX x86_64 Kernel Module  580.159.04  Release Build  (dvs-builder@U22-I3-B06-01-2)",
          "NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build",
          "NVIDIA UNIX aarch64 Kernel Module 580.159.04",
          "NVIDIA UNIX Open Kernel Module for aarch64  580.159.04  Wed Aug 17 22:24:07 PDT 2016", "580.159.04"}) {
        CAPTURE(words);
        CHECK(module_version(tree, "NVRM version: " + std::string(words) + "\nGCC version:  gcc version 12.2.0\n") ==
              "580.159.04");
    }
    CHECK(module_version(tree, "NVRM version: NVIDIA UNIX x86 Kernel Module  169.12  Thu Feb 14 17:53:07 PST 2008\n") ==
          "169.12");
}

TEST_CASE("A version file that is cut short or nonsense tells no version", "[platform]") {
    const Tree tree;
    tree.write("/proc/driver/nvidia/params", kParams);
    const std::size_t end = kVersion.find("580.159.04") + std::string_view("580.159.04").size();
    for (std::size_t bytes = 0; bytes <= end; ++bytes) {
        CAPTURE(bytes);
        CHECK(module_version(tree, kVersion.substr(0, bytes)).empty());
    }
    CHECK(module_version(tree, kVersion.substr(0, end + 1)) == "580.159.04");
    for (const std::string& text : {std::string("\n"), std::string("NVIDIA UNIX 580.159.04 Release Build\n"),
                                    std::string("NVRM version: NVIDIA UNIX\nGCC version:  gcc version 12.2.0\n"),
                                    std::string("NVRM version: 580 .159 580. 580..04 580.159x a.b -580.1 +1.2\n"),
                                    std::string("NVRM version: ") + std::string(40, '1') + ".2\n",
                                    std::string("NVRM version: 580.159\0.04\n", 26), std::string(1 << 20, '5')}) {
        CAPTURE(text.substr(0, 60));
        CHECK(module_version(tree, text).empty());
    }
    std::filesystem::remove(tree.path("/proc/driver/nvidia/version"));
    tree.folder("/proc/driver/nvidia/version");
    CHECK(tree.platform()->kernel_module().value().version.empty());
}

TEST_CASE("A channel count that is cut short or nonsense is not known", "[platform]") {
    const Tree tree;
    tree.write("/proc/driver/nvidia/version", kVersion);
    const auto count_in = [&](std::string_view text) {
        tree.write("/proc/driver/nvidia/params", text);
        return tree.platform()->kernel_module().value().imex_channel_count;
    };
    const std::size_t end = kParams.find("2048") + 4;
    for (std::size_t bytes = 0; bytes <= end; ++bytes) {
        CAPTURE(bytes);
        CHECK(!count_in(kParams.substr(0, bytes)));
    }
    CHECK(count_in(kParams.substr(0, end + 1)) == 2048U);
    CHECK(count_in("ImexChannelCount: 4294967295\n") == 4294967295U);
    for (const std::string_view text :
         {"", "\n\n", "ImexChannelCount:\n", "ImexChannelCount: \n", "ImexChannelCount: -1\n",
          "ImexChannelCount: 20x\n", "ImexChannelCount: 4294967296\n", "ImexChannelCount: 0x10\n",
          "ImexChannelCount 2048\n", "XImexChannelCount: 1\n", "ImexChannelCounts: 1\n",
          "RmMsg: \"ImexChannelCount: 2\"\n"}) {
        CAPTURE(text);
        CHECK(!count_in(text));
    }
}
