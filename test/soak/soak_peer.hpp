// SPDX-License-Identifier: Apache-2.0
// The processes of a soak: a survivor that obeys lines, and victims that live until they are killed.
#pragma once

#include <string>

namespace fabricmem::soak {

/// `role`: survivor, exporter or importer; `driver`: emulated or cuda; `place`: device or host (of an exporter). Speaks
/// lines on the standard streams; returns the process's exit code.
[[nodiscard]] int run_peer(const std::string& role, const std::string& driver, const std::string& place);

}  // namespace fabricmem::soak
