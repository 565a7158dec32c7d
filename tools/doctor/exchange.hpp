// SPDX-License-Identifier: Apache-2.0
// This process's part of a run with others: it offers memory, and tries what others offer.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/deadline.hpp"
#include "doctor/options.hpp"
#include "doctor/peers.hpp"
#include "doctor/watched_child.hpp"

namespace doctor {

/// Memory for others, in a child. What it needs is looked at until it is gone.
class Exporter {
public:
    Exporter(const Options& options, const Tell& tell, const examples::Deadline& all);
    Exporter(const Exporter&) = delete;
    Exporter& operator=(const Exporter&) = delete;
    /// The memory is given back.
    ~Exporter();

    [[nodiscard]] const Offer& offer() const noexcept { return offer_; }

private:
    void take_probes();

    Offer offer_;
    std::unique_ptr<WatchedChild> child_{};  // null: it is gone
};

/// Imports what others offer, in a child, and in a new one where an import hangs or crashes.
class Importer {
public:
    Importer(const Options& options, const Tell& tell, const examples::Deadline& all);

    /// One cell for each probe; for an offer of nothing, one that says why.
    [[nodiscard]] std::vector<Cell> try_all(const Offer& offer);

private:
    [[nodiscard]] Cell try_one(const Offer::Probe& probe);
    [[nodiscard]] bool start();

    const Options& options_;
    const Tell& tell_;
    const examples::Deadline& all_;
    std::unique_ptr<WatchedChild> child_{};
    Trouble no_driver_{};  ///< why this process can import nothing
};

}  // namespace doctor
