// SPDX-License-Identifier: Apache-2.0
// fabricmem-pingpong as its users see it: what it prints, what it answers a wrong option.
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "support/pingpong_program.hpp"
#include "support/test.hpp"

using namespace fabricmem::test;

namespace {

const std::vector<Arguments> kModes{{"--mode", "copy", "--location", "device"},
                                    {"--mode", "copy", "--location", "host"},
                                    {"--mode", "stream", "--location", "device"},
                                    {"--mode", "stream", "--location", "host"},
                                    {"--mode", "cpu", "--location", "host"}};

}  // namespace

TEST_CASE("In every mode every byte arrives, and the last line says so", "[pingpong][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const Arguments& mode : kModes) {
        CAPTURE(mode);
        CapturedProcess program(pingpong(
            mode + Arguments{"--sizes", "1,4,12,13,63,64,65,4097,64K", "--iterations", "20", "--warmup", "2"}));
        CHECK(program.finish(kPatienceSeconds) == 0);
        CHECK(said_in(program.err()).empty());
        const std::vector<std::string> lines = lines_of(program.out());
        CAPTURE(program.out());
        REQUIRE(lines.size() == 1 + 2 + 9 + 1);
        CHECK(contains(lines[0], testing_cuda() ? "cuda driver" : "emulated driver"));
        CHECK(contains(lines[0], "device 0 ("));
        CHECK(contains(lines[0], mode.back() == "host" ? "memory on host NUMA node" : "memory on device 0"));
        CHECK(contains(lines[0], "handles: fabric"));
        CHECK(contains(lines[11], "64 KiB       20"));
        CHECK(contains(lines.back(), "both sides checked every byte"));
        CHECK(contains(lines.back(), "198 rounds"));
    }
}

TEST_CASE("On a stream a payload of up to 64 bytes travels without a copy, and every byte of it is looked at",
          "[pingpong]") {
    const Faults faults("cuMemcpyAsync=fail:1");
    const Arguments played{"--mode", "stream", "--location", "host", "--iterations", "3"};
    CapturedProcess small({Arguments{FABRICMEM_PINGPONG, "--driver", "emulated", "--sizes", "1,4,13,64"} + played});
    CHECK(small.finish(kPatienceSeconds) == 0);
    CHECK(contains(small.out(), "none wrong"));
    CapturedProcess larger({Arguments{FABRICMEM_PINGPONG, "--driver", "emulated", "--sizes", "65"} + played});
    CHECK(larger.finish(kPatienceSeconds) == 1);
    // Both sides' copies fail; whoever meets the other's end first says that, be it that its memory is gone already.
    INFO(larger.err());
    CHECK((contains(larger.err(), "cuMemcpyAsync failed") || contains(larger.err(), "peer") ||
           contains(larger.err(), "the exporting process")));
}

TEST_CASE("With --json stdout is one document and the first line is on stderr", "[pingpong][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    CapturedProcess program(pingpong({"--json", "--sizes", "4,1K", "--iterations", "10"}));
    CHECK(program.finish(kPatienceSeconds) == 0);
    CHECK(said_in(program.err()).size() == 1);
    CHECK(contains(program.err(), " driver, device 0"));

    const auto document = nlohmann::json::parse(program.out());
    CHECK(document["ok"].get<bool>());
    CHECK(document["driver"].get<std::string>() == (testing_cuda() ? "cuda" : "emulated"));
    CHECK(document["mode"].get<std::string>() == "stream");
    CHECK(document["location"].get<std::string>() == "device");
    CHECK(document["handles"].get<std::string>() == "fabric");
    REQUIRE(document["results"].size() == 2);
    CHECK(document["results"][1]["bytes"].get<int>() == 1024);
    CHECK(document["results"][1]["rounds"].get<int>() == 10);
    const auto& round_trip = document["results"][1]["round_trip_us"];
    CHECK(round_trip["min"].get<double>() <= round_trip["median"].get<double>());
    CHECK(round_trip["median"].get<double>() <= round_trip["p99"].get<double>());
    CHECK(document["results"][1]["bytes_per_second"].get<double>() > 0);
    CHECK(document["checked"]["rounds"].get<int>() == 24);
}

TEST_CASE("Auto takes the emulated driver where there is no GPU and says what the real one answered", "[pingpong]") {
    ::setenv("CUDA_VISIBLE_DEVICES", "", 1);
    CapturedProcess program({FABRICMEM_PINGPONG, "--sizes", "4", "--iterations", "2", "--json"});
    CHECK(program.finish(kPatienceSeconds) == 0);
    ::unsetenv("CUDA_VISIBLE_DEVICES");
    CHECK(said_in(program.err()).size() == 1);
    CHECK(contains(program.err(), "emulated driver"));
    CHECK(contains(program.err(), "the real driver was not taken: "));
    CHECK(nlohmann::json::parse(program.out())["real_driver_answer"].is_string());
}

TEST_CASE("Auto takes the real driver where a probe of it succeeds", "[pingpong][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    CapturedProcess program({FABRICMEM_PINGPONG, "--sizes", "4", "--iterations", "2"});
    CHECK(program.finish(kPatienceSeconds) == 0);
    if (!testing_cuda()) return;  // what it takes then is this machine's
    CHECK(contains(lines_of(program.out()).at(0), "cuda driver"));
    CHECK_FALSE(contains(lines_of(program.out()).at(0), "not taken"));
}

