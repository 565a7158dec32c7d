// SPDX-License-Identifier: Apache-2.0
// What the public headers promise, read from their text: the functions marked FABRICMEM_API and the public members of
// the classes marked so. Knows as much of C++ as the headers use.
#pragma once

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

namespace fabricmem::test {

/// "FabricBuffer::close()", "stuck_calls(const Driver& driver)": one for each overload; deleted ones are left out.
class PublicFunctions {
public:
    explicit PublicFunctions(const std::filesystem::path& headers) {
        std::vector<std::filesystem::path> files;
        for (const auto& entry : std::filesystem::directory_iterator(headers)) files.push_back(entry.path());
        std::sort(files.begin(), files.end());
        for (const auto& file : files) {
            std::ifstream stream(file);
            text_ = plain({std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()});
            at_ = 0;
            read_scope("", true);
        }
    }
    explicit PublicFunctions(std::string_view header) : text_(plain(std::string(header))) { read_scope("", true); }

    [[nodiscard]] const std::vector<std::string>& all() const noexcept { return found_; }

private:
    // Without comments, preprocessor and attributes; blanks made one.
    static std::string plain(std::string text) {
        text = std::regex_replace(text, std::regex("//[^\n]*"), "");
        text = std::regex_replace(text, std::regex("(^|\n)[ \t]*#([^\n]*\\\\\n)*[^\n]*"), "\n");
        text = std::regex_replace(text, std::regex("\\[\\[[a-z]*\\]\\]"), "");
        return std::regex_replace(text, std::regex("\\s+"), " ");
    }

    // Declarations up to the end of the scope. `type` is the class whose members they are; empty: a namespace's.
    void read_scope(const std::string& type, bool is_public) {
        while (at_ < text_.size()) {
            std::string head = read_head();
            const char end = at_ < text_.size() ? text_[at_++] : '}';
            is_public = take_labels(head, is_public);
            head = std::regex_replace(head, std::regex("^template <[^>]*> "), "");
            const bool is_class = std::regex_search(head, std::regex("^(class|struct) "));
            const bool promised = head.find("FABRICMEM_API") != std::string::npos;
            if (end == '{' && head.rfind("namespace", 0) == 0) {
                read_scope("", true);
            } else if (end == '{' && is_class && promised) {
                std::smatch name;
                std::regex_search(head, name, std::regex("FABRICMEM_API (\\w+)"));
                read_scope(name[1], head.rfind("struct", 0) == 0);
            } else {
                if (!is_class && (type.empty() ? promised : is_public)) add(type, head);
                if (end == '{') skip_block();
            }
            if (end == '}') return;
        }
    }

    // Up to the ';', '{' or '}' that ends it; those within parentheses belong to it.
    std::string read_head() {
        int depth = 0;
        const std::size_t begin = at_;
        for (; at_ < text_.size(); ++at_) {
            const char letter = text_[at_];
            if (letter == '(') ++depth;
            if (letter == ')') --depth;
            if (depth == 0 && (letter == ';' || letter == '{' || letter == '}')) break;
        }
        return trimmed(text_.substr(begin, at_ - begin));
    }

    void skip_block() {
        for (int depth = 1; depth > 0 && at_ < text_.size(); ++at_) {
            if (text_[at_] == '{') ++depth;
            if (text_[at_] == '}') --depth;
        }
    }

    static bool take_labels(std::string& head, bool is_public) {
        std::smatch label;
        while (std::regex_search(head, label, std::regex("^(public|protected|private) ?: ?"))) {
            is_public = label[1] == "public";
            head = label.suffix().str();
        }
        return is_public;
    }

    void add(const std::string& type, const std::string& head) {
        static const std::regex function("((operator ?[^ (]+)|(~?\\w+)) ?(\\(.*)");
        static const std::regex no_function(
            "^(using|enum|static_assert|friend class|friend struct|template|static constexpr [\\w:]+ k[A-Z]\\w* =) ?");
        std::smatch parts;
        if (std::regex_search(head, no_function) || head.find("= delete") != std::string::npos) return;
        if (!std::regex_search(head, parts, function)) return;
        found_.push_back((type.empty() ? "" : type + "::") + parts[1].str() + parameters(parts[4].str()));
    }

    static std::string parameters(const std::string& text) {
        int depth = 0;
        for (std::size_t i = 0; i < text.size(); ++i) {
            if (text[i] == '(') ++depth;
            if (text[i] == ')' && --depth == 0) return text.substr(0, i + 1);
        }
        return text;
    }

    static std::string trimmed(const std::string& text) {
        const std::size_t begin = text.find_first_not_of(' ');
        return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(' ') - begin + 1);
    }

    std::string text_;
    std::size_t at_ = 0;
    std::vector<std::string> found_;
};

}  // namespace fabricmem::test
