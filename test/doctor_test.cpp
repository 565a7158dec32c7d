// SPDX-License-Identifier: Apache-2.0
// fabricmem-doctor on the emulated driver: the right cause is named, and no other.
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <fabricmem/emulated_fabric.hpp>

#include "support/test.hpp"

#if defined(FABRICMEM_DOCTOR)

#include "support/doctor_program.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

using Ids = std::vector<std::string>;

namespace {

/// A machine with two GPUs on two host NUMA nodes.
Scenario two_gpus() {
    Scenario scenario = Scenario::ready_made("single-h100");
    ScenarioNode& node = scenario.nodes.front();
    node.devices.push_back(node.devices.front());
    node.devices.back().numa_node = 1;
    node.numa_node_bytes.push_back(node.numa_node_bytes.front());
    return scenario;
}

DoctorDocument ask_on(const Scenario& scenario, const Arguments& arguments = {}) {
    const DoctorFolder folder;
    return ask_doctor_on(folder.write(scenario), arguments);
}

/// The only child of a process, once it has one.
pid_t child_of(pid_t parent) {
    pid_t child = 0;
    const std::string id = std::to_string(parent);
    std::ifstream("/proc/" + id + "/task/" + id + "/children") >> child;
    return child;
}

}  // namespace

TEST_CASE("Where all is well the verdict is all that is said, and it says that it is emulated", "[doctor]") {
    const DoctorRun run = run_doctor({"--driver", "emulated", "--scenario", "hgx-h100"});
    CHECK(run.code == 0);
    CHECK(run.err == "");
    const auto lines = lines_of(run.out);
    REQUIRE(lines.size() == 3);
    CHECK(lines[0].starts_with("emulated driver, scenario hgx-h100, node node0: fabric memory works"));
    const DoctorDocument told = ask_doctor_on("hgx-h100");
    CHECK(told.code == 0);
    CHECK(told.checks("failed").empty());
    CHECK(told.checks("warning").empty());
    CHECK(told.document["expected"] == "node");
    CHECK(told.document["reach"] == "fabric_node");
    CHECK(told.document["driver"]["name"] == "emulated");
    CHECK(told.document["places"].size() == 10);
    CHECK(contains(told.verdict(), "on devices 0-7 and host NUMA nodes 0-1"));
}

TEST_CASE("A multi-node domain is expected to work where there is one", "[doctor]") {
    const DoctorDocument told = ask_doctor_on("gb200-nvl72");
    CHECK(told.code == 0);
    CHECK(told.document["expected"] == "multinode");
    CHECK(told.document["reach"] == "fabric_domain");
    CHECK(ask_doctor_on("hgx-h100", {"--expect", "multinode"}).code == 1);
    CHECK(ask_doctor_on("gb200-nvl72", {"--expect", "node"}).document["expected"] == "node");
}

TEST_CASE("Each fault of the channel nodes is named, once for all places, and no other", "[doctor]") {
    struct Row {
        std::vector<ImexChannel> channels;
        std::string check;
    };
    const std::vector<Row> rows{{{}, "FM-CHANNEL-001"},
                                {{{.number = 0, .open_errno = EACCES}}, "FM-CHANNEL-002"},
                                {{{.number = 0, .open_errno = EPERM}}, "FM-CHANNEL-003"},
                                {{{.number = 0, .open_errno = ENXIO, .major_matches = false}}, "FM-CHANNEL-004"},
                                {{{.number = 4000, .open_errno = ENXIO}}, "FM-CHANNEL-005"}};
    for (const Row& row : rows) {
        Scenario scenario = two_gpus();
        scenario.nodes.front().channels = row.channels;
        const DoctorDocument told = ask_on(scenario);
        INFO(told.out);
        CHECK(told.code == 2);
        CHECK(told.checks("failed") == Ids{row.check});
        CHECK(told.check(row.check)["subject"] == "devices 0-1 and host NUMA nodes 0-1");
        CHECK(told.checks("warning").empty());
        CHECK(told.reach("device 0") == "posix_fd");
    }
}

TEST_CASE("A box of which one GPU has no fabric handles works less than expected", "[doctor]") {
    const DoctorDocument told = ask_doctor_on("mixed-box");
    CHECK(told.code == 1);
    CHECK(told.checks("failed") == Ids{"FM-FABRIC-001"});
    CHECK(told.check("FM-FABRIC-001")["subject"] == "device 3");
    CHECK(told.reach("device 2") == "fabric_node");
}

