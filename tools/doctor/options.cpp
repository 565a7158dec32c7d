// SPDX-License-Identifier: Apache-2.0
// The command line: one table that is both the parser and the help text.
#include "doctor/options.hpp"

#include <array>
#include <string_view>

#include "common/arguments.hpp"
#include "common/text.hpp"

namespace doctor {
namespace {

using examples::formatted;
using examples::meaning_of;
using examples::number_of;
using examples::Word;
using examples::WrongOption;

constexpr std::array kDrivers{Word<DriverKind>{"cuda", DriverKind::cuda},
                              Word<DriverKind>{"emulated", DriverKind::emulated}};
constexpr std::array kExpectations{Word<Expectation>{"node", Expectation::node},
                                   Word<Expectation>{"multinode", Expectation::multinode}};
constexpr std::array kColours{Word<Colour>{"auto", Colour::automatic}, Word<Colour>{"always", Colour::always},
                              Word<Colour>{"never", Colour::never}};

std::string some_text(std::string_view text) {
    if (text.empty()) throw WrongOption("is empty");
    return std::string(text);
}

std::vector<std::string> split(std::string_view text) {
    std::vector<std::string> words;
    while (!text.empty()) {
        const std::string_view word = text.substr(0, text.find(','));
        words.emplace_back(word);
        text.remove_prefix(std::min(word.size() + 1, text.size()));
    }
    return words;
}

std::string joined(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : ",") + word;
    return text;
}

void meet(Options& options, Pair::Role role, std::string_view text) {
    if (options.pair.has_value()) throw WrongOption("it is either --listen or --connect, once");
    options.pair = Pair{.role = role, .endpoint = pingpong::endpoint_of(text, role == Pair::Role::listen ? 0 : 1)};
    // A bare port: at all addresses, of both families where the machine has both.
    if (text.find(':') == text.npos) options.pair->endpoint.host = role == Pair::Role::listen ? "::" : "";
    if (options.pair->endpoint.host.empty()) throw WrongOption(formatted("'{}' has no host", text));
}

Job& job_of(Options& options) { return options.job ? *options.job : options.job.emplace(); }

ChildTask& task_of(Options& options) { return options.child ? *options.child : options.child.emplace(); }

using Row = examples::OptionRow<Options>;
const std::array kRows{
    Row{"--driver", "cuda|emulated", "emulated: no GPU is looked at (default: cuda)",
        [](Options& options, std::string_view text) { options.driver = meaning_of(text, kDrivers); }},
    Row{"--scenario", "FILE|NAME", "what the emulated driver emulates (docs/emulator.md)",
        [](Options& options, std::string_view text) { options.scenario = some_text(text); }},
    Row{"--root", "DIR", "another /dev, /proc, /sys and /usr/bin than the machine's",
        [](Options& options, std::string_view text) { options.root = some_text(text); }},
    Row{"--expect", "node|multinode", "what has to work (default: what the platform is made for)",
        [](Options& options, std::string_view text) { options.expect = meaning_of(text, kExpectations); }},
    Row{"--time-limit", "SECONDS", "of each step (default: 10, and 30 for one that makes a context)",
        [](Options& options, std::string_view text) {
            options.time_limit = std::chrono::seconds(number_of(text, 1, 3600));
        }},
    Row{"--listen", "[HOST:]PORT", "waits for another doctor: each tries the other's memory (port 0: any)",
        [](Options& options, std::string_view text) { meet(options, Pair::Role::listen, text); }},
    Row{"--connect", "HOST:PORT", "goes to the one that listens there",
        [](Options& options, std::string_view text) { meet(options, Pair::Role::connect, text); }},
    Row{"--store", "URL", "of a whole job: dir:/path or redis://host:port, with --rank and --size",
        [](Options& options, std::string_view text) { job_of(options).store = some_text(text); }},
    Row{"--rank", "R", "of this process in the job",
        [](Options& options, std::string_view text) {
            job_of(options).rank = number_of<std::uint32_t>(text, 0, Job::kMostRanks - 1);
        }},
    Row{"--size", "N", "how many ranks the job has, 1 to 256",
        [](Options& options, std::string_view text) {
            job_of(options).size = number_of<std::uint32_t>(text, 1, Job::kMostRanks);
        }},
    Row{"--json", "", "one JSON document on stdout and nothing else (docs/doctor.schema.json)",
        [](Options& options, std::string_view) { options.json = true; }},
    Row{"-v", "", "all checks and all steps, not only what is not well",
        [](Options& options, std::string_view) { options.verbose = true; }},
    Row{"--explain", "ID|all", "what a check is about, and its cures: FM-CHANNEL-001",
        [](Options& options, std::string_view text) { options.explain = some_text(text); }},
    Row{"--color", "auto|always|never", "auto: on a terminal, unless NO_COLOR is set (default: auto)",
        [](Options& options, std::string_view text) { options.colour = meaning_of(text, kColours); }},
    Row{"--help", "", "this text", [](Options& options, std::string_view) { options.help = true; }},
    Row{"--version", "", "the version", [](Options& options, std::string_view) { options.version = true; }},
    // What a child is told; not for humans.
    Row{"--child", "", "", [](Options& options, std::string_view) { task_of(options); }},
    Row{"--export", "", "",
        [](Options& options, std::string_view) { task_of(options).part = ChildTask::Part::export_memory; }},
    Row{"--import", "", "",
        [](Options& options, std::string_view) { task_of(options).part = ChildTask::Part::import_memory; }},
    Row{"--done", "STEPS", "", [](Options& options, std::string_view text) { task_of(options).done = split(text); }},
    Row{"--without-nvml", "", "", [](Options& options, std::string_view) { task_of(options).without_nvml = true; }},
};

}  // namespace

std::string_view to_string(Expectation expectation) noexcept { return examples::word_of(expectation, kExpectations); }

Options parse_options(std::span<const std::string> arguments) {
    Options options;
    examples::apply_options(std::span<const Row>(kRows), arguments, options);
    if (!options.scenario.empty() && options.driver == DriverKind::cuda)
        throw WrongOption("--scenario: the real driver is what it is; with --driver emulated");
    if (const auto& job = options.job; job.has_value()) {
        if (options.pair.has_value()) throw WrongOption("--store: not with --listen or --connect");
        if (job->store.empty() || !job->rank.has_value() || !job->size.has_value())
            throw WrongOption("--store, --rank and --size: all of them or none");
        if (*job->rank >= *job->size)
            throw WrongOption(formatted("--rank: there is no rank {} of {}", *job->rank, *job->size));
    }
    return options;
}

std::string help_text() {
    return "fabricmem-doctor: whether this machine and this process can have fabric memory,\n"
           "and if not, why, and who can mend it. Changes nothing.\n\n" +
           examples::help_lines(std::span<const Row>(kRows)) +
           "\nExit code: 0 as expected, 1 it works but less than expected, 2 it does not work\n"
           "and can be mended, 3 this platform can't, 4 the doctor itself failed.\n";
}

std::vector<std::string> child_arguments(const Options& options, const ChildTask& task) {
    std::vector<std::string> arguments{"--child", "--driver", std::string(examples::word_of(options.driver, kDrivers))};
    if (!options.root.empty()) arguments.insert(arguments.end(), {"--root", options.root});
    if (!task.done.empty()) arguments.insert(arguments.end(), {"--done", joined(task.done)});
    if (task.part == ChildTask::Part::export_memory) arguments.emplace_back("--export");
    if (task.part == ChildTask::Part::import_memory) arguments.emplace_back("--import");
    if (task.without_nvml) arguments.emplace_back("--without-nvml");
    return arguments;
}

}  // namespace doctor
