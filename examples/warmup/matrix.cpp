// SPDX-License-Identifier: Apache-2.0
#include "warmup/matrix.hpp"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "common/text.hpp"

namespace warmup {
namespace {

using examples::formatted;
using Json = nlohmann::ordered_json;

bool is_word(char character) {
    return (character >= '0' && character <= '9') || (character >= 'a' && character <= 'z') ||
           (character >= 'A' && character <= 'Z') || character == '_';
}

bool is_digit(char character) { return character >= '0' && character <= '9'; }

}  // namespace

std::string without_numbers(std::string_view text) {
    std::string folded;
    for (std::size_t begin = 0; begin < text.size();) {
        std::size_t end = begin;
        while (end < text.size() && is_word(text[end])) ++end;
        const std::string_view word = text.substr(begin, end - begin);
        folded += std::any_of(word.begin(), word.end(), is_digit) ? "#" : word;
        if (end < text.size()) folded += text[end++];
        begin = end;
    }
    return folded;
}

std::string text_of(const Json& error) {
    auto text = error["text"].get<std::string>();
    const auto identity = error["identity"].get<std::string>();
    if (!identity.empty() && text.size() > identity.size()) text.resize(text.size() - identity.size() - 1);
    return text;
}

std::string ranges_text(const std::vector<std::uint32_t>& numbers) {
    std::string text;
    for (std::size_t begin = 0; begin < numbers.size();) {
        std::size_t end = begin + 1;
        while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) ++end;
        if (!text.empty()) text += ',';
        text += std::to_string(numbers[begin]);
        if (end - begin > 1) text += formatted("-{}", numbers[end - 1]);
        begin = end;
    }
    return text;
}

std::string pairs_text(const std::vector<Cause::Pair>& pairs) {
    using Ranks = std::vector<std::uint32_t>;
    std::map<std::uint32_t, Ranks> by_target;
    std::map<std::uint32_t, Ranks> by_source;
    for (const Cause::Pair& pair : pairs) {
        by_target[pair.to].push_back(pair.from);
        by_source[pair.from].push_back(pair.to);
    }
    const auto ranks_of = [](const std::map<std::uint32_t, Ranks>& side) {
        Ranks ranks;
        for (const auto& [rank, partners] : side) ranks.push_back(rank);
        return ranks;
    };
    const Ranks sources = ranks_of(by_source);
    if (sources.size() > 2 && sources == ranks_of(by_target) && pairs.size() == sources.size() * (sources.size() - 1))
        return "among " + ranges_text(sources);
    // Whoever is in more pairs than its partner is the one that the pair is told of.
    std::map<std::uint32_t, Ranks> to;
    std::map<std::uint32_t, Ranks> from;
    for (const Cause::Pair& pair : pairs) {
        if (by_target[pair.to].size() >= by_source[pair.from].size()) {
            to[pair.to].push_back(pair.from);
        } else {
            from[pair.from].push_back(pair.to);
        }
    }
    // Those with the same partners are told of together.
    const auto grouped = [](std::map<std::uint32_t, Ranks>& told) {
        std::map<Ranks, Ranks> groups;
        for (auto& [rank, partners] : told) {
            std::sort(partners.begin(), partners.end());
            groups[partners].push_back(rank);
        }
        return groups;
    };
    std::string text;
    const auto add = [&text](const Ranks& writers, const Ranks& targets) {
        text += formatted("{}{} -> {}", text.empty() ? "" : "; ", ranges_text(writers), ranges_text(targets));
    };
    for (const auto& [writers, targets] : grouped(to)) add(writers, targets);
    for (const auto& [targets, writers] : grouped(from)) add(writers, targets);
    return text;
}

Matrix::Matrix(const std::vector<RankStory>& stories)
    : ranks_(static_cast<std::uint32_t>(stories.size())), cells_(std::size_t{ranks_} * ranks_) {
    for (std::uint32_t from = 0; from < ranks_; ++from) {
        const Json& report = stories[from].report;
        if (report.is_null()) continue;
        const auto made_ns = report["made_ns"].get<std::int64_t>();
        for (const Json& peer : report["peers"]) {
            const auto to = peer["rank"].get<std::uint32_t>();
            if (to >= ranks_) continue;
            const Cell cell = cell_of(from, to, peer, made_ns);
            if (cell.is_connected()) ++connected_;
            cells_[std::size_t{from} * ranks_ + to] = cell;
        }
    }
    // The most frequent first; the cells follow.
    std::vector<std::size_t> order(causes_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [this](std::size_t a, std::size_t b) {
        return causes_[a].pairs.size() > causes_[b].pairs.size();
    });
    std::vector<Cause> sorted;
    std::vector<std::size_t> place(order.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
        place[order[i]] = i;
        sorted.push_back(std::move(causes_[order[i]]));
    }
    causes_ = std::move(sorted);
    for (Cell& cell : cells_) {
        if (cell.state == Cell::State::unconnected) cell.cause = place[cell.cause];
    }
}

Cell Matrix::cell_of(std::uint32_t from, std::uint32_t to, const Json& peer, std::int64_t made_ns) {
    const auto stage = peer["stage"].get<std::string>();
    Cell cell;
    if (stage == "self") {
        cell.state = Cell::State::self;
        return cell;
    }
    const Json& ms = peer["ms"];
    cell.ms = ms["importing"].get<double>() + ms["proving"].get<double>();
    if (stage == "connected") {
        const auto device = peer["device"]["state"].get<std::string>();
        const auto host = peer["host"]["state"].get<std::string>();
        cell.state = device == "trusted" ? Cell::State::trusted
                     : host == "proved"  ? Cell::State::both
                                         : Cell::State::device;
        const double after_ms = cell.ms + ms["no_hello"].get<double>();
        last_connection_ns_ = std::max(last_connection_ns_, made_ns + static_cast<std::int64_t>(after_ms * 1e6));
        return cell;
    }
    cell.state = Cell::State::unconnected;
    const bool said = peer.contains("error");
    Cause cause{.stage = stage,
                .kind = said ? peer["error"]["kind"].get<std::string>() : std::string(),
                .text = said ? text_of(peer["error"]) : std::string("not done, and no error")};
    std::string key = formatted("{} {} {}", cause.stage, cause.kind, without_numbers(cause.text));
    const auto known = std::find(keys_.begin(), keys_.end(), key);
    cell.cause = static_cast<std::size_t>(known - keys_.begin());
    if (known == keys_.end()) {
        keys_.push_back(std::move(key));
        causes_.push_back(std::move(cause));
    }
    causes_[cell.cause].pairs.push_back({from, to});
    return cell;
}

}  // namespace warmup
