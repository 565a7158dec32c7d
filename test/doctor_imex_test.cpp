// SPDX-License-Identifier: Apache-2.0
// nvidia-imex-ctl, as scripts play it: well, sick, hanging, talking nonsense, absent.
#include <sys/stat.h>

#include <string>
#include <utility>
#include <vector>

#include "support/test.hpp"

#if defined(FABRICMEM_DOCTOR)

#include "doctor/imex_ctl.hpp"
#include "support/doctor_program.hpp"

using namespace fabricmem;
using namespace fabricmem::test;
using doctor::ImexFacts;
using Answer = doctor::ImexFacts::Answer;

using Ids = std::vector<std::string>;

namespace {

constexpr std::chrono::milliseconds kGenerous{100'000};

/// What -N -j says of two nodes; fields that the doctor does not know, too.
std::string domain_json(const std::string& domain, const std::string& second) {
    return R"({"nodes": {"0": {"status": "READY", "host": "10.0.0.1", "hostName": "", "version": "580.95.05",
        "connections": {"1": {"host": "10.0.0.2", "status": "CONNECTED", "changed": true}}, "changed": true},
        "1": {"status": ")" +
           second + R"(", "host": "10.0.0.2", "hostName": "tray2"}}, "timestamp": "9/4/2026", "status": ")" + domain +
           "\"}";
}

/// A root with an nvidia-imex-ctl that runs `domain` for -N -j, and `daemon` for -q.
std::string with_imex(const DoctorFolder& folder, const std::string& domain, const std::string& daemon) {
    const std::string path =
        folder.write("usr/bin/nvidia-imex-ctl", "#!/bin/sh\ncase \"$*\" in\n'-N -j') " + domain + ";;\n-q) " + daemon +
                                                    ";;\n*) exit 99;;\nesac\n");
    REQUIRE(::chmod(path.c_str(), 0755) == 0);
    return folder.path();
}

std::string print_text(const std::string& text) { return "cat <<'END'\n" + text + "\nEND\n"; }

/// In a multi-node domain, where it matters.
DoctorDocument ask_in_domain(const std::string& root, const Arguments& arguments = {}) {
    return ask_doctor_on("gb200-nvl72", Arguments{"--root", root} + arguments);
}

}  // namespace

