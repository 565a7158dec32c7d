// SPDX-License-Identifier: Apache-2.0
// Every driver call of a meeting fails, one after the other: each rank is connected or says why not, by the deadline,
// and nothing is left.
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fabricmem/fault_driver.hpp>
#include <fabricmem/handshake.hpp>

#include "support/buffers.hpp"
#include "support/build.hpp"
#include "support/expect_error.hpp"
#include "support/meeting.hpp"
#include "support/operations.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

enum class Extent { one_call, all_from_there };

struct Outcome {
    bool met = false;  // there was such a call
    bool thrown = false;
    HandshakeReport here;
    HandshakeReport there;
};

// Rank 0's call `number` fails, in all of its life; rank 1 is well.
Outcome meet(const std::shared_ptr<Driver>& good, const std::shared_ptr<FaultDriver>& faulty, std::uint64_t number,
             CUresult result, Extent extent) {
    for (std::uint64_t i = 0; i < (extent == Extent::one_call ? 1 : 300); ++i)
        faulty->add({.number = number + i, .result = result});
    Outcome outcome;
    try {
        Meeting meeting({faulty, good}, {.max_ranks = 4, .retry_pause = std::chrono::milliseconds(1)});
        meeting.exchange();
        // A call that fails once is tried again; what goes on failing is given up soon.
        const auto settled = meeting.poll_until_done(extent == Extent::one_call ? std::chrono::milliseconds(200)
                                                                                : std::chrono::milliseconds(10));
        outcome.here = meeting[0].wait(soon(std::chrono::milliseconds(0)));
        outcome.there = meeting[1].wait(soon(std::chrono::milliseconds(0)));
        if (settled && outcome.here.connected == 1) {
            try {
                meeting[0].health_check(1, soon(std::chrono::seconds(60)));
            } catch (const Error&) {
                outcome.thrown = true;
            }
        }
        meeting.close();
    } catch (const Error&) {
        outcome.thrown = true;
    }
    outcome.met = faulty->met() != 0;
    faulty->clear();
    return outcome;
}

bool tells(const HandshakeReport& report) {
    for (const PeerReport& peer : report.peers) {
        if (peer.stage != PeerStage::connected && peer.stage != PeerStage::self && !peer.error.has_value())
            return false;
    }
    return true;
}

}  // namespace

TEST_CASE("Each driver call of a meeting can fail: it is told, by the deadline, and nothing is left",
          "[handshake][fault]") {
    const QuietLog quiet;
    const auto good = make_emulated_driver();
    const auto before = emulated_counts(*good);
    const std::size_t descriptors = open_descriptors();
    std::size_t tried = 0;
    std::size_t connected = 0;
    const std::vector<CUresult> results =
        kSlowBuild
            ? std::vector<CUresult>{CUDA_ERROR_OUT_OF_MEMORY}
            : std::vector<CUresult>{CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_LAUNCH_FAILED};
    for (const CUresult result : results) {
        for (const Extent extent : {Extent::one_call, Extent::all_from_there}) {
            for (std::uint64_t number = 1;; ++number) {
                INFO("call " << number << " fails with " << result
                             << (extent == Extent::one_call ? "" : " and all later ones"));
                const auto faulty = std::make_shared<FaultDriver>(good);
                const Outcome outcome = meet(good, faulty, number, result, extent);
                if (!outcome.met) break;
                ++tried;
                connected += outcome.here.connected;
                CHECK(tells(outcome.here));
                CHECK(tells(outcome.there));
                REQUIRE(emulated_counts(*good) == before);
                REQUIRE(open_descriptors() == descriptors);
            }
        }
    }
    CHECK(tried > 100);
    CHECK(connected > 10);  // what can be tried again is
    std::printf("handshake fault loop: %zu faults tried, %zu ended connected\n", tried, connected);
}