TEST_CASE("A machine whose GPUs have no fabric handles can't have fabric memory", "[doctor]") {
    Scenario scenario = two_gpus();
    for (ScenarioDevice& device : scenario.nodes.front().devices) device.fabric = FabricAttribute::unsupported;
    const DoctorDocument told = ask_on(scenario);
    CHECK(told.code == 3);
    CHECK(told.checks("failed") == Ids{"FM-FABRIC-001"});
    CHECK(contains(told.verdict(), "no device has fabric handles"));
}

TEST_CASE("GPUs that have not joined the fabric keep CUDA from starting", "[doctor]") {
    Scenario scenario = two_gpus();
    for (ScenarioDevice& device : scenario.nodes.front().devices) device.fabric_state = FabricInfo::State::in_progress;
    const DoctorDocument told = ask_on(scenario);
    CHECK(told.code == 2);
    CHECK(told.checks("failed").size() == 1);
    CHECK(told.checks("failed").front().starts_with("FM-FABRIC-00"));
    CHECK(told.document["driver"]["made"] == false);
    CHECK(told.document["driver"]["why_not"]["code"] == 802);
}

TEST_CASE("A GPU that is ill in the fabric is a warning with the mask in words", "[doctor]") {
    Scenario scenario = Scenario::ready_made("gb200-nvl72");
    scenario.nodes.resize(1);
    scenario.nodes.front().devices[1].health_mask = 0x9a;
    const DoctorDocument told = ask_on(scenario);
    CHECK(told.code == 0);
    CHECK(told.checks("warning") == Ids{"FM-FABRIC-005"});
    CHECK(contains(told.check("FM-FABRIC-005")["facts"].get<std::string>(), "0x9a"));
    CHECK(contains(told.check("FM-FABRIC-005")["subject"].get<std::string>(), "device 1"));
}

TEST_CASE("A driver call that hangs is named, and hides no other place", "[doctor]") {
    const Faults faults("cuMemCreate#2=hang");  // of each process: the second place that it comes to
    const DoctorFolder folder;
    const DoctorDocument told = ask_doctor_on(folder.write(two_gpus()), {"--time-limit", kShortLimit});
    CHECK(told.code == 1);
    CHECK(told.checks("failed") == Ids{"FM-DRIVER-008"});
    CHECK(told.check("FM-DRIVER-008")["subject"] == "device 1 and host NUMA node 1");
    CHECK(told.reach("device 0") == "fabric_node");
    CHECK(told.reach("device 1") == "unknown");
    CHECK(told.reach("host NUMA node 0") == "fabric_node");
    CHECK(contains(told.verdict(), "what device 1 and host NUMA node 1 can is not known"));
}

TEST_CASE("Each step has its own time: many slow ones are not late", "[doctor]") {
    const Faults faults("cuMemCreate=delay:2200000");
    const DoctorFolder folder;
    const DoctorDocument told = ask_doctor_on(folder.write(two_gpus()), {"--time-limit", kSlowBuild ? "20" : "6"});
    CHECK(told.code == 0);
    CHECK(told.checks("failed").empty());
}

TEST_CASE("A start of the devices that hangs ends the run with what is known", "[doctor]") {
    const Faults faults("cuDeviceGetCount=hang");
    const DoctorDocument told = ask_doctor_on("single-h100", {"--time-limit", kShortLimit});
    CHECK(told.code == 2);
    CHECK(told.checks("failed") == Ids{"FM-DRIVER-008"});
    CHECK(told.document["driver"]["made"] == true);
    CHECK_FALSE(told.document["machine"]["host_id"].is_null());
}

