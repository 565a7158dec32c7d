// SPDX-License-Identifier: Apache-2.0
// A command line as a table: each row is an option's name, value, help and effect. A wrong one is one line of text.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "common/text.hpp"

namespace examples {

/// The command line can't be meant: `what()` is one line that names the option.
class WrongOption : public std::invalid_argument {
public:
    using std::invalid_argument::invalid_argument;
};

template <class Parsed>
struct OptionRow {
    std::string_view name;      // "--mode"
    std::string_view argument;  // what its value is called; empty: takes none; in brackets: may be left out
    std::string_view help;      // empty: not in the help text
    void (*apply)(Parsed&, std::string_view value);

    [[nodiscard]] bool takes_value() const noexcept { return !argument.empty(); }
    [[nodiscard]] bool needs_value() const noexcept {
        return takes_value() && !(argument.front() == '[' && argument.back() == ']');
    }
};

/// A word and what it stands for.
template <class Enum>
using Word = std::pair<std::string_view, Enum>;

template <class Enum, std::size_t Count>
[[nodiscard]] std::string_view word_of(Enum value, const std::array<Word<Enum>, Count>& words) noexcept {
    for (const auto& [word, meaning] : words) {
        if (meaning == value) return word;
    }
    return "?";
}

template <class Enum, std::size_t Count>
[[nodiscard]] Enum meaning_of(std::string_view text, const std::array<Word<Enum>, Count>& words) {
    std::string known;
    for (const auto& [word, meaning] : words) {
        if (word == text) return meaning;
        known += formatted("{}{}", known.empty() ? "" : ", ", word);
    }
    throw WrongOption(formatted("'{}' is none of {}", text, known));
}

template <class Number>
[[nodiscard]] Number number_of(std::string_view text, Number least, Number most) {
    Number number{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size() || number < least || number > most) {
        throw WrongOption(formatted("'{}' is not a number from {} to {}", text, least, most));
    }
    return number;
}

namespace detail {

/// Applies the option that `arguments` begin with; returns how many of them it took.
template <class Parsed>
std::size_t apply_one(std::span<const OptionRow<Parsed>> rows, std::span<const std::string> arguments, Parsed& parsed) {
    const std::string_view argument = arguments.front();
    const std::string_view name = argument.substr(0, argument.find('='));
    const auto row = std::find_if(rows.begin(), rows.end(), [&](const auto& r) { return r.name == name; });
    if (row == rows.end()) throw WrongOption(formatted("{}: there is no such option", name));

    std::size_t taken = 1;
    std::string_view value;
    if (name.size() < argument.size()) {
        if (!row->takes_value()) throw WrongOption(formatted("{}: takes no value", name));
        value = argument.substr(name.size() + 1);
    } else if (row->takes_value() && arguments.size() > 1 && !arguments[1].starts_with("--")) {
        value = arguments[1];
        taken = 2;
    } else if (row->needs_value()) {
        throw WrongOption(formatted("{}: needs a value, {}", name, row->argument));
    }
    try {
        row->apply(parsed, value);
    } catch (const WrongOption& wrong) {
        throw WrongOption(formatted("{}: {}", name, wrong.what()));
    }
    return taken;
}

}  // namespace detail

/// Applies all of a command line, as "--name value" or "--name=value". Throws WrongOption.
template <class Parsed>
void apply_options(std::span<const OptionRow<Parsed>> rows, std::span<const std::string> arguments, Parsed& parsed) {
    while (!arguments.empty()) arguments = arguments.subspan(detail::apply_one(rows, arguments, parsed));
}

template <class Parsed>
[[nodiscard]] std::string help_lines(std::span<const OptionRow<Parsed>> rows) {
    std::string text;
    for (const OptionRow<Parsed>& row : rows) {
        if (row.help.empty()) continue;
        text += formatted("  {:<30} {}\n", formatted("{} {}", row.name, row.argument), row.help);
    }
    return text;
}

}  // namespace examples
