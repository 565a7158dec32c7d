// SPDX-License-Identifier: Apache-2.0
// fabricmem-doctor with the real driver's code on a machine that is made up: a libcuda.so.1 that emulates, an NVML that
// answers what a file says, another /dev and /proc.
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "support/test.hpp"

#if defined(FABRICMEM_DOCTOR) && defined(FABRICMEM_EMULATED_CUDA)

#include "support/doctor_program.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

using Ids = std::vector<std::string>;

namespace {

constexpr const char* kChannels = "dev/nvidia-caps-imex-channels";
constexpr int kNullMinor = 3;  // of /dev/null, which is a channel node here: its name has to have its number

/// A machine with a GPU, a channel node and NVML, where nothing is wrong, until a test breaks it.
class Machine {
public:
    Machine() {
        set_libraries({FABRICMEM_EMULATED_CUDA, std::filesystem::path(FABRICMEM_FAKE_NVML_LIBRARY).parent_path()});
        module("580.159.04", "2048");
        // The null device has major number 1 and can be opened by all.
        (void)folder_.write("proc/devices", "Character devices:\n  1 nvidia-caps-imex-channels\n 10 misc\n");
        std::filesystem::create_directories(folder_.path() + "/" + kChannels);
        channel(kNullMinor, "/dev/null");
        nvml("driver_version=580.159.04\ndevice=0000:01:00.0\nstate=0\nhealth=0\ncluster=" + std::string(32, '0') +
             "\n");
        scenario("single-h100");
    }
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;
    ~Machine() {
        for (const char* const name : {"LD_LIBRARY_PATH", "FABRICMEM_FAKE_NVML", "FABRICMEM_EMULATOR",
                                       "CUDA_VISIBLE_DEVICES", "FABRICMEM_EMULATOR_DEVICES"})
            ::unsetenv(name);
    }

