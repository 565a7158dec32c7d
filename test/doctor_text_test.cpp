// SPDX-License-Identifier: Apache-2.0
// The doctor's words on a terminal: width, colours, commands that can be copied. No process, no driver.
#include <algorithm>
#include <string>
#include <vector>

#include "support/pingpong_program.hpp"
#include "support/test.hpp"

#if defined(FABRICMEM_DOCTOR)

#include "common/arguments.hpp"
#include "doctor/facts_json.hpp"
#include "doctor/options.hpp"
#include "doctor/report.hpp"
#include "support/doctor_facts.hpp"

using namespace fabricmem;
using namespace fabricmem::test;
using doctor::Detail;
using doctor::Expectation;
using doctor::Facts;
using doctor::Layout;
using doctor::Paint;

namespace {

std::string text_of(const Facts& facts, Detail detail, const Layout& layout) {
    const auto expected = doctor::expectation_of(facts, std::nullopt);
    const auto findings = doctor::evaluate(facts, expected);
    const auto verdict = doctor::judge(facts, findings, expected);
    return doctor::text_of({facts, findings, verdict}, detail, layout);
}

Facts without_channel() {
    Facts facts = failing_facts(ProbeRung::create, "FM-CHANNEL-001", "this process sees no IMEX channel node");
    facts.machine->channels.clear();
    return facts;
}

std::size_t widest(const std::string& text) {
    std::size_t most = 0;
    for (const std::string& line : lines_of(text)) most = std::max(most, line.size());
    return most;
}

std::string without_colours(std::string text) {
    for (std::size_t at = 0; (at = text.find('\x1b')) != text.npos;) text.erase(at, text.find('m', at) - at + 1);
    return text;
}

}  // namespace

TEST_CASE("Words are wrapped whole, and what follows is indented", "[doctor]") {
    CHECK(doctor::wrapped("head: ", "one two three four", 2, 14) == "head: one two\n  three four\n");
    CHECK(doctor::wrapped("", "aaaaaaaaaaaaaaaa b", 0, 8) == "aaaaaaaaaaaaaaaa\nb\n");
    CHECK(doctor::wrapped("", "", 0, 8) == "\n");
}

TEST_CASE("A command is broken only where it is longer than a line, and stays one that a shell takes", "[doctor]") {
    CHECK(doctor::wrapped("", "please run `a b c d`, now", 2, 20) == "please run\n  `a b c d`, now\n");
    CHECK(doctor::wrapped("", "run `aaaa bbbb 'cc dd' eeee` now", 2, 16) ==
          "run `aaaa bbbb \\\n  'cc dd' eeee`\n  now\n");
    CHECK(doctor::wrapped("", "`aaaaaa 'bbbb cccc' dd`", 0, 12) == "`aaaaaa \\\n'bbbb cccc' \\\ndd`\n");
    CHECK(doctor::wrapped("", "a lone ` is a word", 0, 9) == "a lone `\nis a word\n");
}

TEST_CASE("The first and the last line are the verdict, and between them is what is not well alone", "[doctor]") {
    const std::string well = text_of(good_facts(), Detail::what_is_not_well, {.width = 400});
    CHECK(lines_of(well) ==
          std::vector<std::string>{"fabric memory works on this node on devices 0-1 and host NUMA node 0 (driver "
                                   "580.159.04, CUDA 13.0); other nodes were not tried: the GPUs are in no multi-node "
                                   "NVLink domain"});
    const auto ill = lines_of(text_of(without_channel(), Detail::what_is_not_well, {.width = 400}));
    REQUIRE(ill.size() == 12);
    CHECK(contains(ill.front(), "fabric memory does not work here, and can be mended"));
    CHECK(ill.back() == ill.front());
    CHECK(ill[2] == "failed FM-CHANNEL-001: this process sees no IMEX channel node");
    CHECK(ill[3] == "  where: devices 0-1 and host NUMA node 0");
    CHECK(ill[5] == "  has to hold: there is an IMEX channel node");
    CHECK(ill[6] == "  The administrator can:");
    CHECK(contains(ill[8], "    container: hand it in"));
}

TEST_CASE("What is not known for want of NVML is not told once more each", "[doctor]") {
    Facts facts = good_facts();
    facts.nvml.reset();
    const std::string text = text_of(facts, Detail::what_is_not_well, {});
    CHECK(contains(text, "warning FM-NVML-001"));
    CHECK_FALSE(contains(text, "FM-FABRIC-005"));
}

TEST_CASE("No line is wider than the terminal, at 80 columns and at 40", "[doctor]") {
    for (const std::size_t width : {std::size_t{80}, std::size_t{40}}) {
        // At 40 columns some words are longer than a line: paths, and what stands in quotes.
        const std::size_t room = width == 80 ? 80 : 60;
        CHECK(widest(text_of(without_channel(), Detail::what_is_not_well, {.width = width})) <= room);
        CHECK(widest(text_of(domain_facts(), Detail::all, {.width = width})) <= room);
        CHECK(widest(doctor::explain("all", {.width = width})) <= room);
    }
}

TEST_CASE("Colours change no text and no width", "[doctor]") {
    for (const Facts& facts : {good_facts(), without_channel()}) {
        const std::string plain = text_of(facts, Detail::all, {});
        const std::string coloured = text_of(facts, Detail::all, {.paint = Paint::coloured});
        CHECK(plain.find('\x1b') == plain.npos);
        CHECK(coloured != plain);
        CHECK(without_colours(coloured) == plain);
    }
}