TEST_CASE("A process that dies of a signal is named with its step, and hides no other place", "[doctor]") {
    const Faults faults("cuMemCreate#2=hang");
    const DoctorFolder folder;
    CapturedProcess program({FABRICMEM_DOCTOR, "--driver", "emulated", "--scenario", folder.write(two_gpus()),
                             "--time-limit", "100", "-v"});
    for (const char* const step :
         {"fabricmem-doctor: probe of device 1", "fabricmem-doctor: probe of host NUMA node 1"}) {
        REQUIRE(program.wait_for(step, kPatienceSeconds).has_value());
        REQUIRE(::kill(child_of(program.id()), SIGABRT) == 0);
    }
    CHECK(program.finish(kPatienceSeconds) == 1);
    CHECK(contains(program.out(), "failed FM-DRIVER-009: the probe ended its process"));
    CHECK(contains(program.out(), "where: device 1 and host NUMA node 1"));
    CHECK(contains(program.out(), "signal 6"));
    CHECK(contains(program.out(), "device 0: fabric_node"));
}

TEST_CASE("The doctor leaves no child behind when it is killed", "[doctor]") {
    const Faults faults("cuMemCreate=hang");
    CapturedProcess program({FABRICMEM_DOCTOR, "--driver", "emulated", "--time-limit", "100", "-v"});
    REQUIRE(program.wait_for("probe of device 0", kPatienceSeconds).has_value());
    const pid_t child = child_of(program.id());
    REQUIRE(child > 0);
    REQUIRE(::kill(program.id(), SIGKILL) == 0);
    // Its stderr is the pipe's last writer but for the doctor: it ends when both have.
    CHECK(program.finish(kPatienceSeconds) == 128 + SIGKILL);
    const auto gone = [&] {
        std::ifstream stat("/proc/" + std::to_string(child) + "/stat");
        std::string id;
        std::string name;
        std::string state;
        return !(stat >> id >> name >> state) || state == "Z" || state == "X";
    };
    while (!gone()) ::sched_yield();
}

TEST_CASE("A machine without libcuda and without a GPU can't", "[doctor]") {
    if (::access("/proc/driver/nvidia/version", F_OK) == 0) FABRICMEM_SKIP("this machine has a GPU");
    const DoctorFolder folder;
    const DoctorDocument told = ask_doctor({"--root", folder.path()});
    if (told.document["driver"]["why_not"]["check"] != "FM-DRIVER-001") FABRICMEM_SKIP("this machine has a libcuda");
    CHECK(told.code == 3);
    CHECK(told.checks("failed") == Ids{"FM-DRIVER-001"});
    CHECK(told.checks("warning").empty());
    // With a GPU on the bus it is the driver that is missing.
    (void)folder.write("sys/bus/pci/devices/0000:1b:00.0/vendor", "0x10de\n");
    (void)folder.write("sys/bus/pci/devices/0000:1b:00.0/class", "0x030200\n");
    CHECK(ask_doctor({"--root", folder.path()}).code == 2);
}

TEST_CASE("A command line that can't be meant is one line on stderr and exit code 4", "[doctor]") {
    const std::vector<Arguments> wrong{{"--frobnicate"},
                                       {"--driver", "auto"},
                                       {"--driver"},
                                       {"--scenario", "single-h100"},
                                       {"--driver", "emulated", "--scenario", "no-such"},
                                       {"--expect", "all"},
                                       {"--time-limit", "0"},
                                       {"--time-limit", "1s"},
                                       {"--color", "red"},
                                       {"--root", ""},
                                       {"--json=yes"},
                                       {"--explain", "FM-CHANNEL-1"},
                                       {"extra"},
                                       {"--listen", "127.0.0.1:70000"},
                                       {"--listen", "0", "--connect", "127.0.0.1:1"},
                                       {"--connect", "5000"},
                                       {"--connect", ":5000"},
                                       {"--connect", "127.0.0.1:0"},
                                       {"--store", "dir:/tmp/x", "--rank", "0"},
                                       {"--rank", "0"},
                                       {"--store", "dir:/tmp/x", "--rank", "2", "--size", "2"},
                                       {"--store", "dir:/tmp/x", "--rank", "0", "--size", "257"},
                                       {"--store", "dir:/tmp/x", "--rank", "0", "--size", "1", "--listen", "0"}};
    for (const Arguments& arguments : wrong) {
        const DoctorRun run = run_doctor(arguments);
        INFO(run.err);
        CHECK(run.code == 4);
        CHECK(run.out == "");
        CHECK(lines_of(run.err).size() == 1);
        CHECK(run.err.starts_with("fabricmem-doctor: "));
    }
    const Environment environment(Variables{{"FABRICMEM_EMULATOR", "no-such"}});
    const DoctorRun run = run_doctor({"--driver", "emulated"});
    CHECK(run.code == 4);
    CHECK(lines_of(run.err).size() == 1);
}

