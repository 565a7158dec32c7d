// SPDX-License-Identifier: Apache-2.0
#include "platform/proc_text.hpp"

#include <algorithm>
#include <array>
#include <cstddef>

namespace fabricmem::detail {
namespace {

bool is_digit(char character) noexcept { return character >= '0' && character <= '9'; }

/// Takes the text up to `separator`, and the separator, from the front of `text`; all of it where there is none.
std::string_view take_until(std::string_view& text, char separator) {
    const std::string_view part = text.substr(0, text.find(separator));
    text.remove_prefix(std::min(part.size() + 1, text.size()));
    return part;
}

bool take_prefix(std::string_view& text, std::string_view prefix) {
    if (text.substr(0, prefix.size()) != prefix) return false;
    text.remove_prefix(prefix.size());
    return true;
}

/// Numbers with dots between them, at least two: "580.159.04" and not "x86_64".
bool is_version(std::string_view word) {
    char before = '.';
    for (const char character : word) {
        if (!is_digit(character) && (character != '.' || before == '.')) return false;
        before = character;
    }
    return before != '.' && word.find('.') != std::string_view::npos;
}

}  // namespace

std::optional<Id128> parse_id(std::string_view text) {
    if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
    const bool dashes = text.size() == 36;
    if (!dashes && text.size() != 32) return std::nullopt;
    Id128 id;
    for (std::uint8_t& byte : id.bytes) {
        const auto index = static_cast<std::size_t>(&byte - id.bytes.data());
        if (dashes && (index == 4 || index == 6 || index == 8 || index == 10)) {
            if (text.front() != '-') return std::nullopt;
            text.remove_prefix(1);
        }
        const auto [stop, error] = std::from_chars(text.data(), text.data() + 2, byte, 16);
        if (error != std::errc{} || stop != text.data() + 2) return std::nullopt;
        text.remove_prefix(2);
    }
    if (id.is_zero()) return std::nullopt;
    return id;
}

std::optional<ProcessStat> parse_stat(std::string_view text) {
    // "PID (NAME) STATE ...": the name is the process's own choice and may hold spaces, parentheses and line ends.
    const std::size_t name_end = text.rfind(')');
    if (name_end == std::string_view::npos || text.substr(name_end).size() < 2) return std::nullopt;
    text.remove_prefix(name_end + 2);
    constexpr std::size_t kState = 3;  // fields are counted from 1, as proc(5) does
    constexpr std::size_t kThreads = 20;
    constexpr std::size_t kStart = 22;
    std::array<std::string_view, kStart + 1> fields{};
    for (std::size_t field = kState; field <= kStart; ++field) {
        const std::size_t end = text.find(' ');
        if (end == std::string_view::npos) return std::nullopt;  // more fields follow: the file is cut short
        fields[field] = text.substr(0, end);
        text.remove_prefix(end + 1);
    }
    const auto threads = parse_number<std::uint64_t>(fields[kThreads]);
    const auto start = parse_number<std::uint64_t>(fields[kStart]);
    if (fields[kState].size() != 1 || !threads || !start) return std::nullopt;
    return ProcessStat{.state = fields[kState].front(), .threads = *threads, .start = *start};
}

std::optional<int> parse_channel_name(std::string_view name) {
    if (!take_prefix(name, "channel")) return std::nullopt;
    if (name.empty() || name.front() == '-' || (name.front() == '0' && name.size() > 1)) return std::nullopt;
    return parse_number<int>(name);
}

std::optional<unsigned int> parse_channel_major(std::string_view devices) {
    while (!devices.empty()) {
        std::string_view line = take_until(devices, '\n');
        line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
        const std::string_view number = take_until(line, ' ');
        if (line == "nvidia-caps-imex-channels") return parse_number<unsigned int>(number);
    }
    return std::nullopt;
}

std::string parse_module_version(std::string_view version) {
    // "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Release Build  (...)", or with "Open Kernel Module
    // for x86_64". The words before the version and after it differ from release to release.
    constexpr std::size_t kLongest = 32;
    if (!take_prefix(version, "NVRM version:")) return {};
    const std::size_t end = version.find('\n');
    // The last word of a file that is cut short may be cut itself.
    const bool whole = end != std::string_view::npos;
    std::string_view line = version.substr(0, end);
    while (!line.empty()) {
        const bool last = line.find(' ') == std::string_view::npos;
        const std::string_view word = take_until(line, ' ');
        if (word.size() <= kLongest && is_version(word) && (whole || !last)) return std::string(word);
    }
    return {};
}

std::optional<std::uint32_t> parse_module_parameter(std::string_view params, std::string_view name) {
    // A line without its end may be cut within the number.
    while (params.find('\n') != std::string_view::npos) {
        std::string_view line = take_until(params, '\n');
        if (take_prefix(line, name) && take_prefix(line, ": ")) return parse_number<std::uint32_t>(line);
    }
    return std::nullopt;
}

}  // namespace fabricmem::detail
