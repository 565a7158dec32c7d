// SPDX-License-Identifier: Apache-2.0
// Who is connected to whom, made of what the ranks reported: a cell for each pair, and the causes of those that are
// not, folded. Knows no process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "warmup/fleet.hpp"

namespace warmup {

/// How one rank sees another.
struct Cell {
    enum class State : std::uint8_t {
        self,
        both,         ///< device and host memory proved
        device,       ///< device memory alone
        trusted,      ///< imported, and not tried
        unconnected,  ///< cause says why
        unknown,      ///< no report
    };
    State state = State::unknown;
    double ms = 0;          ///< from the peer's hello to the connection
    std::size_t cause = 0;  ///< of unconnected: which of Matrix::causes()

    [[nodiscard]] bool is_connected() const noexcept {
        return state == State::both || state == State::device || state == State::trusted;
    }
};

/// Pairs that are not connected for the same reason: what the texts say is the same but for numbers and names.
struct Cause {
    std::string stage{};  ///< "no_hello", "importing", "proving", "failed"
    std::string kind{};   ///< an ErrorKind's name; empty: nobody said
    std::string text{};   ///< the first pair's, without who exported and who imports
    struct Pair {
        std::uint32_t from = 0;
        std::uint32_t to = 0;
    };
    std::vector<Pair> pairs{};
};

class Matrix {
public:
    explicit Matrix(const std::vector<RankStory>& stories);

    [[nodiscard]] std::uint32_t ranks() const noexcept { return ranks_; }
    [[nodiscard]] const Cell& at(std::uint32_t from, std::uint32_t to) const {
        return cells_[std::size_t{from} * ranks_ + to];
    }
    [[nodiscard]] std::size_t pairs() const noexcept { return std::size_t{ranks_} * ranks_ - ranks_; }
    [[nodiscard]] std::size_t connected() const noexcept { return connected_; }
    /// By number of pairs, most first.
    [[nodiscard]] const std::vector<Cause>& causes() const noexcept { return causes_; }
    /// Nanoseconds of the steady clock at which the last connection came; 0: none did.
    [[nodiscard]] std::int64_t last_connection_ns() const noexcept { return last_connection_ns_; }

private:
    Cell cell_of(std::uint32_t from, std::uint32_t to, const nlohmann::ordered_json& peer, std::int64_t made_ns);

    std::uint32_t ranks_;
    std::vector<Cell> cells_;
    std::vector<Cause> causes_{};
    std::vector<std::string> keys_{};  // of causes_, by which they are told apart
    std::size_t connected_ = 0;
    std::int64_t last_connection_ns_ = 0;
};

/// An error's text as a rank has said it, without who exported and who imports, which ends it.
[[nodiscard]] std::string text_of(const nlohmann::ordered_json& error);

/// "0-2,5" of ascending numbers.
[[nodiscard]] std::string ranges_text(const std::vector<std::uint32_t>& numbers);

/// "0-2,4-7 -> 3; 3 -> 0-2,4-7"; "among 0-7" where it is each of them with all others.
[[nodiscard]] std::string pairs_text(const std::vector<Cause::Pair>& pairs);

/// Without what differs from pair to pair: each word that has a digit in it is one and the same.
[[nodiscard]] std::string without_numbers(std::string_view text);

}  // namespace warmup
