// SPDX-License-Identifier: Apache-2.0
// Reads docs/driver-notes.md and the test cases in the sources, and says where they do not fit.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

namespace fabricmem::test {

struct NamedCase {
    std::string file;
    std::string tags;

    [[nodiscard]] bool has(const std::string& tag) const { return tags.find("[" + tag) != std::string::npos; }
    [[nodiscard]] bool in_suite() const { return file.rfind("driver_conformance", 0) == 0 && !has("."); }
    [[nodiscard]] bool on_emulated() const { return !has("real]"); }
    [[nodiscard]] bool on_real() const { return has("real]") || has("each]"); }
};
using NamedCases = std::map<std::string, NamedCase>;  // by name

struct Fact {
    std::string text;
    std::vector<std::string> cases;
    std::string emulated;  // "yes", or "no: " and why
    std::string real;
};

[[nodiscard]] inline std::string read_text(const std::filesystem::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// The literals in the parentheses at `at`, those beside each other joined.
[[nodiscard]] inline std::vector<std::string> string_arguments(const std::string& source, std::size_t at) {
    std::vector<std::string> found;
    bool joins = false;
    for (; at < source.size() && source[at] != ')'; ++at) {
        if (source[at] == ',') joins = false;
        if (source[at] != '"') continue;
        std::string text;
        for (++at; at < source.size() && source[at] != '"'; ++at) {
            if (source[at] == '\\') ++at;
            text += source[at];
        }
        if (joins) {
            found.back() += text;
        } else {
            found.push_back(text);
        }
        joins = true;
    }
    return found;
}

/// The cases of a source file.
inline void add_cases(const std::string& file, const std::string& source, NamedCases* cases) {
    const std::string word = "TEST_CASE(";
    for (std::size_t at = source.find("\n" + word); at != std::string::npos; at = source.find("\n" + word, at + 1)) {
        const std::vector<std::string> arguments = string_arguments(source, at + 1 + word.size());
        if (!arguments.empty()) (*cases)[arguments[0]] = {file, arguments.size() > 1 ? arguments[1] : ""};
    }
}

[[nodiscard]] inline NamedCases cases_under(const std::filesystem::path& folder) {
    NamedCases cases;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        const bool is_test = name.size() > 9 && name.compare(name.size() - 9, 9, "_test.cpp") == 0;
        if (is_test) add_cases(name, read_text(entry.path()), &cases);
    }
    return cases;
}

[[nodiscard]] inline std::vector<std::string> split(const std::string& text, const std::string& separator) {
    std::vector<std::string> parts;
    for (std::size_t begin = 0;;) {
        const std::size_t end = text.find(separator, begin);
        std::string part = text.substr(begin, end == std::string::npos ? end : end - begin);
        part.erase(0, part.find_first_not_of(' '));
        part.erase(part.find_last_not_of(' ') + 1);
        parts.push_back(part);
        if (end == std::string::npos) return parts;
        begin = end + separator.size();
    }
}

inline const std::string kFactHeader = "| fact | case | emulated | real |";

/// The rows of all tables with that header.
[[nodiscard]] inline std::vector<Fact> facts_of(const std::string& notes) {
    std::vector<Fact> facts;
    bool in_table = false;
    for (const std::string& line : split(notes, "\n")) {
        if (line == kFactHeader) {
            in_table = true;
        } else if (line.empty() || line.front() != '|') {
            in_table = false;
        } else if (in_table && line.rfind("|---", 0) != 0) {
            std::vector<std::string> cells = split(line, "|");
            cells.resize(6);  // one before the first bar and one after the last
            facts.push_back({cells[1], split(cells[2], "<br>"), cells[3], cells[4]});
        }
    }
    return facts;
}

struct SuiteCounts {
    int cases = 0;
    int emulated = 0;
    int real = 0;
};

[[nodiscard]] inline SuiteCounts count_suite(const NamedCases& cases) {
    SuiteCounts counts;
    for (const auto& [name, found] : cases) {
        if (!found.in_suite()) continue;
        ++counts.cases;
        counts.emulated += found.on_emulated() ? 1 : 0;
        counts.real += found.on_real() ? 1 : 0;
    }
    return counts;
}

/// What the notes have to say of the suite, word for word.
[[nodiscard]] inline std::string sentence_of(const SuiteCounts& counts) {
    return "The suite has " + std::to_string(counts.cases) + " cases: " + std::to_string(counts.emulated) +
           " for the emulated driver, " + std::to_string(counts.real) + " for the real one.";
}

inline void check_place(const Fact& fact, const NamedCase& found, std::vector<std::string>* complaints) {
    const auto check = [&](const char* driver, const std::string& cell, bool runs) {
        const bool yes = cell == "yes";
        const bool no = cell.rfind("no: ", 0) == 0 && cell.size() > 8;
        if (!yes && !no) complaints->push_back(fact.text + ": " + driver + " is neither yes nor \"no: \" and why");
        if (yes && !runs) complaints->push_back(fact.text + ": its case does not run on the " + driver + " driver");
    };
    check("emulated", fact.emulated, found.on_emulated());
    check("real", fact.real, found.on_real());
}

/// Empty where the notes are true.
[[nodiscard]] inline std::vector<std::string> complaints_about(const std::string& notes, const NamedCases& cases) {
    std::vector<std::string> complaints;
    std::vector<std::string> listed;
    for (const Fact& fact : facts_of(notes)) {
        for (const std::string& name : fact.cases) {
            listed.push_back(name);
            const auto found = cases.find(name);
            if (found == cases.end()) {
                complaints.push_back(fact.text + ": there is no case \"" + name + "\"");
            } else {
                check_place(fact, found->second, &complaints);
            }
        }
    }
    for (const auto& [name, found] : cases) {
        if (found.in_suite() && std::find(listed.begin(), listed.end(), name) == listed.end()) {
            complaints.push_back("\"" + name + "\" is listed nowhere");
        }
    }
    const std::string sentence = sentence_of(count_suite(cases));
    if (notes.find(sentence) == std::string::npos) complaints.push_back("they do not say: " + sentence);
    return complaints;
}

}  // namespace fabricmem::test
