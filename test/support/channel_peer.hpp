// SPDX-License-Identifier: Apache-2.0
// Peers that find other IMEX channels than this process does: by the emulated driver's options, or by nodes of their
// own (channel_nodes.hpp) beside the real driver.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "support/driver_under_test.hpp"
#include "support/peer.hpp"

namespace fabricmem::test {

using PeerPointer = std::unique_ptr<Peer>;

/// Null, with the reason, where there is no real driver for the peer or what it was asked for can't be set up here (no
/// root, say). On the emulated driver nothing may be amiss: it throws.
[[nodiscard]] inline PeerPointer start_peer(const std::vector<std::string>& options, std::string* why_not,
                                            const std::map<std::string, std::string>& environment = {}) {
    try {
        return std::make_unique<Peer>(options, environment);
    } catch (const PeerRefused& refused) {
        if (!testing_cuda()) throw;
        *why_not = refused.what();
        return nullptr;
    }
}

/// `channels`: "none", or the numbers of the nodes that are there, as "0" or "0,1".
[[nodiscard]] inline PeerPointer start_peer_with_channels(const std::string& channels, std::string* why_not) {
    return start_peer({"--channel", channels}, why_not);
}

}  // namespace fabricmem::test

/// Declares `name`, a peer that finds these channels, or ends the test case as skipped.
#define FABRICMEM_CHANNEL_PEER_OR_SKIP(name, channels)                                                              \
    std::string name##_why_not;                                                                                     \
    const fabricmem::test::PeerPointer name = fabricmem::test::start_peer_with_channels(channels, &name##_why_not); \
    if (!name) FABRICMEM_SKIP(name##_why_not)