    void set_libraries(const std::vector<std::string>& folders) {
        std::string path;
        for (const std::string& folder : folders) path += folder + ":";
        ::setenv("LD_LIBRARY_PATH", path.c_str(), 1);
    }
    void module(const std::string& version, const std::string& count) {
        (void)folder_.write("proc/driver/nvidia/version",
                            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  " + version + "  Release Build\n");
        (void)folder_.write("proc/driver/nvidia/params", "CreateImexChannel0: 0\nImexChannelCount: " + count + "\n");
    }
    void channel(int number, const std::string& node) {
        const std::string path = folder_.path() + "/" + kChannels + "/channel" + std::to_string(number);
        std::filesystem::remove(path);
        if (!node.empty()) std::filesystem::create_symlink(node, path);
    }
    void nvml(const std::string& text) { ::setenv("FABRICMEM_FAKE_NVML", folder_.write("nvml", text).c_str(), 1); }
    void scenario(const std::string& name) { ::setenv("FABRICMEM_EMULATOR", name.c_str(), 1); }
    void scenario(const Scenario& made) { scenario(folder_.write(made)); }
    [[nodiscard]] const DoctorFolder& folder() const noexcept { return folder_; }

    [[nodiscard]] DoctorDocument ask(const Arguments& arguments = {}) const {
        return ask_doctor(Arguments{"--driver", "cuda", "--root", folder_.path()} + arguments);
    }

private:
    DoctorFolder folder_;
};

Scenario with_channel(const ImexChannel& channel) {
    Scenario scenario = Scenario::ready_made("single-h100");
    scenario.nodes.front().channels = {channel};
    return scenario;
}

}  // namespace

TEST_CASE("A machine where all is well is told with its driver's versions", "[doctor]") {
    const Machine machine;
    const DoctorDocument told = machine.ask();
    CHECK(told.code == 0);
    CHECK(told.checks("failed").empty());
    CHECK(told.checks("warning").empty());
    CHECK(
        told.verdict() ==
        "fabric memory works on this node on device 0 and host NUMA node 0 (driver 580.159.04, CUDA 13.0); other nodes "
        "were not tried: the GPUs are in no multi-node NVLink domain");
    CHECK(told.document["driver"]["name"] == "cuda");
    CHECK(told.document["machine"]["kernel_module"]["imex_channel_count"] == 2048);
    CHECK(told.document["machine"]["nvml"]["devices"][0]["pci_bus_id"] == "0000:01:00.0");
    CHECK(told.state("FM-NVML-002") == "ok");
}

TEST_CASE("Each fault of the channel nodes in /dev is named, and no other", "[doctor]") {
    {
        Machine machine;
        machine.channel(kNullMinor, "");
        machine.scenario("single-h100-no-channel");
        const DoctorDocument told = machine.ask();
        CHECK(told.code == 2);
        CHECK(told.checks("failed") == Ids{"FM-CHANNEL-001"});
        CHECK(told.checks("warning").empty());
    }
    {
        Machine machine;
        machine.channel(kNullMinor, "/dev/ptmx");  // of another major number
        machine.scenario(with_channel({.number = 0, .open_errno = 6, .major_matches = false}));
        const DoctorDocument told = machine.ask();
        CHECK(told.code == 2);
        CHECK(told.checks("failed") == Ids{"FM-CHANNEL-004"});
        CHECK(told.checks("warning").empty());
    }
    {
        Machine machine;  // a link to nowhere can't be opened, as a number beyond the driver's can't
        machine.channel(kNullMinor, "");
        machine.channel(4000, "/nowhere");
        machine.scenario(with_channel({.number = 4000, .open_errno = 6}));
        const DoctorDocument told = machine.ask();
        CHECK(told.code == 2);
        CHECK(told.checks("failed") == Ids{"FM-CHANNEL-005"});
        CHECK(contains(told.check("FM-CHANNEL-005")["cause"].get<std::string>(), "2048"));
        CHECK(told.checks("warning").empty());
    }
}

TEST_CASE("A channel that this user may not open is named by its mode", "[doctor]") {
    if (::geteuid() == 0) FABRICMEM_SKIP("root may open all");
    Machine machine;
    machine.channel(kNullMinor, "/dev/mem");  // of major number 1 too
    machine.scenario(with_channel({.number = 0, .open_errno = 13}));
    const DoctorDocument told = machine.ask();
    CHECK(told.code == 2);
    CHECK(told.checks("failed") == Ids{"FM-CHANNEL-002"});
}

TEST_CASE("A driver that refuses although a channel opens is told from one without a channel", "[doctor]") {
    Machine machine;
    machine.scenario("single-h100-no-channel");  // as for a node that appeared after cuInit
    const DoctorDocument told = machine.ask();
    CHECK(told.code == 2);
    CHECK(told.checks("failed") == Ids{"FM-CHANNEL-008"});
}

TEST_CASE("A driver without channels is told by its parameter", "[doctor]") {
    Machine machine;
    machine.module("580.159.04", "0");
    machine.channel(kNullMinor, "");
    machine.scenario("single-h100-no-channel");
    const DoctorDocument told = machine.ask();
    CHECK(told.code == 2);
    CHECK(told.checks("failed") == Ids{"FM-CHANNEL-006"});
    CHECK(told.checks("warning").empty());
}

TEST_CASE("The emulated driver is not taken unasked, whatever the environment names", "[doctor]") {
    Machine machine;  // FABRICMEM_EMULATOR is set
    machine.set_libraries({std::filesystem::path(FABRICMEM_FAKE_NVML_LIBRARY).parent_path()});
    const DoctorDocument told = ask_doctor({"--root", machine.folder().path()});
    CHECK(told.document["driver"]["name"] == "cuda");
    CHECK_FALSE(contains(told.verdict(), "mulated"));
}

TEST_CASE("The doctor changes no file of the machine that it looks at", "[doctor]") {
    const Machine machine;
    const auto files = [&] {
        std::map<std::string, std::string> found;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(machine.folder().path())) {
            struct stat now {};
            REQUIRE(::lstat(entry.path().c_str(), &now) == 0);
            found[entry.path()] = std::to_string(now.st_mode) + " " + std::to_string(now.st_size) + " " +
                                  std::to_string(now.st_ctim.tv_sec) + "." + std::to_string(now.st_ctim.tv_nsec);
        }
        return found;
    };
    const auto before = files();
    REQUIRE(before.size() > 5);
    CHECK(machine.ask({"-v"}).code == 0);
    CHECK(files() == before);
}

