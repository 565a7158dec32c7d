// SPDX-License-Identifier: Apache-2.0
// Doctors of two processes, or of all ranks of a job, try each other's memory.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "doctor/options.hpp"
#include "doctor/peers.hpp"
#include "doctor/watched_child.hpp"

namespace pingpong {
class Listener;
}

namespace doctor {

/// Two processes. What goes wrong with the peer is in the meeting.
class PairMeeting {
public:
    /// Listens from now on, where it is to. Throws DoctorFailed where it can't.
    explicit PairMeeting(const Options& options);
    PairMeeting(const PairMeeting&) = delete;
    PairMeeting& operator=(const PairMeeting&) = delete;
    ~PairMeeting();

    [[nodiscard]] Meeting run(const Tell& tell);

private:
    const Options& options_;
    std::unique_ptr<pingpong::Listener> listener_{};
};

/// All ranks of a job, through a store. Every rank comes to know all cells. Throws DoctorFailed where the store can't
/// be used.
[[nodiscard]] Meeting run_job(const Options& options, const Tell& tell);

}  // namespace doctor