TEST_CASE("Help, version and explanations are said on stdout", "[doctor]") {
    CHECK(contains(run_doctor({"--help"}).out, "Exit code: 0 as expected"));
    CHECK_FALSE(contains(run_doctor({"--help"}).out, "--child"));
    CHECK(run_doctor({"--version"}).out.starts_with("fabricmem-doctor 0."));
    CHECK(run_doctor({"--explain", "FM-FABRIC-001"}).code == 0);
}

TEST_CASE("Colours are for terminals, and for those who ask", "[doctor]") {
    const auto coloured = [](const Arguments& arguments) {
        const DoctorRun run = run_doctor(Arguments{"--driver", "emulated"} + arguments);
        return run.out.find('\x1b') != run.out.npos;
    };
    CHECK_FALSE(coloured({}));
    CHECK(coloured({"--color", "always"}));
    const Environment environment(Variables{{"NO_COLOR", "1"}});
    CHECK(coloured({"--color", "always"}));
}

TEST_CASE("On a terminal it is coloured and as wide as that, unless the environment says otherwise", "[doctor]") {
    const auto on_terminal = [](const Arguments& arguments, unsigned short columns) {
        const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
        REQUIRE(terminal >= 0);
        REQUIRE(::grantpt(terminal) == 0);
        REQUIRE(::unlockpt(terminal) == 0);
        winsize size{};
        size.ws_col = columns;
        REQUIRE(::ioctl(terminal, TIOCSWINSZ, &size) == 0);
        const std::string command = "exec \"$0\" \"$@\" >" + std::string(::ptsname(terminal));
        CapturedProcess program(Arguments{"/bin/sh", "-c", command, FABRICMEM_DOCTOR} + arguments);
        std::string text;
        CHECK(program.finish(kPatienceSeconds) == 0);
        ::fcntl(terminal, F_SETFL, O_NONBLOCK);
        char buffer[4096];
        for (ssize_t got = 0; (got = ::read(terminal, buffer, sizeof buffer)) > 0;)
            text.append(buffer, static_cast<std::size_t>(got));
        ::close(terminal);
        return text;
    };
    const auto widest = [](const std::string& text) {
        std::size_t most = 0;
        for (const std::string& line : lines_of(text)) most = std::max(most, line.size());
        return most;
    };
    const Arguments explain{"--explain", "FM-CHANNEL-007"};
    {
        const Environment environment(Variables{{"TERM", "xterm"}});
        CHECK(contains(on_terminal({"--driver", "emulated"}, 80), "\x1b["));
        CHECK(widest(on_terminal(explain, 50)) <= 51);  // with the carriage return
        CHECK(widest(on_terminal(explain, 50)) > 41);
        CHECK(widest(on_terminal(explain, 20)) > 21);
        CHECK(widest(on_terminal(explain, 200)) <= 81);
    }
    {
        const Environment dumb(Variables{{"TERM", "dumb"}});
        CHECK_FALSE(contains(on_terminal({"--driver", "emulated"}, 80), "\x1b["));
    }
    const Environment refused(Variables{{"TERM", "xterm"}, {"NO_COLOR", "1"}});
    CHECK_FALSE(contains(on_terminal({"--driver", "emulated"}, 80), "\x1b["));
}

TEST_CASE("What docs/doctor.md shows is what the doctor says", "[doctor]") {
    std::ifstream page(FABRICMEM_SOURCE_DIR "/docs/doctor.md");
    const std::string prompt = "$ fabricmem-doctor ";
    int shown = 0;
    for (std::string line; std::getline(page, line);) {
        if (!line.starts_with(prompt)) continue;
        Arguments arguments;
        std::istringstream words(line.substr(prompt.size()));
        for (std::string word; words >> word;) arguments.push_back(word);
        std::string expected;
        while (std::getline(page, line) && line != "```") expected += line + "\n";
        INFO(line);
        CHECK(run_doctor(arguments).out == expected);
        ++shown;
    }
    CHECK(shown >= 3);
}

#else

TEST_CASE("Each fault of the channel nodes is named", "[doctor]") { FABRICMEM_SKIP("built without the tools"); }

#endif
