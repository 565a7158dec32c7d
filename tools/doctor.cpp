// SPDX-License-Identifier: Apache-2.0
// fabricmem-doctor: can this machine, and this process, do fabric memory, and if not, what is the cure.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include <fabricmem/emulated_scenario.hpp>
#include <fabricmem/error.hpp>

#include "common/arguments.hpp"
#include "common/text.hpp"
#include "doctor/child.hpp"
#include "doctor/examination.hpp"
#include "doctor/imex_ctl.hpp"
#include "doctor/meeting.hpp"
#include "doctor/options.hpp"
#include "doctor/peer_children.hpp"
#include "doctor/report.hpp"
#include "doctor/terminal.hpp"
#include "doctor/version.hpp"

namespace doctor {
namespace {

using examples::print;

/// A scenario that is none is the caller's mistake, not the machine's.
void check_scenario(const Options& options) {
    if (options.scenario.empty()) return;
    for (const std::string& name : fabricmem::Scenario::ready_made_names()) {
        if (name == options.scenario) return;
    }
    try {
        (void)fabricmem::Scenario::from_file(options.scenario);
    } catch (const fabricmem::Error& error) {
        throw examples::WrongOption(examples::formatted("--scenario: {}", error.what()));
    }
}

/// What the emulated driver refuses without a CUresult is the caller's mistake, not the emulated machine's fault.
void check_emulator(const Facts& facts) {
    if (!facts.emulated || !facts.driver.has_value() || !facts.driver->why_not.has_value()) return;
    const Failure& failure = *facts.driver->why_not;
    if (failure.code == 0) throw DoctorFailed(failure.text + (failure.cause.empty() ? "" : ": " + failure.cause));
}

// It is asked where it matters, and never of this machine for an emulated one.
ImexFacts imex_of(const Options& options, const Facts& facts) {
    constexpr std::chrono::milliseconds kForImex{5000};
    ImexFacts imex;
    if (facts.emulated && options.root.empty()) {
        imex.detail = "not asked: the driver is emulated";
    } else if (!has_multinode_domain(facts) && !options.verbose) {
        imex.detail = "not asked: the GPUs are in no multi-node NVLink domain";
    } else {
        const std::chrono::milliseconds limit = options.time_limit.value_or(std::chrono::seconds(10));
        return ask_imex(options.root, std::min(limit, kForImex));
    }
    return imex;
}

int examine_and_report(const Options& options) {
    const Tell tell = [&](const std::string& step) {
        if (options.verbose) print(stderr, "fabricmem-doctor: {}\n", step);
    };
    std::optional<PairMeeting> pair;
    if (options.pair.has_value()) pair.emplace(options);  // the peer may connect from now on
    Facts facts = examine(options, tell);
    check_emulator(facts);
    facts.imex = imex_of(options, facts);
    if (pair.has_value()) facts.meeting = pair->run(tell);
    if (options.job.has_value()) facts.meeting = run_job(options, tell);
    const Expectation expected = expectation_of(facts, options.expect);
    const std::vector<Finding> findings = evaluate(facts, expected);
    const Verdict verdict = judge(facts, findings, expected);
    const Report report{facts, findings, verdict};
    const Detail detail = options.verbose ? Detail::all : Detail::what_is_not_well;
    if (options.job.has_value() && *options.job->rank != 0 && !options.verbose && !options.json)
        return verdict.exit_code();  // rank 0 does the talking
    print(stdout, "{}", options.json ? json_of(report) : text_of(report, detail, layout_for_stdout(options.colour)));
    return verdict.exit_code();
}

int run_part(const Options& options) {
    switch (options.child->part) {
        case ChildTask::Part::examine: return run_child(options);
        case ChildTask::Part::export_memory: return run_exporter(options);
        case ChildTask::Part::import_memory: return run_importer(options);
    }
    return static_cast<int>(Outcome::doctor_failed);
}

int run(const Options& options) {
    if (options.help) {
        print(stdout, "{}", help_text());
    } else if (options.version) {
        print(stdout, "fabricmem-doctor {}\n", version_text());
    } else if (!options.explain.empty()) {
        print(stdout, "{}", explain(options.explain, layout_for_stdout(options.colour)));
    } else if (options.child.has_value()) {
        return run_part(options);
    } else {
        check_scenario(options);
        return examine_and_report(options);
    }
    return 0;
}

}  // namespace
}  // namespace doctor

int main(int argc, char** argv) {
    constexpr int kFailed = static_cast<int>(doctor::Outcome::doctor_failed);
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    try {
        return doctor::run(doctor::parse_options(arguments));
    } catch (const examples::WrongOption& wrong) {
        examples::print(stderr, "fabricmem-doctor: {} (see --help)\n", wrong.what());
    } catch (const std::exception& error) {
        examples::print(stderr, "fabricmem-doctor: error: {}\n", error.what());
    }
    return kFailed;
}
