// SPDX-License-Identifier: Apache-2.0
// fabricmem-emulator writes scenarios and flips switches, and the ping-pong plays on what it wrote.
#include <stdlib.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include <fabricmem/emulated_fabric.hpp>

#include "support/fabric_kit.hpp"
#include "support/pingpong_program.hpp"

using namespace fabricmem;
using fabricmem::test::Arguments;
using fabricmem::test::CapturedProcess;
using fabricmem::test::kPatienceSeconds;
using fabricmem::test::lines_of;

#if defined(FABRICMEM_EMULATOR_TOOL)

namespace {

struct Said {
    std::optional<int> code;
    std::string out;
    std::string err;
};

Said tool(Arguments arguments) {
    arguments.insert(arguments.begin(), FABRICMEM_EMULATOR_TOOL);
    CapturedProcess program(arguments);
    Said said;
    said.code = program.finish(kPatienceSeconds);
    said.out = program.out();
    said.err = program.err();
    return said;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

class Folder {
public:
    Folder() { REQUIRE(::mkdtemp(path_.data()) != nullptr); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() {
        ::unlink(file().c_str());
        ::unlink((file() + ".switches").c_str());
        ::rmdir(path_.c_str());
    }
    [[nodiscard]] std::string file() const { return path_ + "/s.json"; }

private:
    std::string path_ = "/tmp/fabricmem-tool-XXXXXX";
};

}  // namespace

TEST_CASE("The tool writes a scenario that runs, and flips its switches while it does", "[emulator]") {
    const Folder folder;
    CHECK(tool({"write", "two-racks", folder.file()}).code == 0);
    const Said twice = tool({"write", "two-racks", folder.file()});
    CHECK(twice.code == 1);
    CHECK(has(twice.err, "File exists"));

    const auto fabric = make_emulated_fabric(Scenario::from_file(folder.file()));
    const auto driver = fabricmem::test::driver_on(fabric, "rack1-node0");
    CHECK(fabricmem::test::any_call(*driver) == CUDA_SUCCESS);
    CHECK(tool({"set", folder.file(), "rack1-node0", "node", "lost"}).code == 0);
    CHECK(fabricmem::test::any_call(*driver) == CUDA_ERROR_NVLINK_UNCORRECTABLE);

    const Said shown = tool({"show", folder.file()});
    CHECK(shown.code == 0);
    REQUIRE(lines_of(shown.out).size() == 5);
    CHECK(has(lines_of(shown.out)[0], "imex_daemon"));
    CHECK(has(lines_of(shown.out)[2], "up"));
    CHECK(has(lines_of(shown.out)[3], "lost"));
}

TEST_CASE("The tool lists what is ready-made, and answers what it can't do with one line", "[emulator]") {
    CHECK(lines_of(tool({"list"}).out) == Scenario::ready_made_names());
    CHECK(has(tool({"--help"}).out, "set FILE NODE SWITCH VALUE"));
    const Folder folder;
    for (const Arguments& wrong : {Arguments{}, Arguments{"list", "all"}, Arguments{"write", "two-racks"},
                                   Arguments{"set", folder.file(), "node0", "node"}}) {
        const Said said = tool(wrong);
        CHECK(said.code == 2);
        CHECK(lines_of(said.err).size() == 1);
    }
    const auto error_of_tool = [](const Arguments& arguments) {
        const Said said = tool(arguments);
        CHECK(said.code == 1);
        CHECK(lines_of(said.err).size() == 1);
        return said.err;
    };
    CHECK(has(error_of_tool({"write", "three-racks", folder.file()}), "two-racks"));
    CHECK(has(error_of_tool({"show", folder.file()}), "No such file"));
    CHECK(tool({"write", "single-h100", folder.file()}).code == 0);
    CHECK(has(error_of_tool({"set", folder.file(), "node7", "node", "lost"}), "no node \"node7\""));
    CHECK(has(error_of_tool({"set", folder.file(), "node0", "node", "gone"}), "up, lost"));
    CHECK(has(error_of_tool({"set", folder.file(), "node0", "power", "off"}), "imex_daemon"));
}

#if defined(FABRICMEM_PINGPONG)

TEST_CASE("The ping-pong plays between two nodes of a scenario, and its first line says which", "[emulator]") {
    const auto on = [](const char* node) { ::setenv("FABRICMEM_EMULATOR_NODE", node, 1); };
    ::setenv("FABRICMEM_EMULATOR", "gb200-nvl72", 1);
    on("node4");
    const Arguments same{FABRICMEM_PINGPONG, "--driver", "emulated",     "--sizes", "4,1K",
                         "--mode",           "stream",   "--iterations", "10"};
    Arguments listening = same;
    listening.insert(listening.end(), {"--listen", "0"});
    CapturedProcess first(listening);
    const auto port = first.wait_for("listening at 127.0.0.1:", kPatienceSeconds);
    REQUIRE(port.has_value());
    on("node9");
    Arguments connecting = same;
    connecting.insert(connecting.end(), {"--connect", "127.0.0.1:" + *port});
    CapturedProcess second(connecting);
    ::unsetenv("FABRICMEM_EMULATOR");
    ::unsetenv("FABRICMEM_EMULATOR_NODE");
    CHECK(first.finish(kPatienceSeconds) == 0);
    CHECK(second.finish(kPatienceSeconds) == 0);
    CHECK(has(lines_of(first.out()).at(0), "emulated driver, scenario gb200-nvl72, node node4, device 0"));
    CHECK(has(lines_of(second.out()).at(0), "emulated driver, scenario gb200-nvl72, node node9, device 0"));
    CHECK(has(first.out(), "both sides checked every byte"));
}

#endif

#else

TEST_CASE("The tool writes a scenario that runs", "[emulator]") { FABRICMEM_SKIP("built without the tools"); }

#endif
