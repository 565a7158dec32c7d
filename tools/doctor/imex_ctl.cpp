// SPDX-License-Identifier: Apache-2.0
#include "doctor/imex_ctl.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>

#include "common/deadline.hpp"
#include "common/text.hpp"
#include "doctor/command.hpp"

namespace doctor {
namespace {

using examples::Deadline;
using examples::formatted;
using nlohmann::json;

constexpr const char* kName = "nvidia-imex-ctl";
constexpr std::size_t kTextKept = 64;  // of a name or a state
constexpr std::size_t kNodesKept = 4096;

/// Empty: there is none.
std::string find_program(const std::string& root) {
    std::string usual = formatted("{}/usr/bin/{}", root, kName);
    if (::access(usual.c_str(), X_OK) == 0) return usual;
    const char* const path = root.empty() ? std::getenv("PATH") : nullptr;
    for (std::string_view rest = path == nullptr ? "" : path; !rest.empty();) {
        const std::string_view folder = rest.substr(0, rest.find(':'));
        std::string found = formatted("{}/{}", folder, kName);
        if (!folder.empty() && ::access(found.c_str(), X_OK) == 0) return found;
        rest.remove_prefix(std::min(folder.size() + 1, rest.size()));
    }
    return {};
}

struct Answer {
    bool late = false;
    std::string text{};
    std::string failure{};  ///< empty: it ended with exit code 0
};

std::string first_line(const std::string& text) { return text.substr(0, std::min<std::size_t>(text.find('\n'), 200)); }

Answer ask(const std::string& program, std::vector<std::string> arguments, std::chrono::milliseconds limit) {
    arguments.insert(arguments.begin(), program);
    Answer answer;
    try {
        const Deadline deadline(limit);
        Command command(std::move(arguments));
        answer.late = !command.read_all(deadline);
        const auto ended = answer.late ? std::nullopt : command.wait(deadline);
        answer.late = !ended.has_value();
        answer.text = command.out();
        if (answer.late || ended->exit_code == 0) return answer;
        answer.failure = ended->signal != 0 ? formatted("died of signal {}", ended->signal)
                                            : formatted("ended with exit code {}", ended->exit_code);
        if (const std::string said = first_line(command.err()); !said.empty()) answer.failure += ": " + said;
    } catch (const std::system_error& error) {
        answer.failure = formatted("could not be started: {}", error.what());
    }
    return answer;
}

std::string text_at(const json& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? found->get<std::string>().substr(0, kTextKept) : std::string();
}

bool is_state(std::string_view text) {
    return !text.empty() && text.size() <= kTextKept && std::all_of(text.begin(), text.end(), [](char character) {
        return (character >= 'A' && character <= 'Z') || character == '_';
    });
}

}  // namespace

bool read_domain(const std::string& text, ImexFacts& facts) {
    const json said = json::parse(text, nullptr, false);
    if (!said.is_object()) return false;
    const std::string domain = text_at(said, "status");
    const auto nodes = said.find("nodes");
    if (!is_state(domain) || nodes == said.end() || !nodes->is_object()) return false;
    std::vector<ImexFacts::Node> all;
    for (const auto& [number, node] : nodes->items()) {
        if (!node.is_object() || !is_state(text_at(node, "status")) || all.size() == kNodesKept) return false;
        std::string name = text_at(node, "hostName");
        if (name.empty()) name = text_at(node, "host");
        if (name.empty()) name = "node " + number.substr(0, kTextKept);
        all.push_back({std::move(name), text_at(node, "status")});
    }
    facts.domain = domain;
    facts.nodes = std::move(all);
    return true;
}

bool read_daemon(const std::string& text, ImexFacts& facts) {
    std::string_view state = text;
    while (!state.empty() && (state.back() == '\n' || state.back() == '\r' || state.back() == ' '))
        state.remove_suffix(1);
    if (!is_state(state)) return false;
    facts.daemon = state;
    return true;
}

ImexFacts ask_imex(const std::string& root, std::chrono::milliseconds limit) {
    ImexFacts facts;
    const std::string program = find_program(root);
    if (program.empty()) {
        facts.answer = ImexFacts::Answer::absent;
        facts.detail = formatted("{} is not to be found: likely it is the host's, and this a container", kName);
        return facts;
    }
    const Answer domain = ask(program, {"-N", "-j"}, limit);
    if (domain.late) {
        facts.answer = ImexFacts::Answer::late;
        facts.detail = formatted("{} -N -j did not end within {} ms", kName, limit.count());
        return facts;
    }
    const bool known = read_domain(domain.text, facts);
    if (known && facts.domain == "UP") {
        facts.answer = ImexFacts::Answer::understood;
        return facts;
    }
    const Answer daemon = ask(program, {"-q"}, limit);
    if (known || read_daemon(daemon.text, facts)) {
        if (known) (void)read_daemon(daemon.text, facts);
        facts.answer = ImexFacts::Answer::understood;
        return facts;
    }
    if (domain.failure.empty()) {
        facts.answer = ImexFacts::Answer::nonsense;
        facts.detail = formatted("{} -N -j says: {}", kName, first_line(domain.text));
    } else {
        facts.answer = ImexFacts::Answer::failed;
        facts.detail = formatted("{} -N -j {}", kName, domain.failure);
    }
    return facts;
}

}  // namespace doctor