TEST_CASE("What nvidia-imex-ctl says of a domain is read, or refused as a whole", "[doctor]") {
    ImexFacts facts;
    REQUIRE(doctor::read_domain(domain_json("UP", "UNAVAILABLE"), facts));
    CHECK(facts.domain == "UP");
    REQUIRE(facts.nodes.size() == 2);
    CHECK(facts.nodes[0].name == "10.0.0.1");
    CHECK(facts.nodes[1].name == "tray2");
    CHECK(facts.nodes[1].state == "UNAVAILABLE");
    for (const std::string& nonsense :
         {std::string(), std::string("READY"), std::string("{}"), std::string("[]"), std::string("null"),
          std::string(R"({"status": "UP"})"), std::string(R"({"status": "UP", "nodes": []})"),
          std::string(R"({"status": 1, "nodes": {}})"), std::string(R"({"status": "up and well", "nodes": {}})"),
          std::string(R"({"status": "UP", "nodes": {"0": {"status": "\u001b[31m"}}})"),
          std::string(R"({"status": "UP", "nodes": {"0": "READY"}})"), domain_json("UP", "READY").substr(0, 200)}) {
        ImexFacts untouched;
        INFO(nonsense);
        CHECK_FALSE(doctor::read_domain(nonsense, untouched));
        CHECK(untouched.domain == "");
        CHECK(untouched.nodes.empty());
    }
}

TEST_CASE("A daemon's state is one word in capitals", "[doctor]") {
    ImexFacts facts;
    CHECK(doctor::read_daemon("READY\n", facts));
    CHECK(facts.daemon == "READY");
    CHECK(doctor::read_daemon("WAITING_FOR_PEERS", facts));
    for (const char* const nonsense : {"", "\n", "ready", "NOT READY", "usage: nvidia-imex-ctl"})
        CHECK_FALSE(doctor::read_daemon(nonsense, facts));
    CHECK(facts.daemon == "WAITING_FOR_PEERS");
}

TEST_CASE("Each thing that nvidia-imex-ctl can do has its answer", "[doctor]") {
    const std::string well = print_text(domain_json("UP", "READY"));
    const std::string degraded = print_text(domain_json("DEGRADED", "UNAVAILABLE"));
    struct Row {
        std::string domain;
        std::string daemon;
        Answer answer;
    };
    const std::vector<Row> rows{{well, "exit 1", Answer::understood},
                                {degraded, "echo READY", Answer::understood},
                                {degraded, "echo what", Answer::understood},
                                {"exit 2", "echo READY", Answer::understood},
                                {"echo unknown option", "echo INITIALIZING", Answer::understood},
                                {"echo hello", "echo hello", Answer::nonsense},
                                {"exit 2", "exit 2", Answer::failed},
                                {"kill -9 $$", "exit 2", Answer::failed},
                                {"head -c 3000000 /dev/zero", "exit 0", Answer::nonsense}};
    for (const Row& row : rows) {
        const DoctorFolder folder;
        INFO(row.domain << row.daemon);
        CHECK(doctor::ask_imex(with_imex(folder, row.domain, row.daemon), kGenerous).answer == row.answer);
    }
}

TEST_CASE("One that hangs is ended with all that it started", "[doctor]") {
    const DoctorFolder folder;
    const std::string root = with_imex(folder, "sleep 1000 & echo $! >" + folder.path() + "/pid; wait", "exit 0");
    const ImexFacts facts = doctor::ask_imex(root, std::chrono::milliseconds(500));
    CHECK(facts.answer == Answer::late);
    std::string pid;
    std::ifstream(folder.path() + "/pid") >> pid;
    if (pid.empty()) FABRICMEM_SKIP("the script had not begun when its time was up");
    std::string state;
    std::ifstream stat("/proc/" + pid + "/stat");
    CHECK((!(stat >> pid >> state >> state) || state == "Z" || state == "X"));
}

TEST_CASE("A domain that is up is well, and one that is degraded is a warning with the nodes that are missing",
          "[doctor]") {
    const DoctorFolder folder;
    const DoctorDocument up = ask_in_domain(with_imex(folder, print_text(domain_json("UP", "READY")), "echo READY"));
    CHECK(up.code == 0);
    CHECK(up.checks("warning").empty());
    CHECK(up.state("FM-IMEX-003") == "ok");
    CHECK(up.document["machine"]["imex"]["domain"] == "UP");
    const DoctorDocument degraded =
        ask_in_domain(with_imex(folder, print_text(domain_json("DEGRADED", "UNAVAILABLE")), "echo READY"));
    CHECK(degraded.code == 0);
    CHECK(degraded.checks("warning") == Ids{"FM-IMEX-003"});
    CHECK(degraded.check("FM-IMEX-003")["facts"] == "1 of 2 nodes are not READY: tray2 (UNAVAILABLE)");
}

TEST_CASE("A domain that is down, or a daemon that is not ready, is less than a multi-node domain should do",
          "[doctor]") {
    const DoctorFolder folder;
    const DoctorDocument down =
        ask_in_domain(with_imex(folder, print_text(domain_json("DOWN", "UNAVAILABLE")), "echo READY"));
    CHECK(down.code == 1);
    CHECK(down.checks("failed") == Ids{"FM-IMEX-003"});
    const DoctorDocument sick = ask_in_domain(with_imex(folder, "exit 1", "echo WAITING_FOR_RECOVERY"));
    CHECK(sick.code == 1);
    CHECK(sick.checks("failed") == Ids{"FM-IMEX-001"});
    CHECK(contains(sick.verdict(), "this node's IMEX daemon is WAITING_FOR_RECOVERY"));
}

TEST_CASE("What nvidia-imex-ctl does not tell is not known, and no failure", "[doctor]") {
    const DoctorFolder folder;
    const DoctorDocument nonsense = ask_in_domain(with_imex(folder, "echo $((6*7))", "echo '\033[31m'"));
    CHECK(nonsense.code == 0);
    CHECK(nonsense.state("FM-IMEX-006") == "unknown");
    CHECK(nonsense.state("FM-IMEX-001") == "unknown");
    const DoctorDocument hangs =
        ask_in_domain(with_imex(folder, "exec sleep 1000", "exit 0"), {"--time-limit", kShortLimit});
    CHECK(hangs.code == 0);
    CHECK(hangs.checks("warning") == Ids{"FM-IMEX-004"});
    const DoctorDocument fails = ask_in_domain(with_imex(folder, "echo no socket >&2; exit 3", "exit 3"));
    CHECK(fails.code == 0);
    CHECK(fails.check("FM-IMEX-001")["facts"] == "nvidia-imex-ctl -N -j ended with exit code 3: no socket");
    const DoctorFolder empty;
    const DoctorDocument absent = ask_in_domain(empty.path());
    CHECK(absent.code == 0);
    CHECK(absent.state("FM-IMEX-001") == "unknown");
    CHECK(absent.checks("failed").empty());
    CHECK(absent.document["machine"]["imex"]["answer"] == "absent");
}

TEST_CASE("It is not asked where there is no multi-node domain, nor of this machine for an emulated one", "[doctor]") {
    const DoctorFolder folder;
    const std::string root = with_imex(folder, "echo asked >" + folder.path() + "/asked", "exit 0");
    CHECK(ask_doctor_on("hgx-h100", {"--root", root}).document["machine"]["imex"]["answer"] == "not_asked");
    const std::string path = std::getenv("PATH");
    ::setenv("PATH", (root + "/usr/bin:" + path).c_str(), 1);
    CHECK(ask_doctor_on("gb200-nvl72").document["machine"]["imex"]["answer"] == "not_asked");
    ::setenv("PATH", path.c_str(), 1);
    CHECK_FALSE(std::filesystem::exists(folder.path() + "/asked"));
    CHECK(run_doctor({"--driver", "emulated", "--scenario", "hgx-h100", "--root", root, "-v"}).code == 0);
    CHECK(std::filesystem::exists(folder.path() + "/asked"));
}

#else

TEST_CASE("What nvidia-imex-ctl says is read", "[doctor]") { FABRICMEM_SKIP("built without the tools"); }

#endif
