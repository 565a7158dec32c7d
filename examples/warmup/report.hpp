// SPDX-License-Identifier: Apache-2.0
// What the program says: the first line, the matrix and the causes for humans, all of it as one JSON document.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "warmup/fleet.hpp"
#include "warmup/matrix.hpp"
#include "warmup/options.hpp"
#include "warmup/site.hpp"

namespace warmup {

/// On stdout, or on stderr where that is for JSON.
void print_first_line(const Options& options, const Site& site, const std::string& store);

class Report {
public:
    /// `left_in_store` as clean() has it. All are looked at by the methods alone.
    Report(const Options& options, const Site& site, const Fleet& fleet, const Matrix& matrix,
           std::vector<std::string> left_in_store);

    /// All are connected, no process failed, and nothing was left behind.
    [[nodiscard]] bool is_good() const noexcept;
    void print() const;

private:
    struct Trouble {
        std::uint32_t rank = 0;
        std::string text{};
    };

    void look_at(std::uint32_t rank, const RankStory& story);
    void print_text() const;
    void print_troubles() const;
    void print_json() const;
    [[nodiscard]] std::string summary() const;

    const Options& options_;
    const Site& site_;
    const Fleet& fleet_;
    const Matrix& matrix_;
    std::vector<Trouble> troubles_{};  // of ranks as such
    std::vector<std::string> left_{};  // behind, each a sentence
    std::optional<double> start_to_last_hello_ms_{};
    // Below 0 where the last hello was of a rank that connects to none.
    std::optional<double> last_hello_to_last_connection_ms_{};
};

/// One line on stderr, and a document for --json.
void print_failure(const Options& options, const std::string& error);

}  // namespace warmup