TEST_CASE("Two sides started by hand meet at the port that the listener prints", "[pingpong][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const Arguments same{"--sizes", "4,64", "--iterations", "5", "--timeout", "60"};
    CapturedProcess first(pingpong(same + Arguments{"--listen", "0"}));
    const auto port = first.wait_for("listening at 127.0.0.1:", kPatienceSeconds);
    REQUIRE(port);
    CapturedProcess second(pingpong(same + Arguments{"--connect", "127.0.0.1:" + *port, "--json"}));
    CHECK(first.finish(kPatienceSeconds) == 0);
    CHECK(second.finish(kPatienceSeconds) == 0);
    CHECK(contains(first.out(), "both sides checked every byte"));
    CHECK(nlohmann::json::parse(second.out())["role"].get<std::string>() == "second");
}

TEST_CASE("The peer can have another device", "[pingpong]") {
    CapturedProcess program({FABRICMEM_PINGPONG, "--driver", "emulated", "--device", "1", "--peer-device", "3",
                             "--sizes", "4K", "--iterations", "5"});
    CHECK(program.finish(kPatienceSeconds) == 0);
    CHECK(contains(program.out(), "memory on device 1"));
}

TEST_CASE("A device that is not there is one line on stderr and exit code 1", "[pingpong]") {
    CapturedProcess own({FABRICMEM_PINGPONG, "--driver", "emulated", "--device", "99"});
    CHECK(own.finish(kPatienceSeconds) == 1);
    CHECK(said_in(own.err()).size() == 1);

    CapturedProcess peers({FABRICMEM_PINGPONG, "--driver", "emulated", "--peer-device", "99", "--json"});
    CHECK(peers.finish(kPatienceSeconds) == 1);
    CHECK(errors_of(peers.err()).size() == 1);
    CHECK(contains(peers.err(), "error: the peer failed: "));
    const auto document = nlohmann::json::parse(peers.out());
    CHECK_FALSE(document["ok"].get<bool>());
    CHECK(contains(document["error"].get<std::string>(), "the peer failed: "));
}

TEST_CASE("A wrong option is one line that names it and exit code 2", "[pingpong]") {
    std::string many_sizes = "4";
    for (int i = 0; i < 1000; ++i) many_sizes += ",4";
    const std::vector<std::pair<Arguments, std::string>> wrong{
        {{"--mood", "copy"}, "--mood"},
        {{"copy"}, "copy"},
        {{""}, "no such option"},
        {{"--mode"}, "--mode"},
        {{"--mode", "--json"}, "--mode"},
        {{"--mode", "fast"}, "--mode"},
        {{"--mode="}, "--mode"},
        {{"--mode", "cpu", "--location", "device"}, "--mode cpu"},
        {{"--location", "moon"}, "--location"},
        {{"--driver", "none"}, "--driver"},
        {{"--device", "-1"}, "--device"},
        {{"--device", "1x"}, "--device"},
        {{"--sizes", ""}, "--sizes"},
        {{"--sizes", "4,,64"}, "--sizes"},
        {{"--sizes", "0"}, "--sizes"},
        {{"--sizes", "K"}, "--sizes"},
        {{"--sizes", "5G"}, "--sizes"},
        {{"--sizes=" + many_sizes}, "--sizes"},
        {{"--sizes", "99999999999999999999"}, "--sizes"},
        {{"--iterations", "0"}, "--iterations"},
        {{"--iterations", "4294967297"}, "--iterations"},
        {{"--iterations", "100000000", "--sizes", "4,8"}, "--iterations"},
        {{"--warmup", "many"}, "--warmup"},
        {{"--timeout", "0"}, "--timeout"},
        {{"--json=yes"}, "--json"},
        {{"--listen", "70000"}, "--listen"},
        {{"--listen", ":4711"}, "--listen"},
        {{"--connect", "localhost:0"}, "--connect"},
        {{"--connect", "localhost:"}, "--connect"},
        {{"--listen", "0", "--connect", "localhost:1"}, "--connect"},
        {{"--listen", "0", "--peer-device", "1"}, "--peer-device"},
    };
    for (const auto& [arguments, named] : wrong) {
        CAPTURE(arguments);
        CapturedProcess program(Arguments{FABRICMEM_PINGPONG} + arguments);
        CHECK(program.finish(kPatienceSeconds) == 2);
        CHECK(program.out() == "");
        CHECK(said_in(program.err()).size() == 1);
        CHECK(contains(program.err(), named));
    }
}

TEST_CASE("Help and version are on stdout", "[pingpong]") {
    CapturedProcess help({FABRICMEM_PINGPONG, "--help"});
    CHECK(help.finish(kPatienceSeconds) == 0);
    CHECK(contains(help.out(), "--location device|host"));
    CHECK_FALSE(contains(help.out(), "--spawned"));
    CHECK(help.err() == "");

    CapturedProcess version({FABRICMEM_PINGPONG, "--version"});
    CHECK(version.finish(kPatienceSeconds) == 0);
    CHECK(contains(version.out(), "fabricmem-pingpong "));
}
