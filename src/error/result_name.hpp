// SPDX-License-Identifier: Apache-2.0
// Names of CUresult values by number, so that a text can be made where there is no driver to ask.
#pragma once

#include <string_view>

namespace fabricmem::detail {

/// "CUDA_ERROR_NOT_PERMITTED" for 800; "an unlisted CUresult" for one that the library never had to name.
[[nodiscard]] std::string_view result_name(int code) noexcept;

}  // namespace fabricmem::detail
