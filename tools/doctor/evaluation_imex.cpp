// SPDX-License-Identifier: Apache-2.0
// What nvidia-imex-ctl said. Its absence and its failures are no failures of the machine's.
#include <string>

#include "common/text.hpp"
#include "doctor/findings.hpp"

namespace doctor {
namespace {

using examples::formatted;

/// "2 of 18 nodes are not READY: node3 (UNAVAILABLE), node7 (...)"
std::string describe_nodes(const ImexFacts& imex) {
    constexpr std::size_t kMost = 8;
    std::string names;
    std::size_t count = 0;
    for (const ImexFacts::Node& node : imex.nodes) {
        if (node.state == "READY") continue;
        if (count < kMost) names += formatted("{}{} ({})", count == 0 ? "" : ", ", node.name, node.state);
        ++count;
    }
    if (count > kMost) names += formatted(" and {} more", count - kMost);
    return formatted("{} of {} nodes are not READY{}{}", count, imex.nodes.size(), count == 0 ? "" : ": ", names);
}

void judge_domain_state(const ImexFacts& imex, Expectation expected, Findings& findings) {
    const CheckState bad = expected == Expectation::multinode ? CheckState::failed : CheckState::warning;
    const std::string nodes = imex.nodes.empty() ? std::string() : describe_nodes(imex);
    if (!imex.daemon.empty() && imex.daemon != "READY") {
        findings.add("FM-IMEX-001", bad,
                     {.facts = nodes, .cause = formatted("this node's IMEX daemon is {}", imex.daemon)});
        return;  // what it says of the domain follows from that
    }
    if (imex.domain.empty() || imex.domain == "UP") {
        findings.add("FM-IMEX-003", imex.domain.empty() ? CheckState::unknown : CheckState::ok, {.facts = nodes});
    } else if (imex.domain == "DEGRADED") {
        findings.add("FM-IMEX-003", CheckState::warning,
                     {.facts = nodes, .cause = "the IMEX domain is DEGRADED: some of its nodes can't be reached"});
    } else {
        findings.add("FM-IMEX-003", bad, {.facts = nodes, .cause = formatted("the IMEX domain is {}", imex.domain)});
    }
}

}  // namespace

void judge_imex(const Facts& facts, Expectation expected, Findings& findings) {
    const ImexFacts& imex = facts.imex;
    switch (imex.answer) {
        case ImexFacts::Answer::not_asked: return;
        case ImexFacts::Answer::absent:
        case ImexFacts::Answer::failed:
            findings.add("FM-IMEX-001", CheckState::unknown, {.facts = imex.detail});
            return;
        case ImexFacts::Answer::late:
            findings.add("FM-IMEX-004", CheckState::warning, {.facts = imex.detail, .cause = "nvidia-imex-ctl hangs"});
            return;
        case ImexFacts::Answer::nonsense:
            findings.add("FM-IMEX-006", CheckState::unknown, {.facts = imex.detail});
            return;
        case ImexFacts::Answer::understood: judge_domain_state(imex, expected, findings); return;
    }
}

}  // namespace doctor
