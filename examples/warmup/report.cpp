// SPDX-License-Identifier: Apache-2.0
#include "warmup/report.hpp"

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <utility>

#include <fabricmem/version.hpp>

#include "common/text.hpp"

namespace warmup {
namespace {

using examples::formatted;
using examples::print;
using Json = nlohmann::ordered_json;

constexpr const char* kProgram = "fabricmem-warmup";
constexpr std::uint32_t kMostRanksWithTimes = 16;  // in the matrix; beyond, a cell is one character
constexpr std::size_t kLongestText = 600;          // of a cause, for humans

/// Error texts may have been written by others.
std::string one_line(std::string text) {
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text;
}

std::string cut(const std::string& text) {
    return text.size() <= kLongestText ? text : text.substr(0, kLongestText) + " ...";
}

char letter_of(std::size_t cause) { return cause < 26 ? static_cast<char>('A' + cause) : '!'; }

char symbol_of(const Cell& cell) {
    switch (cell.state) {
        case Cell::State::self: return '.';
        case Cell::State::both: return '*';
        case Cell::State::device: return 'd';
        case Cell::State::trusted: return 't';
        case Cell::State::unconnected: return letter_of(cell.cause);
        case Cell::State::unknown: break;
    }
    return '?';
}

void print_with_times(const Matrix& matrix) {
    print(stdout, "     ");
    for (std::uint32_t to = 0; to < matrix.ranks(); ++to) print(stdout, "{:>8}", to);
    print(stdout, "\n");
    for (std::uint32_t from = 0; from < matrix.ranks(); ++from) {
        print(stdout, "{:>5}", from);
        for (std::uint32_t to = 0; to < matrix.ranks(); ++to) {
            const Cell& cell = matrix.at(from, to);
            print(stdout, "{:>7}{}", cell.is_connected() ? formatted("{:.1f}", cell.ms) : std::string(),
                  symbol_of(cell));
        }
        print(stdout, "\n");
    }
}

void print_compact(const Matrix& matrix) {
    for (std::uint32_t unit = matrix.ranks() > 100 ? 100 : 10; unit > 0; unit /= 10) {
        std::string line;
        for (std::uint32_t to = 0; to < matrix.ranks(); ++to)
            line += unit == 1 || to % 10 == 0 ? static_cast<char>('0' + to / unit % 10) : ' ';
        print(stdout, "      {}{}\n", line, unit == 1 ? "  slowest, ms" : "");
    }
    for (std::uint32_t from = 0; from < matrix.ranks(); ++from) {
        std::string line;
        double slowest_ms = -1;
        for (std::uint32_t to = 0; to < matrix.ranks(); ++to) {
            const Cell& cell = matrix.at(from, to);
            line += symbol_of(cell);
            if (cell.is_connected()) slowest_ms = std::max(slowest_ms, cell.ms);
        }
        print(stdout, "{:>5} {}  {}\n", from, line,
              slowest_ms < 0 ? std::string("-") : formatted("{:.1f}", slowest_ms));
    }
}

Json head(const Options& options) {
    const fabricmem::Version version = fabricmem::library_version();
    return {{"program", kProgram},
            {"version", formatted("{}.{}.{}", version.major, version.minor, version.patch)},
            {"ranks", options.ranks},
            {"policy", to_string(options.policy)},
            {"placement", to_string(options.placement)},
            {"deadline_s", options.deadline.count()}};
}

void print_document(const Json& document) {
    print(stdout, "{}\n", document.dump(1, ' ', false, Json::error_handler_t::replace));
    std::fflush(stdout);
}

Json or_null(const std::optional<double>& ms) { return ms ? Json(*ms) : Json(); }

}  // namespace

void print_first_line(const Options& options, const Site& site, const std::string& store) {
    std::string line = formatted("{} driver, {}: {} rank{}, store {}, policy {}, placement {}, deadline {} s",
                                 site.driver(), site.description(), options.ranks, options.ranks == 1 ? "" : "s", store,
                                 to_string(options.policy), to_string(options.placement), options.deadline.count());
    if (!site.refused().empty()) line += formatted("; the real driver was not taken: {}", site.refused());
    print(options.json ? stderr : stdout, "{}\n", one_line(std::move(line)));
    std::fflush(stdout);
}

Report::Report(const Options& options, const Site& site, const Fleet& fleet, const Matrix& matrix,
               std::vector<std::string> left_in_store)
    : options_(options), site_(site), fleet_(fleet), matrix_(matrix), left_(std::move(left_in_store)) {
    const auto nanoseconds = [](Fleet::Clock::time_point time) {
        return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
    };
    std::int64_t last_hello_ns = 0;
    for (std::uint32_t rank = 0; rank < fleet.stories().size(); ++rank) {
        const RankStory& story = fleet.stories()[rank];
        look_at(rank, story);
        if (!story.hello.is_null()) last_hello_ns = std::max(last_hello_ns, story.hello["at_ns"].get<std::int64_t>());
    }
    if (last_hello_ns == 0) return;
    start_to_last_hello_ms_ = static_cast<double>(last_hello_ns - nanoseconds(fleet.started_at())) / 1e6;
    if (matrix.last_connection_ns() != 0)
        last_hello_to_last_connection_ms_ = static_cast<double>(matrix.last_connection_ns() - last_hello_ns) / 1e6;
}

void Report::look_at(std::uint32_t rank, const RankStory& story) {
    for (const std::string& trouble : story.troubles) troubles_.push_back({rank, trouble});
    if (!story.report.is_null()) {
        for (const Json& peer : story.report["peers"]) {
            if (peer["rank"] == rank && peer.contains("error")) troubles_.push_back({rank, text_of(peer["error"])});
        }
    }
    if (story.closed.is_null()) return;
    const auto stuck = story.closed["stuck_calls"].get<std::size_t>();
    const Json& left = story.closed["left"];
    if (stuck == 0 && left.is_number() && left != 0)
        left_.push_back(
            formatted("rank {} did not give back {} thing(s) of the driver's", rank, left.get<std::size_t>()));
    const auto expected = story.closed["threads_before"].get<std::size_t>() + stuck;
    const auto threads = story.closed["threads"].get<std::size_t>();
    if (site_.is_emulated() && threads > expected)
        left_.push_back(formatted("rank {} has {} thread(s) left after its end", rank, threads - expected));
}

bool Report::is_good() const noexcept {
    return matrix_.connected() == matrix_.pairs() && troubles_.empty() && left_.empty();
}

void Report::print() const { options_.json ? print_json() : print_text(); }

std::string Report::summary() const {
    std::string text = formatted("{} of {} pairs connected", matrix_.connected(), matrix_.pairs());
    if (start_to_last_hello_ms_)
        text += formatted("; the last hello was out {:.1f} ms after the start", *start_to_last_hello_ms_);
    if (last_hello_to_last_connection_ms_)
        text += formatted(", the last connection came {:.1f} ms after it", *last_hello_to_last_connection_ms_);
    return text;
}

void Report::print_text() const {
    const bool with_times = matrix_.ranks() <= kMostRanksWithTimes;
    examples::print(stdout,
                    "row: who writes, column: into whose memory; {}* device and host memory, d device memory alone, t "
                    "not tried, A to Z: see below, ? no report\n",
                    with_times ? "ms from its hello to the connection; " : "");
    with_times ? print_with_times(matrix_) : print_compact(matrix_);
    examples::print(stdout, "{}\n", summary());
    print_troubles();
    for (std::size_t i = 0; i < matrix_.causes().size(); ++i) {
        const Cause& cause = matrix_.causes()[i];
        examples::print(stdout, "{}: {} pair{}, {}: {}\n   {}: {}\n", letter_of(i), cause.pairs.size(),
                        cause.pairs.size() == 1 ? "" : "s", cause.stage, pairs_text(cause.pairs), cause.kind,
                        cut(one_line(cause.text)));
    }
    for (const std::string& left : left_) examples::print(stdout, "left behind: {}\n", left);
    std::fflush(stdout);
}

// Those whose texts are the same but for numbers and names are told of once.
void Report::print_troubles() const {
    std::vector<std::string> keys;
    std::vector<std::vector<std::uint32_t>> ranks;
    std::vector<std::string> texts;
    for (const Trouble& trouble : troubles_) {
        std::string key = without_numbers(trouble.text);
        const auto known = static_cast<std::size_t>(std::find(keys.begin(), keys.end(), key) - keys.begin());
        if (known == keys.size()) {
            keys.push_back(std::move(key));
            ranks.emplace_back();
            texts.push_back(trouble.text);
        }
        ranks[known].push_back(trouble.rank);
    }
    for (std::size_t i = 0; i < keys.size(); ++i) {
        examples::print(stdout, "rank{} {}: {}\n", ranks[i].size() == 1 ? "" : "s", ranges_text(ranks[i]),
                        cut(one_line(texts[i])));
    }
}

void Report::print_json() const {
    Json document = head(options_);
    document["ok"] = is_good();
    document["driver"] = site_.driver();
    document["site"] = site_.description();
    document["real_driver_answer"] = site_.refused().empty() ? Json() : Json(site_.refused());
    document["pairs"] = {{"all", matrix_.pairs()}, {"connected", matrix_.connected()}};
    document["wall_ms"] = {{"start_to_last_hello", or_null(start_to_last_hello_ms_)},
                           {"last_hello_to_last_connection", or_null(last_hello_to_last_connection_ms_)}};
    document["troubles"] = Json::array();
    for (const Trouble& trouble : troubles_)
        document["troubles"].push_back({{"rank", trouble.rank}, {"text", trouble.text}});
    document["causes"] = Json::array();
    for (const Cause& cause : matrix_.causes()) {
        document["causes"].push_back({{"stage", cause.stage},
                                      {"kind", cause.kind},
                                      {"text", cause.text},
                                      {"count", cause.pairs.size()},
                                      {"pairs", pairs_text(cause.pairs)}});
    }
    document["left_behind"] = left_;
    document["reports"] = Json::array();
    for (std::uint32_t rank = 0; rank < fleet_.stories().size(); ++rank) {
        const RankStory& story = fleet_.stories()[rank];
        document["reports"].push_back({{"rank", rank},
                                       {"node", story.place.node},
                                       {"device", story.place.device},
                                       {"process", story.process},
                                       {"killed", story.killed},
                                       {"troubles", story.troubles},
                                       {"hello", story.hello},
                                       {"report", story.report},
                                       {"closed", story.closed}});
    }
    print_document(document);
}

void print_failure(const Options& options, const std::string& error) {
    const std::string line = one_line(error);
    print(stderr, "{}: error: {}\n", kProgram, line);
    if (!options.json) return;
    Json document = head(options);
    document["ok"] = false;
    document["error"] = line;
    print_document(document);
}

}  // namespace warmup
