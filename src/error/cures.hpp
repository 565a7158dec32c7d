// SPDX-License-Identifier: Apache-2.0
// A check's cures as one text, and errors of a check. Know no CUDA.
#pragma once

#include <string>

#include <fabricmem/checks.hpp>

namespace fabricmem::detail {

/// "do this; as administrator: that; in a container: ...; in Kubernetes: ...": what there is of it.
[[nodiscard]] std::string in_words(const Cures& cures);
/// Of find_check(id); empty for an id that there is not.
[[nodiscard]] std::string cure_of(std::string_view id);

}  // namespace fabricmem::detail
