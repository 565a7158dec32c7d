// SPDX-License-Identifier: Apache-2.0
// What processes tell each other of their memory, and what each could do with the others'. Plain values with a JSON
// spelling; what comes from others is not trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace doctor {

/// What is wrong with a peer, or between two.
struct Trouble {
    std::string check{};
    std::string cause{};
};

/// What one process has for others to import.
struct Offer {
    struct Probe {
        std::string place{};
        std::string bytes{};  ///< of a fabricmem::PeerProbe, in hexadecimal
    };

    std::string nonce{};  ///< of this run: what an earlier one left behind has another
    std::vector<Probe> probes{};
    Trouble trouble{};  ///< why there are no probes
};

/// One try: memory of one process, imported by another.
struct Cell {
    enum class State : std::uint8_t { ok, failed, unknown };

    std::string exporter{};  ///< "here", "there"; of a job "rank 0"
    std::string importer{};
    std::string place{};
    State state = State::unknown;
    std::string check{};
    std::string cause{};
    std::string cure{};
    std::string side = "none";  ///< to_string(fabricmem::Side), as the importer sees it
    std::string peer{};         ///< who the exporter is
};
[[nodiscard]] std::string_view to_string(Cell::State state) noexcept;

/// What a process tells of its tries.
struct Results {
    std::map<std::string, std::string> offers{};  ///< the nonces of those that were tried, by exporter
    std::vector<Cell> cells{};
};

/// All that is known in the end.
struct Meeting {
    enum class Kind : std::uint8_t { pair, job };

    Kind kind = Kind::pair;
    std::vector<std::string> members{};  ///< "here", "there"; "rank 0"...
    std::vector<Cell> cells{};           ///< every direction and place, unknown ones too
    Trouble trouble{};                   ///< why not all is known
    std::vector<std::string> missing{};  ///< members that said nothing
};

/// At most this much of a text of a peer's is shown; control characters are not.
constexpr std::size_t kPeerTextKept = 1000;
constexpr std::size_t kMostProbes = 4;

[[nodiscard]] std::string to_text(const Offer& offer);
[[nodiscard]] std::string to_text(const Results& results);
/// nullopt for what no doctor says.
[[nodiscard]] std::optional<Offer> offer_from(std::string_view text);
/// The cells' importers are the reader's to fill in.
[[nodiscard]] std::optional<Results> results_from(std::string_view text);

/// "here" and "there" of the importer's side as a member: who has to mend it. Empty: nobody, or not known.
[[nodiscard]] std::string who_mends(const Cell& cell);

// Between a process and its children.
[[nodiscard]] std::string offer_line(const Offer::Probe& probe);
/// nullopt: the line is another one.
[[nodiscard]] std::optional<Offer::Probe> probe_from(const std::string& line);
[[nodiscard]] std::string import_line(const Offer::Probe& probe, std::int64_t timeout_ms);
struct ImportTask {
    Offer::Probe probe{};
    std::int64_t timeout_ms = 0;
};
[[nodiscard]] std::optional<ImportTask> import_from(const std::string& line);
[[nodiscard]] std::string cell_line(const Cell& cell);
[[nodiscard]] std::optional<Cell> cell_from(const std::string& line);

[[nodiscard]] std::string to_hex(const std::vector<std::byte>& bytes);
/// What is no hexadecimal is no bytes.
[[nodiscard]] std::vector<std::byte> from_hex(std::string_view text);

}  // namespace doctor
