// SPDX-License-Identifier: Apache-2.0
// What is wrong with another process.
#pragma once

#include <stdexcept>

namespace examples {

/// The peer is gone, never came, came too late, speaks something else, or disagrees.
class PeerError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

}  // namespace examples
