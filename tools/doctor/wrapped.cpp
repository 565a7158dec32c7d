// SPDX-License-Identifier: Apache-2.0
#include "doctor/wrapped.hpp"

#include <algorithm>
#include <vector>

namespace doctor {
namespace {

/// What is not broken, and whether it goes on as the same command behind it.
struct Piece {
    std::string text{};
    bool command_goes_on = false;
};

void split_words(std::string_view text, std::vector<Piece>& pieces) {
    while (!text.empty()) {
        const std::size_t end = std::min(text.find(' '), text.size());
        if (end > 0) pieces.push_back({std::string(text.substr(0, end))});
        text.remove_prefix(std::min(end + 1, text.size()));
    }
}

// A command that is longer than a line: at spaces outside of single quotes.
void split_command(std::string_view command, std::vector<Piece>& pieces) {
    bool quoted = false;
    std::string piece;
    for (const char character : command) {
        if (character == '\'') quoted = !quoted;
        if (character == ' ' && !quoted) {
            pieces.push_back({std::move(piece), true});
            piece.clear();
        } else {
            piece += character;
        }
    }
    pieces.push_back({std::move(piece)});
}

/// Words, and commands with what is glued to them ("`dmesg`,").
std::vector<Piece> pieces_of(std::string_view text, std::size_t room) {
    std::vector<Piece> pieces;
    while (!text.empty()) {
        const std::size_t begin = text.find('`');
        const std::size_t end = begin == text.npos ? begin : text.find('`', begin + 1);
        if (end == text.npos) {
            split_words(text, pieces);
            break;
        }
        const std::size_t glued_from = text.rfind(' ', begin) == text.npos ? 0 : text.rfind(' ', begin) + 1;
        split_words(text.substr(0, glued_from), pieces);
        const std::size_t glued_to = std::min(text.find(' ', end), text.size());
        const std::string_view command = text.substr(glued_from, glued_to - glued_from);
        if (command.size() > room)
            split_command(command, pieces);
        else
            pieces.push_back({std::string(command)});
        text.remove_prefix(std::min(glued_to + 1, text.size()));
    }
    return pieces;
}

}  // namespace

std::string painted(std::string_view text, Style style, Paint paint) {
    if (paint == Paint::plain || style == Style::none) return std::string(text);
    const char* code = "";
    switch (style) {
        case Style::good: code = "32"; break;
        case Style::bad: code = "1;31"; break;
        case Style::doubtful: code = "33"; break;
        case Style::dim: code = "2"; break;
        case Style::strong: code = "1"; break;
        case Style::none: break;
    }
    return std::string("\x1b[").append(code).append("m").append(text).append("\x1b[0m");
}

std::string wrapped(std::string_view head, std::string_view text, std::size_t indent, std::size_t width) {
    const std::size_t room = width > indent + 2 ? width - indent - 2 : 1;  // two for a backslash
    std::string all;
    std::string line(head);
    bool empty = true;  // nothing but the head, or the indent, is in the line
    bool in_command = false;
    const auto end_line = [&](bool with_backslash) {
        while (!line.empty() && line.back() == ' ') line.pop_back();
        all += line + (with_backslash ? " \\\n" : "\n");
        line.assign(indent, ' ');
        empty = true;
    };
    for (const Piece& piece : pieces_of(text, room)) {
        const std::size_t behind = piece.command_goes_on ? 2 : 0;
        const std::size_t wants = line.size() + (empty ? 0 : 1) + piece.text.size() + behind;
        if (wants > width && (!empty || line.size() > indent)) end_line(in_command);
        if (!empty) line += ' ';
        line += piece.text;
        empty = false;
        in_command = piece.command_goes_on;
    }
    end_line(false);
    return all;
}

}  // namespace doctor
