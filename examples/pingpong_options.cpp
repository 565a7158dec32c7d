// SPDX-License-Identifier: Apache-2.0
// The command line of fabricmem-pingpong: one table that is both the parser and the help text.
#include "pingpong_options.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "common/text.hpp"

namespace pingpong {
namespace {

constexpr std::array kModes{Word<Mode>{"copy", Mode::copy}, Word<Mode>{"stream", Mode::stream},
                            Word<Mode>{"cpu", Mode::cpu}};
constexpr std::array kPlaces{Word<Place>{"device", Place::device}, Word<Place>{"host", Place::host}};

constexpr std::size_t kLargestSize = std::size_t{4} << 30;
constexpr std::size_t kMostSizes = 1000;  // the list travels in a message

/// "64", "4K", "16M", "1G".
std::size_t size_of(std::string_view text) {
    constexpr std::string_view kUnits = "KMG";
    std::string_view digits = text;
    std::size_t unit = 1;
    if (const std::size_t found = text.empty() ? kUnits.npos : kUnits.find(text.back()); found != kUnits.npos) {
        unit = std::size_t{1} << (10 * (found + 1));
        digits.remove_suffix(1);
    }
    try {
        return number_of<std::size_t>(digits, 1, kLargestSize / unit) * unit;
    } catch (const WrongOption&) {
        throw WrongOption(formatted("'{}' is not a size from 1 to 4G, as 64, 4K or 16M", text));
    }
}

std::vector<std::size_t> sizes_of(std::string_view text) {
    std::vector<std::size_t> sizes;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        sizes.push_back(size_of(text.substr(begin, end - begin)));
        begin = end + 1;
    }
    if (sizes.size() > kMostSizes) throw WrongOption(formatted("more than {} sizes", kMostSizes));
    return sizes;
}

/// The options, and what was said where they can't tell it from a default.
struct Parsed {
    Options options{};
    std::optional<Place> location{};
    std::optional<int> peer_device{};
};

void meet(Options& options, Role role, Endpoint endpoint) {
    if (options.role != Role::start_peer && options.role != role)
        throw WrongOption("it is either --listen or --connect");
    options.role = role;
    options.endpoint = std::move(endpoint);
}

constexpr int kMostDevices = 1023;
constexpr std::uint32_t kMostRounds = 100'000'000;  // of all sizes together: rounds have 32-bit numbers

using Row = OptionRow<Parsed>;
const std::array kRows{
    Row{"--location", "device|host", "where the memory is (default: device; with --mode cpu: host)",
        [](Parsed& parsed, std::string_view text) { parsed.location = meaning_of(text, kPlaces); }},
    Row{"--mode", "copy|stream|cpu",
        "copy: host-issued copies; stream: write-value and wait-value; cpu: loads and stores (default: stream)",
        [](Parsed& parsed, std::string_view text) { parsed.options.mode = meaning_of(text, kModes); }},
    Row{"--driver", "auto|cuda|emulated", "auto: the real driver where it has fabric memory, else the emulated one",
        [](Parsed& parsed, std::string_view text) { parsed.options.driver = driver_choice_of(text); }},
    Row{"--device", "N", "this side's GPU (default: 0)",
        [](Parsed& parsed, std::string_view text) { parsed.options.device = number_of(text, 0, kMostDevices); }},
    Row{"--peer-device", "N", "the GPU of the peer that is started here (default: as --device)",
        [](Parsed& parsed, std::string_view text) { parsed.peer_device = number_of(text, 0, kMostDevices); }},
    Row{"--sizes", "LIST", "bytes that travel, as 4,64,4K,1M (default: 4 to 16M)",
        [](Parsed& parsed, std::string_view text) { parsed.options.sizes = sizes_of(text); }},
    Row{"--iterations", "N", "measured rounds for each size (default: 1000, fewer for large sizes)",
        [](Parsed& parsed, std::string_view text) {
            parsed.options.iterations = number_of<std::uint32_t>(text, 1, kMostRounds);
        }},
    Row{"--warmup", "N", "rounds for each size before those (default: a tenth of them)",
        [](Parsed& parsed, std::string_view text) {
            parsed.options.warmup = number_of<std::uint32_t>(text, 0, kMostRounds);
        }},
    Row{"--listen", "[HOST:]PORT", "wait for a peer that is started by hand; port 0: any (default host: 127.0.0.1)",
        [](Parsed& parsed, std::string_view text) { meet(parsed.options, Role::listen, endpoint_of(text, 0)); }},
    Row{"--connect", "HOST:PORT", "be the peer of a fabricmem-pingpong that listens; give both the same options",
        [](Parsed& parsed, std::string_view text) { meet(parsed.options, Role::connect, endpoint_of(text, 1)); }},
    Row{"--timeout", "SECONDS", "give up a wait for the peer or the GPU after this long (default: 60)",
        [](Parsed& parsed, std::string_view text) {
            parsed.options.timeout = std::chrono::seconds(number_of(text, 1, 86'400));
        }},
    Row{"--json", "", "one JSON document on stdout and nothing else",
        [](Parsed& parsed, std::string_view) { parsed.options.json = true; }},
    Row{"--verbose", "", "both process ids on stderr",
        [](Parsed& parsed, std::string_view) { parsed.options.verbose = true; }},
    Row{"--help", "", "this text", [](Parsed& parsed, std::string_view) { parsed.options.help = true; }},
    Row{"--version", "", "the version", [](Parsed& parsed, std::string_view) { parsed.options.version = true; }},
    // What is added for a peer that is started here; not for humans.
    Row{"--spawned", "", "", [](Parsed& parsed, std::string_view) { parsed.options.spawned = true; }},
};

Options settle(Parsed parsed) {
    Options& options = parsed.options;
    options.location = parsed.location.value_or(options.mode == Mode::cpu ? Place::host : Place::device);
    if (options.mode == Mode::cpu && options.location == Place::device) {
        throw WrongOption("--mode cpu: the CPU can't load and store device memory: use --location host");
    }
    if (parsed.peer_device && options.role != Role::start_peer) {
        throw WrongOption("--peer-device: not with --listen or --connect: give the peer its own --device");
    }
    options.peer_device = parsed.peer_device.value_or(options.device);
    if (options.sizes.empty()) options.sizes = {4, 64, 1024, 4096, 64 << 10, 1 << 20, 16 << 20};
    std::uint64_t rounds = 0;
    for (const std::size_t bytes : options.sizes) {
        rounds += std::uint64_t{options.iterations_for(bytes)} + options.warmup_for(bytes);
    }
    if (rounds > kMostRounds) throw WrongOption(formatted("--iterations: more than {} rounds in all", kMostRounds));
    return std::move(options);
}

}  // namespace

Endpoint endpoint_of(std::string_view text, std::uint16_t least_port) {
    Endpoint endpoint;
    const std::size_t colon = text.rfind(':');
    if (colon != text.npos) {
        std::string_view host = text.substr(0, colon);
        if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
        if (host.empty()) throw WrongOption(formatted("'{}' has no host before its colon", text));
        endpoint.host = host;
        text.remove_prefix(colon + 1);
    }
    endpoint.port = number_of<std::uint16_t>(text, least_port, std::numeric_limits<std::uint16_t>::max());
    return endpoint;
}

std::string_view to_string(Mode mode) noexcept { return word_of(mode, kModes); }
std::string_view to_string(Place place) noexcept { return word_of(place, kPlaces); }

std::size_t Options::largest_bytes() const noexcept { return *std::max_element(sizes.begin(), sizes.end()); }

std::uint32_t Options::iterations_for(std::size_t bytes) const noexcept {
    constexpr std::size_t kBytesInAll = 256 << 20;
    return iterations.value_or(static_cast<std::uint32_t>(std::clamp<std::size_t>(kBytesInAll / bytes, 10, 1000)));
}

std::uint32_t Options::warmup_for(std::size_t bytes) const noexcept {
    return warmup.value_or(std::max<std::uint32_t>(iterations_for(bytes) / 10, 2));
}

Options parse_options(std::span<const std::string> arguments) {
    Parsed parsed;
    apply_options(std::span<const Row>(kRows), arguments, parsed);
    return settle(std::move(parsed));
}

std::string help_text() {
    return "fabricmem-pingpong: two processes send bytes to and fro through fabric memory, check every byte and tell\n"
           "how long a round trip takes. Without --listen and --connect it starts its own peer.\n\n" +
           help_lines(std::span<const Row>(kRows)) +
           "\nExit code: 0 every byte was right, 1 it failed, 2 a wrong option.\n";
}

std::string sizes_text(const std::vector<std::size_t>& sizes) {
    std::string text;
    for (const std::size_t size : sizes) {
        if (!text.empty()) text += ',';
        text += std::to_string(size);
    }
    return text;
}

std::vector<std::string> peer_arguments(const Options& options, std::string_view driver,
                                        const Endpoint& meeting_place) {
    std::vector<std::string> arguments{
        "--spawned",
        "--connect",
        formatted("{}:{}", meeting_place.host, meeting_place.port),
        "--driver",
        std::string(driver),
        "--mode",
        std::string(to_string(options.mode)),
        "--location",
        std::string(to_string(options.location)),
        "--device",
        std::to_string(options.peer_device),
        "--sizes",
        sizes_text(options.sizes),
        "--timeout",
        std::to_string(options.timeout.count()),
    };
    const auto add = [&](std::string_view name, const std::optional<std::uint32_t>& value) {
        if (!value) return;
        arguments.emplace_back(name);
        arguments.push_back(std::to_string(*value));
    };
    add("--iterations", options.iterations);
    add("--warmup", options.warmup);
    return arguments;
}

}  // namespace pingpong