TEST_CASE("All is told with -v: every check, every step, the machine", "[doctor]") {
    Facts facts = domain_facts();
    facts.said = "a library's warning";
    const std::string text = text_of(facts, Detail::all, {.width = 400});
    for (const Check& check : all_checks()) CHECK(contains(text, std::string(check.id)));
    for (const char* const part :
         {"passed   tear_down", "kernel module 580.159.04, ImexChannelCount 2048, major number of channels 234",
          "cluster 01020300000000000000000000000000 clique 7, health 0xaa: healthy, recovery action: none", "CUDA 13.0",
          "a library's warning"})
        CHECK(contains(text, part));
}

TEST_CASE("A check is explained by its id, and an unknown id is answered with those that there are", "[doctor]") {
    const std::string text = doctor::explain("FM-CHANNEL-004", {});
    CHECK(text.starts_with("FM-CHANNEL-004: the channel node's major number is the driver's\n"));
    CHECK(contains(text, "kind of error: not_permitted"));
    CHECK(contains(text, "Kubernetes: delete the pod"));
    const std::string all = doctor::explain("all", {});
    for (const Check& check : all_checks()) CHECK(contains(all, std::string(check.id) + ": "));
    try {
        (void)doctor::explain("FM-CHANNEL-1", {});
        FAIL("it was explained");
    } catch (const examples::WrongOption& wrong) {
        CHECK(contains(wrong.what(), "FM-CHANNEL-001"));
        CHECK(contains(wrong.what(), "FM-NVML-002"));
    }
}

TEST_CASE("What a child tells arrives as it was told", "[doctor]") {
    Facts told = domain_facts(3);
    told.machine->channels.push_back({.number = 3, .open_errno = 13, .major_matches = false});
    told.machine->visible_devices = "";
    told.machine->gpu_on_pci = true;
    told.devices.front().uuid = kSomeCluster;
    told.devices.front().host_memory_travels = false;
    told.nvml->devices.front().recovery_action.reset();
    told.nvml->devices.front().fabric->health_mask.reset();
    told.nvml->devices.back().fabric.reset();
    told.driver->why_not =
        doctor::Failure{.kind = "system", .code = 802, .text = "\"quoted\"\n", .check = "FM-FABRIC-004"};
    step_of(told.places.front(), ProbeRung::touch) = {
        .rung = ProbeRung::touch, .state = RungState::failed, .facts = "f", .check = "c", .cause = "\xff", .cure = "d"};

    Facts heard;
    const auto hear = [&](const std::string& line) {
        CHECK(line.find('\n') == line.npos);
        return doctor::take_line(line, heard);
    };
    CHECK(doctor::begun_step(doctor::begin_line("device 0")) == "device 0");
    (void)hear(doctor::machine_line(*told.machine));
    (void)hear(doctor::nvml_line(told.nvml));
    (void)hear(doctor::driver_line(*told.driver));
    (void)hear(doctor::devices_line(told.devices, told.to_try));
    for (const auto& place : told.places) (void)hear(doctor::place_line(place));
    CHECK(hear(doctor::end_line()));

    CHECK(heard.machine->channels.back().open_errno == 13);
    CHECK_FALSE(heard.machine->channels.back().major_matches);
    CHECK(heard.machine->visible_devices == "");
    CHECK(heard.machine->gpu_on_pci == true);
    CHECK(heard.machine->kernel_module->imex_channel_major == 234U);
    CHECK(heard.nvml->devices.front().fabric->cluster_uuid == kSomeCluster);
    CHECK_FALSE(heard.nvml->devices.front().fabric->health_mask.has_value());
    CHECK(heard.nvml->devices[1].fabric->health_mask == 0xaaU);
    CHECK(heard.nvml->devices[1].recovery_action == 0U);
    CHECK_FALSE(heard.nvml->devices.back().fabric.has_value());
    CHECK_FALSE(heard.nvml->devices.front().recovery_action.has_value());
    CHECK(heard.driver->why_not->text == "\"quoted\"\n");
    CHECK(heard.devices.front().uuid == kSomeCluster);
    CHECK(heard.devices.front().host_memory_travels == false);
    CHECK(heard.to_try == told.to_try);
    REQUIRE(heard.places.size() == told.places.size());
    const ProbeStep& step = step_of(heard.places.front(), ProbeRung::touch);
    CHECK(step.state == RungState::failed);
    CHECK(step.check == "c");
    CHECK(step.cause == "\xef\xbf\xbd");
    CHECK(heard.places.back().place == Location::host_numa(0));
}

TEST_CASE("A line that no child says is no harm", "[doctor]") {
    Facts facts;
    for (const char* const line : {"", "nonsense", "[1]", "{\"machine\":7}", "{\"probe\":{\"place\":[]}}",
                                   "{\"begin\":3}", "{\"nvml\":{\"devices\":null}}", "null", "{\"end\""}) {
        CHECK_FALSE(doctor::take_line(line, facts));
        CHECK(doctor::begun_step(line) == "");
    }
    CHECK_FALSE(facts.machine.has_value());
    CHECK(facts.places.empty());
}

#else

TEST_CASE("Words are wrapped whole", "[doctor]") { FABRICMEM_SKIP("built without the tools"); }

#endif
