// SPDX-License-Identifier: Apache-2.0
#include "doctor/terminal.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace doctor {
namespace {

bool may_be_coloured(bool terminal) {
    const char* const no_colour = std::getenv("NO_COLOR");
    const char* const term = std::getenv("TERM");
    const bool refused = no_colour != nullptr && *no_colour != '\0';  // https://no-color.org
    return terminal && !refused && term != nullptr && std::string_view(term) != "dumb";
}

}  // namespace

Layout layout_for_stdout(Colour colour) {
    const bool terminal = ::isatty(STDOUT_FILENO) == 1;
    Layout layout;
    winsize size{};
    if (terminal && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        layout.width = std::clamp<std::size_t>(size.ws_col, Layout::kNarrowest, Layout::kWidest);
    const bool coloured = colour == Colour::always || (colour == Colour::automatic && may_be_coloured(terminal));
    layout.paint = coloured ? Paint::coloured : Paint::plain;
    return layout;
}

}  // namespace doctor
