// SPDX-License-Identifier: Apache-2.0
// Words into numbers, and numbers out of a seed.
#include "soak/soak_options.hpp"

#include <charconv>
#include <cstdio>
#include <random>

namespace fabricmem::soak {

namespace {

bool to_number(const std::string& text, std::uint64_t* number) {
    const char* const end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, *number);
    return error == std::errc() && stopped == end;
}

// splitmix64: the same numbers with every standard library.
class Chance {
public:
    explicit Chance(std::uint64_t seed) : state_(seed) {}
    std::uint64_t below(std::uint64_t limit) { return next() % limit; }
    double part() { return static_cast<double>(next() >> 11) * 0x1p-53; }

private:
    std::uint64_t next() {
        std::uint64_t value = state_ += 0x9e3779b97f4a7c15U;
        value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
        value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
        return value ^ (value >> 31);
    }
    std::uint64_t state_;
};

bool refuse(const std::string& what) {
    std::fprintf(stderr, "fabricmem_soak: %s; --help tells more\n", what.c_str());
    return false;
}

bool take(Options* options, const std::string& name, const std::string& value) {
    if (name == "--rounds") return to_number(value, &options->rounds) || refuse("--rounds " + value);
    if (name == "--seconds") return to_number(value, &options->seconds) || refuse("--seconds " + value);
    if (name == "--seed") return to_number(value, &options->seed) || refuse("--seed " + value);
    if (name == "--user") return to_number(value, &options->user) || refuse("--user " + value);
    if (name != "--driver") return refuse("no option " + name);
    options->driver = value;
    return value == "emulated" || value == "cuda" || refuse("--driver " + value);
}

}  // namespace

const char* usage_text() {
    return "fabricmem_soak [--rounds N] [--seconds N] [--seed N] [--driver emulated|cuda] [--user NUMBER]\n"
           "Kills exporters and importers of fabric memory at random moments and looks at what is left of the others.\n"
           "Without --rounds and --seconds: 2000 rounds, on the real driver 100. A seed gives the same choices again.\n"
           "--user, of root: the processes run as that user, who sees less of one that is being killed.\n"
           "Ends with 0 where all was as it has to be, with 1 at the first thing that was not.\n";
}

std::optional<Options> parse(const std::vector<std::string>& arguments) {
    Options options;
    options.seed = std::random_device{}();
    for (std::size_t i = 0; i < arguments.size(); i += 2) {
        if (arguments[i] == "--help") {
            options.help = true;
            return options;
        }
        if (i + 1 == arguments.size()) {
            refuse(arguments[i] + " without a value");
            return std::nullopt;
        }
        if (!take(&options, arguments[i], arguments[i + 1])) return std::nullopt;
    }
    if (options.rounds == 0 && options.seconds == 0) options.rounds = options.driver == "cuda" ? 100 : 2000;
    return options;
}

Choices choose(std::uint64_t seed, std::uint64_t round) {
    Chance chance(seed * 1'000'003 + round);
    Choices choices;
    choices.exporter_dies = chance.below(2) == 0;
    choices.place = chance.below(2) == 0 ? "device" : "host";
    choices.lives = static_cast<unsigned int>(1 + chance.below(3));
    choices.race = chance.below(2) == 0;
    choices.moment = chance.part();
    return choices;
}

std::string to_string(const Choices& choices) {
    char moment[32];
    std::snprintf(moment, sizeof moment, "%.3f", choices.moment);
    return std::string(choices.exporter_dies ? "exporter" : "importer") + " dies, " + choices.place + " memory, " +
           std::to_string(choices.lives) + " lives, " + (choices.race ? "with" : "without") + " a race, moment " +
           moment;
}

}  // namespace fabricmem::soak
