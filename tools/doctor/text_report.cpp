// SPDX-License-Identifier: Apache-2.0
#include "doctor/report.hpp"

#include <string>
#include <string_view>

#include "common/arguments.hpp"
#include "common/text.hpp"
#include "doctor/meeting_words.hpp"

namespace doctor {
namespace {

using examples::formatted;
using fabricmem::Check;

Style style_of(CheckState state) noexcept {
    switch (state) {
        case CheckState::ok: return Style::good;
        case CheckState::failed: return Style::bad;
        case CheckState::warning:
        case CheckState::unknown: return Style::doubtful;
        case CheckState::skipped: return Style::dim;
    }
    return Style::none;
}

Style style_of(Outcome outcome) noexcept {
    switch (outcome) {
        case Outcome::as_expected: return Style::good;
        case Outcome::less: return Style::doubtful;
        default: return Style::bad;
    }
}

/// Lines that are painted as a whole: colours do not count as columns.
std::string painted_lines(const std::string& lines, Style style, Paint paint) {
    std::string all;
    std::string_view rest = lines;
    while (!rest.empty()) {
        const std::size_t end = std::min(rest.find('\n'), rest.size());
        all += painted(rest.substr(0, end), style, paint) + "\n";
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    return all;
}

std::string painted_word(std::string text, std::string_view word, Style style, Paint paint) {
    return text.replace(0, word.size(), painted(word, style, paint));
}

std::string text_of_verdict(const Verdict& verdict, const Layout& layout) {
    return painted_lines(wrapped("", verdict.sentence, 0, layout.width), style_of(verdict.outcome), layout.paint);
}

std::string text_of_check(const Check& check, const Layout& layout) {
    return wrapped(formatted("{}: ", check.id), check.statement, 2, layout.width) +
           wrapped("  kind of error: ", to_string(check.kind), 4, layout.width) + text_of_cures(check.cures, layout);
}

}  // namespace

std::string text_of_cures(const fabricmem::Cures& cures, const Layout& layout) {
    std::string text;
    if (!cures.user.empty()) text += wrapped("  You can: ", cures.user, 4, layout.width);
    if (cures.bare_metal.empty() && cures.container.empty() && cures.kubernetes.empty()) return text;
    text += "  The administrator can:\n";
    if (!cures.bare_metal.empty()) text += wrapped("    bare metal: ", cures.bare_metal, 6, layout.width);
    if (!cures.container.empty()) text += wrapped("    container: ", cures.container, 6, layout.width);
    if (!cures.kubernetes.empty()) text += wrapped("    Kubernetes: ", cures.kubernetes, 6, layout.width);
    return text;
}

std::string text_of_finding(const Finding& finding, const Layout& layout) {
    const std::string_view state = to_string(finding.state);
    const std::string head = formatted("{} {}: ", state, finding.check->id);
    std::string text = wrapped(head, finding.cause.empty() ? finding.check->statement : finding.cause, 2, layout.width);
    text = painted_word(std::move(text), state, style_of(finding.state), layout.paint);
    if (const std::string subject = finding.subject(); !subject.empty())
        text += wrapped("  where: ", subject, 4, layout.width);
    if (!finding.mend.empty()) text += wrapped("  to be mended: ", finding.mend, 4, layout.width);
    if (!finding.facts.empty()) text += wrapped("  seen: ", finding.facts, 4, layout.width);
    if (!finding.cause.empty()) text += wrapped("  has to hold: ", finding.check->statement, 4, layout.width);
    return finding.is_well() ? text : text + text_of_cures(finding.check->cures, layout);
}

std::string text_of(const Report& report, Detail detail, const Layout& layout) {
    const std::string verdict = text_of_verdict(report.verdict, layout);
    std::string between;
    for (const CheckState state : {CheckState::failed, CheckState::warning, CheckState::unknown}) {
        for (const Finding& finding : report.findings) {
            if (finding.state == state && finding.found) between += "\n" + text_of_finding(finding, layout);
        }
    }
    if (report.facts.meeting.has_value()) between += table_of(*report.facts.meeting, layout.width);
    if (detail == Detail::all) between += text_of_all(report, layout);
    return between.empty() ? verdict : verdict + between + "\n" + verdict;
}

std::string explain(const std::string& id, const Layout& layout) {
    std::string all;
    std::string ids;
    for (const Check& check : fabricmem::all_checks()) {
        if (check.id == id) return text_of_check(check, layout);
        all += (all.empty() ? "" : "\n") + text_of_check(check, layout);
        ids += formatted("{}{}", ids.empty() ? "" : ", ", check.id);
    }
    if (id == "all") return all;
    throw examples::WrongOption(formatted("--explain: '{}' is none of all, {}", id, ids));
}

}  // namespace doctor