TEST_CASE("A channel node whose name is not its minor number is a warning", "[doctor]") {
    Machine machine;
    machine.channel(kNullMinor, "");
    machine.channel(0, "/dev/null");
    const DoctorDocument told = machine.ask();
    CHECK(told.code == 0);
    CHECK(told.checks("warning") == Ids{"FM-CHANNEL-009"});
    CHECK(contains(told.check("FM-CHANNEL-009")["cause"].get<std::string>(), "channel0 is of minor number 3"));
}

TEST_CASE("What looks wrong in /dev is a warning where memory works all the same", "[doctor]") {
    Machine machine;
    machine.channel(kNullMinor, "/dev/ptmx");
    const DoctorDocument told = machine.ask();
    CHECK(told.code == 0);
    CHECK(told.checks("failed").empty());
    CHECK(told.checks("warning") == Ids{"FM-CHANNEL-004"});
}

TEST_CASE("Files of /proc that are missing, cut short or nonsense are not known, and no failure", "[doctor]") {
    Machine machine;
    for (const char* const text : {"", "NVRM", "\xff\xfe\n\n\n"}) {
        (void)machine.folder().write("proc/driver/nvidia/version", text);
        (void)machine.folder().write("proc/driver/nvidia/params", "ImexChannelCou");
        (void)machine.folder().write("proc/devices", text);
        const DoctorDocument told = machine.ask();
        CHECK(told.code == 0);
        CHECK(told.checks("failed").empty());
        CHECK(told.state("FM-CHANNEL-006") == "unknown");
    }
    std::filesystem::remove_all(machine.folder().path() + "/proc");
    CHECK(machine.ask().code == 0);
}

TEST_CASE("A health mask with a fault is told in words, with the mask beside", "[doctor]") {
    Machine machine;
    machine.nvml("device=0000:01:00.0\nstate=3\nhealth=0x9a\ncluster=" + std::string(32, '0') + "\n");
    const DoctorDocument told = machine.ask();
    CHECK(told.code == 0);
    CHECK(told.checks("warning") == Ids{"FM-FABRIC-005"});
    CHECK(contains(told.check("FM-FABRIC-005")["facts"].get<std::string>(), "0x9a"));
    CHECK(told.document["machine"]["nvml"]["devices"][0]["fabric"]["health_mask"] == 0x9a);
}

TEST_CASE("A recovery action that NVML asks for is told", "[doctor]") {
    Machine machine;
    const std::string device = "device=0000:01:00.0\nstate=0\nhealth=0\ncluster=" + std::string(32, '0') + "\n";
    machine.nvml(device + "recovery_action=2\n");
    const DoctorDocument told = machine.ask();
    CHECK(told.code == 0);
    CHECK(told.checks("warning") == Ids{"FM-FABRIC-008"});
    CHECK(contains(told.check("FM-FABRIC-008")["facts"].get<std::string>(), "reboot the node"));
    machine.nvml(device + "recovery_action=5\n");
    CHECK(machine.ask().checks("warning") == Ids{"FM-IMEX-002"});
}

TEST_CASE("GPUs that CUDA does not see are a warning, unless CUDA_VISIBLE_DEVICES says so", "[doctor]") {
    Machine machine;
    machine.nvml("device=0000:01:00.0\nstate=0\nhealth=0\ndevice=0000:41:00.0\nstate=0\nhealth=0\n");
    const DoctorDocument told = machine.ask();
    CHECK(told.checks("warning") == Ids{"FM-NVML-002"});
    CHECK(contains(told.check("FM-NVML-002")["cause"].get<std::string>(), "0000:41:00.0"));
    ::setenv("CUDA_VISIBLE_DEVICES", "0", 1);
    CHECK(machine.ask().checks("warning").empty());
}

TEST_CASE("CUDA_VISIBLE_DEVICES that hides all is told from a machine without a GPU", "[doctor]") {
    Machine machine;
    ::setenv("CUDA_VISIBLE_DEVICES", "", 1);
    ::setenv("FABRICMEM_EMULATOR_DEVICES", "", 1);  // what the libcuda of this test looks at
    const DoctorDocument told = machine.ask();
    CHECK(told.code == 2);
    CHECK(told.checks("failed") == Ids{"FM-DRIVER-004"});
    ::unsetenv("CUDA_VISIBLE_DEVICES");
    CHECK(machine.ask().checks("failed") == Ids{"FM-DRIVER-006"});
    machine.nvml("driver_version=580.159.04\n");
    std::filesystem::remove_all(machine.folder().path() + "/proc");
    const DoctorDocument none = machine.ask();
    CHECK(none.code == 3);
    CHECK(none.checks("failed") == Ids{"FM-DRIVER-003"});
}

