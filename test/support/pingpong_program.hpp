// SPDX-License-Identifier: Apache-2.0
// What tests of fabricmem-pingpong share.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "support/captured_process.hpp"
#include "support/driver_under_test.hpp"

namespace fabricmem::test {

/// How long a test waits for a program that should end by itself. Generous: machines are busy, or emulated.
inline constexpr int kPatienceSeconds = 100;

using Arguments = std::vector<std::string>;

inline Arguments operator+(Arguments arguments, const Arguments& more) {
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
}

/// A command line with the driver under test.
inline Arguments pingpong(const Arguments& arguments) {
    return Arguments{FABRICMEM_PINGPONG, "--driver", testing_cuda() ? "cuda" : "emulated"} + arguments;
}

/// FABRICMEM_FAULTS of the programs that are started while it lives.
class Faults {
public:
    explicit Faults(const char* text) { ::setenv("FABRICMEM_FAULTS", text, 1); }
    Faults(const Faults&) = delete;
    Faults& operator=(const Faults&) = delete;
    ~Faults() { ::unsetenv("FABRICMEM_FAULTS"); }
};

inline std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
}

/// The lines without those that tell of something slow, as all is on a busy machine.
inline std::vector<std::string> said_in(const std::string& text) {
    std::vector<std::string> said = lines_of(text);
    const auto is_notice = [](const std::string& line) {
        return line.find(" s at most") != line.npos || line.find("fabricmem-pingpong: round ") != line.npos;
    };
    said.erase(std::remove_if(said.begin(), said.end(), is_notice), said.end());
    return said;
}

/// The lines that are errors.
inline std::vector<std::string> errors_of(const std::string& text) {
    std::vector<std::string> errors = lines_of(text);
    const auto is_other = [](const std::string& line) { return line.find("error: ") == line.npos; };
    errors.erase(std::remove_if(errors.begin(), errors.end(), is_other), errors.end());
    return errors;
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

}  // namespace fabricmem::test
