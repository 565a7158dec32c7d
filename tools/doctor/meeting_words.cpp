// SPDX-License-Identifier: Apache-2.0
#include "doctor/meeting_words.hpp"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "common/text.hpp"
#include "doctor/findings.hpp"
#include "doctor/wrapped.hpp"

namespace doctor {
namespace {

using examples::formatted;

std::string name_of_member(const std::string& member) {
    if (member == "here") return "this side";
    return member == "there" ? std::string("the peer") : member;
}

std::string direction_of(const Cell& cell) {
    return formatted("{} of {}, imported by {}", cell.place, name_of_member(cell.exporter),
                     name_of_member(cell.importer));
}

std::string mend_of(const Cell& cell) {
    if (const std::string who = who_mends(cell); !who.empty()) return "by " + name_of_member(who);
    return cell.side == "between" ? "between the two: they do not fit together" : "by whom is not known";
}

/// The directions in which device memory, or any, does not travel.
std::vector<const Cell*> failures_of(const Meeting& meeting) {
    std::vector<const Cell*> failures;
    for (const Cell& cell : meeting.cells) {
        if (cell.state == Cell::State::failed) failures.push_back(&cell);
    }
    return failures;
}

std::size_t count(const Meeting& meeting, Cell::State state) {
    return static_cast<std::size_t>(std::count_if(meeting.cells.begin(), meeting.cells.end(),
                                                  [&](const Cell& cell) { return cell.state == state; }));
}

std::string describe_pair(const Meeting& meeting) {
    const auto direction = [&](const char* importer, const char* works, const char* fails) {
        std::string why;
        bool unknown = false;
        for (const Cell& cell : meeting.cells) {
            if (cell.importer != importer || cell.state == Cell::State::ok) continue;
            unknown = unknown || cell.state == Cell::State::unknown;
            if (why.empty()) why = cell.cause;
        }
        if (unknown) return formatted("whether {} is not known", works);
        return why.empty() ? std::string(works) : formatted("{} ({})", fails, why);
    };
    std::string text =
        direction("here", "this side can use the peer's memory", "this side can't use the peer's memory");
    text += "; ";
    text += direction("there", "the peer can use this side's memory", "the peer can't use this side's memory");
    if (!meeting.trouble.cause.empty()) text += ": " + meeting.trouble.cause;
    return text;
}

std::string describe_job(const Meeting& meeting) {
    const std::size_t ranks = meeting.members.size();
    if (ranks == 1) return "a job of one rank has nobody to share memory with";
    if (all_work(meeting)) return formatted("all {} ranks can use each other's memory", ranks);
    std::string text = formatted("of {} tries between {} ranks {} failed", meeting.cells.size(), ranks,
                                 count(meeting, Cell::State::failed));
    if (const std::size_t unknown = count(meeting, Cell::State::unknown); unknown > 0)
        text += formatted(", and {} are not known", unknown);
    const auto failures = failures_of(meeting);
    if (!failures.empty()) text += ": " + failures.front()->cause;
    if (!meeting.trouble.cause.empty()) text += "; " + meeting.trouble.cause;
    return text;
}

using Cause = std::tuple<std::string, std::string, std::string>;  // check, side, cause

std::string matrix_of(const Meeting& meeting, std::size_t width) {
    constexpr std::string_view kMarks = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    std::map<std::pair<std::string, std::string>, char> marks;
    std::vector<std::pair<Cause, const Cell*>> causes;
    for (const Cell& cell : meeting.cells) {
        char& mark = marks.emplace(std::pair(cell.exporter, cell.importer), '.').first->second;
        if (cell.state == Cell::State::unknown) mark = '?';
        if (cell.state != Cell::State::failed || mark != '.') continue;
        const Cause cause{cell.check, cell.side, cell.cause};
        const auto known = std::find_if(causes.begin(), causes.end(), [&](const auto& c) { return c.first == cause; });
        const auto index = static_cast<std::size_t>(known - causes.begin());
        if (known == causes.end()) causes.emplace_back(cause, &cell);
        mark = index < kMarks.size() ? kMarks[index] : '#';
    }
    std::string text =
        "\n" +
        wrapped("", "who can use whose memory: a row for each that imports, a column for each that exports", 2, width);
    const std::size_t name_width = meeting.members.back().size();
    for (const std::string& importer : meeting.members) {
        text += formatted("  {:<{}}  ", importer, name_width);
        for (const std::string& exporter : meeting.members) {
            const auto mark = marks.find({exporter, importer});
            text += exporter == importer ? '-' : mark == marks.end() ? '?' : mark->second;
        }
        text += '\n';
    }
    text += "  . works, ? not known\n";
    for (std::size_t i = 0; i < std::min(causes.size(), kMarks.size()); ++i) {
        const Cell& cell = *causes[i].second;
        text += wrapped(formatted("  {} ", kMarks[i]),
                        formatted("{}: {} (to be mended {})", cell.check.empty() ? "?" : cell.check, cell.cause,
                                  cell.side == "here"    ? "by the one that imports"
                                  : cell.side == "there" ? "by the one that exports"
                                                         : mend_of(cell)),
                        4, width);
    }
    return text;
}

std::string directions_of(const Meeting& meeting, std::size_t width) {
    std::string text = "\n";
    for (const Cell& cell : meeting.cells)
        text += wrapped("", formatted("{}: {}", direction_of(cell), to_string(cell.state)), 2, width);
    if (all_work(meeting)) return text;
    for (const char* const member : {"there", "here"}) {
        const auto cell = std::find_if(meeting.cells.begin(), meeting.cells.end(),
                                       [&](const Cell& c) { return c.exporter == member && !c.peer.empty(); });
        if (cell != meeting.cells.end())
            text += wrapped("", formatted("{}: {}", name_of_member(member), cell->peer), 2, width);
    }
    return text;
}

}  // namespace

bool all_work(const Meeting& meeting) noexcept {
    return !meeting.cells.empty() && count(meeting, Cell::State::ok) == meeting.cells.size();
}

Outcome outcome_of(const Meeting& meeting) noexcept {
    if (meeting.members.size() == 1 || all_work(meeting)) return Outcome::as_expected;
    return count(meeting, Cell::State::ok) > 0 ? Outcome::less : Outcome::curable;
}

std::string describe(const Meeting& meeting) {
    return meeting.kind == Meeting::Kind::pair ? describe_pair(meeting) : describe_job(meeting);
}

std::string table_of(const Meeting& meeting, std::size_t width) {
    return meeting.kind == Meeting::Kind::pair ? directions_of(meeting, width) : matrix_of(meeting, width);
}

void judge_meeting(const Facts& facts, Findings& findings) {
    constexpr std::size_t kMostNamed = 6;
    if (!facts.meeting.has_value()) return;
    if (const Trouble& trouble = facts.meeting->trouble; !trouble.check.empty())
        findings.add(trouble.check, CheckState::failed, {.about = "the peer", .cause = trouble.cause});
    const Findings alone = findings;
    std::map<Cause, std::size_t> named;
    for (const Cell* const cell : failures_of(*facts.meeting)) {
        // What keeps this process from having memory keeps others from importing it, and it from importing theirs.
        const bool follows = cell->importer == "here"
                                 ? alone.has_failed(cell->check)
                                 : alone.has_failed() && cell->exporter == "here" && cell->check == "FM-PEER-006";
        if (follows) continue;
        const std::size_t before = named[{cell->check, cell->side, cell->cause}]++;
        std::string about = before < kMostNamed ? direction_of(*cell) : before == kMostNamed ? "and others" : "";
        const bool told = cell->importer == "there";
        findings.add(cell->check, CheckState::failed,
                     {.about = std::move(about),
                      .cause = told ? "the peer says: " + cell->cause : cell->cause,
                      .mend = mend_of(*cell)});
    }
}

}  // namespace doctor