TEST_CASE("Libraries and kernel module of two versions are told", "[doctor]") {
    Machine machine;
    machine.module("570.10", "2048");
    const DoctorDocument told = machine.ask();
    CHECK(told.code == 0);
    CHECK(told.checks("warning") == Ids{"FM-DRIVER-005"});
}

TEST_CASE("Without NVML it is told that the fabric's state is not known", "[doctor]") {
    Machine machine;
    machine.set_libraries({FABRICMEM_EMULATED_CUDA});
    if (const DoctorDocument told = machine.ask(); told.document["machine"]["nvml"].is_null()) {
        CHECK(told.code == 0);
        CHECK(told.checks("warning") == Ids{"FM-NVML-001"});
        CHECK(told.state("FM-FABRIC-005") == "unknown");
    }
    machine.set_libraries({FABRICMEM_EMULATED_CUDA, std::filesystem::path(FABRICMEM_FAKE_NVML_LIBRARY).parent_path()});
    machine.nvml("init_result=9\n");
    CHECK(machine.ask().checks("warning") == Ids{"FM-NVML-001"});
}

TEST_CASE("An NVML that hangs is ended, and memory is tried without it", "[doctor]") {
    Machine machine;
    machine.nvml("hang=nvmlInit_v2\ndevice=0000:01:00.0\n");
    const DoctorDocument told = machine.ask({"--time-limit", kShortLimit});
    CHECK(told.code == 0);
    CHECK(told.checks("warning") == Ids{"FM-DRIVER-008"});
    CHECK(told.check("FM-DRIVER-008")["subject"] == "start of NVML");
    CHECK(told.reach("device 0") == "fabric_node");
}

TEST_CASE("An NVML that talks nonsense crashes nobody", "[doctor]") {
    Machine machine;
    machine.nvml("garbage=1\ndevice=0000:01:00.0\n");
    const DoctorDocument told = machine.ask();
    CHECK(told.code == 0);
    CHECK(told.checks("failed").empty());
}

TEST_CASE("A libcuda that hangs in cuInit is ended, and what was seen before it stands", "[doctor]") {
    const Machine machine;
    const Faults faults("cuInit=hang");
    const DoctorDocument told = machine.ask({"--time-limit", kShortLimit});
    CHECK(told.code == 2);
    CHECK(told.checks("failed") == Ids{"FM-DRIVER-008"});
    CHECK(told.check("FM-DRIVER-008")["subject"] == "start of CUDA");
    CHECK(told.document["machine"]["kernel_module"]["version"] == "580.159.04");
    CHECK(told.document["machine"]["nvml"]["devices"].size() == 1);
}

TEST_CASE("What cuInit answers is told by its cause", "[doctor]") {
    struct Row {
        const char* faults;
        const char* check;
    };
    for (const Row& row : {Row{"cuInit=fail:802", "FM-FABRIC-004"}, Row{"cuInit=fail:803", "FM-DRIVER-005"},
                           Row{"cuInit=fail:999", "FM-DRIVER-006"}}) {
        const Machine machine;
        const Faults faults(row.faults);
        const DoctorDocument told = machine.ask();
        CHECK(told.code == 2);
        CHECK(told.checks("failed") == Ids{row.check});
        CHECK(told.checks("warning").empty());
    }
}

TEST_CASE("A GPU that is still joining the fabric keeps CUDA from starting, and is named", "[doctor]") {
    Machine machine;
    machine.nvml("device=0000:01:00.0\nstate=2\nhealth=0\n");
    const Faults faults("cuInit=fail:802");
    const DoctorDocument told = machine.ask();
    CHECK(told.code == 2);
    CHECK(told.checks("failed") == Ids{"FM-FABRIC-003"});
}

#else

TEST_CASE("A machine where all is well is told", "[doctor]") {
    FABRICMEM_SKIP("built without the tools, or without the emulated libcuda");
}

#endif
