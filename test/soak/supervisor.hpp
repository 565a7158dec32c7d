// SPDX-License-Identifier: Apache-2.0
// Runs the rounds of a soak and looks at what they leave. Makes no driver of its own, so that nothing can hang it.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "soak/soak_options.hpp"
#include "soak/soak_process.hpp"

namespace fabricmem::soak {

/// What a survivor uses between two rounds.
struct SurvivorUsage {
    std::size_t descriptors = 0;
    std::size_t held = 0;
    std::size_t mappings = 0;
    std::size_t shared_kib = 0;
    std::size_t private_kib = 0;
};

class Supervisor {
public:
    /// `program` is this program's path. Throws Failure where the survivor does not start.
    Supervisor(std::string program, const Options& options);
    Supervisor(const Supervisor&) = delete;
    Supervisor& operator=(const Supervisor&) = delete;
    ~Supervisor();

    /// All rounds and the closing checks. Throws Failure at the first thing that is not as it has to be.
    void run();
    /// What was done, and where the victims were when they died.
    void report() const;
    [[nodiscard]] std::uint64_t rounds_done() const noexcept { return rounds_done_; }

private:
    using Clock = std::chrono::steady_clock;
    // What a victim has come to.
    enum Stage { starting, published, in_use, churning, replaced, kStages };
    // The time that a round takes where nobody is killed, as far as it is known.
    struct Span {
        double seconds = 0;
        void learn(double took) { seconds = 0.8 * seconds + 0.2 * took; }
    };
    struct Exported {
        std::string blob;  // and its pattern, as one text
        bool closing = false;
    };

    [[nodiscard]] bool go_on(Clock::time_point begin) const;
    [[nodiscard]] std::vector<std::string> peer(const std::string& role, const std::string& place = "device") const;
    void round(const Choices& choices);
    void kill_exporter(const Choices& choices);
    void kill_importer(const Choices& choices);
    // False as soon as the victim has ended.
    bool live_as_exporter(Process& victim, const Choices& choices, std::vector<Exported>* exported);
    bool live_as_importer(Process& victim, const Choices& choices, const std::string& blob, bool* closed);
    void import(Process& victim, Exported* memory, bool may_close);
    std::vector<std::string> end(Process& victim, Killer& killer, Clock::time_point begin, bool lived, Span* span);

    [[nodiscard]] SurvivorUsage usage();
    void check_nothing_left();
    void check_growth() const;
    void finish();

    const std::string program_;
    const Options options_;
    const int patience_seconds_;
    std::string folder_;  // the processes' working and temporary directory
    std::vector<std::string> shared_before_;
    std::unique_ptr<Process> survivor_;
    std::uint64_t room_ = 0;
    Span exporter_span_;
    Span importer_span_;
    std::atomic<int> stage_{starting};
    std::array<std::array<std::uint64_t, kStages>, 2> kills_{};  // by role: importer, exporter
    std::uint64_t races_lost_ = 0;                               // imports that met a closed or dead exporter
    SurvivorUsage baseline_;
    std::vector<SurvivorUsage> usages_;  // after each round
    std::uint64_t rounds_done_ = 0;
    double seconds_ = 0;
};

}  // namespace fabricmem::soak
