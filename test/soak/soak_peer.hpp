// SPDX-License-Identifier: Apache-2.0
// The processes of a soak: a survivor that obeys lines, and victims that live until they are killed.
#pragma once

#include <string>

namespace fabricmem::soak {

struct PeerOptions {
    std::string role;    ///< survivor, exporter or importer
    std::string driver;  ///< emulated or cuda
    std::string place;   ///< of an exporter's memory: device or host
    std::string user;    ///< whose the process becomes; 0: nobody else's
};

/// Speaks lines on the standard streams; returns the process's exit code.
[[nodiscard]] int run_peer(const PeerOptions& options);

}  // namespace fabricmem::soak
