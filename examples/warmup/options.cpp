// SPDX-License-Identifier: Apache-2.0
// The command line: one table that is both the parser and the help text.
#include "warmup/options.hpp"

#include <array>
#include <limits>
#include <utility>

#include "common/arguments.hpp"
#include "common/text.hpp"

namespace warmup {
namespace {

using examples::formatted;
using examples::meaning_of;
using examples::number_of;
using examples::Word;
using examples::WrongOption;
using fabricmem::ProofPolicy;
using fabricmem::SlotPlacement;

constexpr std::array kPlacements{Word<SlotPlacement>{"host", SlotPlacement::host_first},
                                 Word<SlotPlacement>{"device", SlotPlacement::device}};
constexpr std::array kPolicies{Word<ProofPolicy>{"verify", ProofPolicy::verify},
                               Word<ProofPolicy>{"trust", ProofPolicy::trust}};
constexpr std::array kMoments{Word<Kill::Moment>{"hello", Kill::Moment::hello}};

constexpr std::uint32_t kMostRanks = 256;  // two descriptors each, of the 1024 that a process has
constexpr int kMostDevices = 1023;

fabricmem::Id128 job_of(std::string_view text) {
    fabricmem::Id128 job;
    if (text.size() != 2 * job.bytes.size()) throw WrongOption(formatted("'{}' has not 32 digits", text));
    for (std::size_t i = 0; i < job.bytes.size(); ++i) {
        const std::string_view digits = text.substr(2 * i, 2);
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + 2, job.bytes[i], 16);
        if (error != std::errc{} || end != digits.data() + 2)
            throw WrongOption(formatted("'{}' is not hexadecimal", text));
    }
    return job;
}

Kill kill_of(std::string_view text) {
    Kill kill;
    const std::size_t at = text.find('@');
    kill.rank = number_of<std::uint32_t>(text.substr(0, at), 0, kMostRanks - 1);
    if (at != text.npos) kill.moment = meaning_of(text.substr(at + 1), kMoments);
    return kill;
}

std::string not_empty(std::string_view text) {
    if (text.empty()) throw WrongOption("is empty");
    return std::string(text);
}

RankTask& task_of(Options& options) { return options.task ? *options.task : options.task.emplace(); }

using Row = examples::OptionRow<Options>;
const std::array kRows{
    Row{"--ranks", "N", "processes, 1 to 256 (default: 4)",
        [](Options& options, std::string_view text) { options.ranks = number_of<std::uint32_t>(text, 1, kMostRanks); }},
    Row{"--driver", "auto|cuda|emulated", "auto: the real driver where it has fabric memory, else the emulated one",
        [](Options& options, std::string_view text) { options.driver = examples::driver_choice_of(text); }},
    Row{"--scenario", "FILE|NAME",
        "what the emulated driver emulates; the ranks go round its nodes (default: FABRICMEM_EMULATOR, else "
        "gb200-nvl72)",
        [](Options& options, std::string_view text) { options.scenario = not_empty(text); }},
    Row{"--store", "URL", "how they find each other: dir:/path or redis://host:port (default: a fresh directory)",
        [](Options& options, std::string_view text) { options.store = not_empty(text); }},
    Row{"--device", "N", "the GPU of every rank (default: all GPUs of the node, in turns)",
        [](Options& options, std::string_view text) { options.device = number_of(text, 0, kMostDevices); }},
    Row{"--placement", "host|device",
        "host: slots on host memory where both sides reach it, besides the device's; device: there alone (default: "
        "host)",
        [](Options& options, std::string_view text) { options.placement = meaning_of(text, kPlacements); }},
    Row{"--policy", "verify|trust",
        "verify: bytes have to travel both ways; trust: an import is enough (default: verify)",
        [](Options& options, std::string_view text) { options.policy = meaning_of(text, kPolicies); }},
    Row{"--deadline", "SECONDS", "what is not connected by then is not (default: 30)",
        [](Options& options, std::string_view text) {
            options.deadline = std::chrono::seconds(number_of(text, 1, 86'400));
        }},
    Row{"--kill", "RANK[@hello]", "kills that rank within its first second, or once its hello is out",
        [](Options& options, std::string_view text) { options.kill = kill_of(text); }},
    Row{"--json", "", "one JSON document on stdout and nothing else",
        [](Options& options, std::string_view) { options.json = true; }},
    Row{"--help", "", "this text", [](Options& options, std::string_view) { options.help = true; }},
    Row{"--version", "", "the version", [](Options& options, std::string_view) { options.version = true; }},
    // What a rank is told; not for humans.
    Row{"--rank", "N", "",
        [](Options& options, std::string_view text) {
            task_of(options).rank = number_of<std::uint32_t>(text, 0, kMostRanks - 1);
        }},
    Row{"--job", "ID", "", [](Options& options, std::string_view text) { task_of(options).job = job_of(text); }},
    Row{"--until", "NS", "",
        [](Options& options, std::string_view text) {
            const std::chrono::nanoseconds time(
                number_of<std::int64_t>(text, 0, std::numeric_limits<std::int64_t>::max()));
            task_of(options).until = std::chrono::steady_clock::time_point(time);
        }},
};

}  // namespace

std::string_view to_string(SlotPlacement placement) noexcept { return examples::word_of(placement, kPlacements); }
std::string_view to_string(ProofPolicy policy) noexcept { return examples::word_of(policy, kPolicies); }

Options parse_options(std::span<const std::string> arguments) {
    Options options;
    examples::apply_options(std::span<const Row>(kRows), arguments, options);
    if (options.task) {
        options.task->device = options.device.value_or(0);
        return options;
    }
    if (options.kill && options.kill->rank >= options.ranks)
        throw WrongOption(formatted("--kill: there is no rank {} of {}", options.kill->rank, options.ranks));
    if (!options.scenario.empty() && options.driver == examples::DriverChoice::cuda)
        throw WrongOption("--scenario: the real driver is what it is");
    return options;
}

std::string help_text() {
    return "fabricmem-warmup: processes meet through a store, prove to each other that bytes travel both ways through\n"
           "fabric memory, and tell who is connected to whom, how fast and by which memory, or why not.\n\n" +
           examples::help_lines(std::span<const Row>(kRows)) +
           "\nExit code: 0 all are connected and nothing was left behind, 1 not, 2 a wrong option.\n";
}

std::vector<std::string> rank_arguments(const Options& options, std::string_view driver, std::string_view store,
                                        const RankTask& task) {
    const auto text = [](std::string_view word) { return std::string(word); };
    const std::chrono::nanoseconds until = task.until.time_since_epoch();
    return {"--rank",      std::to_string(task.rank),
            "--ranks",     std::to_string(options.ranks),
            "--job",       fabricmem::to_string(task.job),
            "--until",     std::to_string(until.count()),
            "--driver",    text(driver),
            "--store",     text(store),
            "--device",    std::to_string(task.device),
            "--placement", text(to_string(options.placement)),
            "--policy",    text(to_string(options.policy)),
            "--deadline",  std::to_string(options.deadline.count())};
}

}  // namespace warmup
