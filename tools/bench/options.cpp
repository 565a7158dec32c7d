// SPDX-License-Identifier: Apache-2.0
// The command line of fabricmem-bench.
#include "options.hpp"

#include <array>

#include "common/arguments.hpp"

namespace bench {
namespace {

using examples::number_of;
using examples::Word;

constexpr std::array kNames{
    Word<std::string_view>{"lifecycle", "lifecycle"}, Word<std::string_view>{"import", "import"},
    Word<std::string_view>{"blob", "blob"},           Word<std::string_view>{"pingpong", "pingpong"},
    Word<std::string_view>{"allocate", "allocate"},   Word<std::string_view>{"arena", "arena"},
    Word<std::string_view>{"cache", "cache"},         Word<std::string_view>{"peers", "peers"},
    Word<std::string_view>{"flags", "flags"},         Word<std::string_view>{"bandwidth", "bandwidth"}};

constexpr std::array kContexts{Word<Context>{"held", Context::held}, Word<Context>{"none", Context::none}};

constexpr std::array kPins{Word<Pin>{"yes", Pin::yes}, Word<Pin>{"no", Pin::no}};

using Row = examples::OptionRow<Options>;
const std::array kRows{
    Row{"--driver", "auto|cuda|emulated", "auto: the real driver where it has fabric memory, else the emulated one",
        [](Options& options, std::string_view text) { options.driver = examples::driver_choice_of(text); }},
    Row{"--device", "N", "the GPU, of both processes (default: 0)",
        [](Options& options, std::string_view text) { options.device = number_of(text, 0, 1023); }},
    Row{"--context", "held|none", "whether the processes hold a context of the GPU (default: held)",
        [](Options& options, std::string_view text) { options.context = examples::meaning_of(text, kContexts); }},
    Row{"--only", "NAME", "lifecycle, allocate, import, peers, cache, arena, blob, flags, bandwidth or pingpong",
        [](Options& options, std::string_view text) { options.only = examples::meaning_of(text, kNames); }},
    Row{"--pin", "yes|no", "whether each process stays on CPUs of its own (default: yes, where there are two)",
        [](Options& options, std::string_view text) { options.pin = examples::meaning_of(text, kPins); }},
    Row{"--no-pin", "", "as --pin no", [](Options& options, std::string_view) { options.pin = Pin::no; }},
    Row{"--nccl", "FILE", "libnccl.so.2, for ncclMemAlloc (default: $FABRICMEM_NCCL, or where the loader finds it)",
        [](Options& options, std::string_view text) { options.nccl = text; }},
    Row{"--rounds", "N", "rounds of a run, fewer of what takes long (default: 1000)",
        [](Options& options, std::string_view text) { options.rounds = number_of<std::uint32_t>(text, 1, 1'000'000); }},
    Row{"--runs", "N", "runs; each gives one median (default: 5)",
        [](Options& options, std::string_view text) { options.runs = number_of<std::uint32_t>(text, 1, 100); }},
    Row{"--json", "[FILE]", "one JSON document, on stdout or into a file",
        [](Options& options, std::string_view text) {
            options.json = true;
            options.json_file = text;
        }},
    Row{"--help", "", "this text", [](Options& options, std::string_view) { options.help = true; }},
    // What is added for the second process; not for humans.
    Row{"--cpus", "LIST", "", [](Options& options, std::string_view text) { options.cpus = text; }},
    Row{"--connect-port", "PORT", "",
        [](Options& options, std::string_view text) {
            options.connect_port = number_of<std::uint16_t>(text, 1, 65'535);
        }},
};

}  // namespace

Options parse_options(std::span<const std::string> arguments) {
    Options options;
    examples::apply_options(std::span<const Row>(kRows), arguments, options);
    return options;
}

std::string help_text() {
    return "fabricmem-bench: what the library costs beside the driver calls that it makes, in turns in one "
           "process.\n\n" +
           examples::help_lines(std::span<const Row>(kRows)) +
           "\nExit code: 0 measured, 1 it failed, 2 a wrong option.\n";
}

}  // namespace bench
