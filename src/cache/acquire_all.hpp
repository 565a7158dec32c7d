// SPDX-License-Identifier: Apache-2.0
// Many acquires at once: one after the other, until one of them takes long.
#pragma once

#include <span>
#include <vector>

#include <fabricmem/import_cache.hpp>

namespace fabricmem::detail {

/// As ImportCache::acquire_all().
[[nodiscard]] std::vector<AcquireResult> acquire_all(CacheCore& core, std::span<const HandleBlob> blobs,
                                                     const AcquireOptions& options);

}  // namespace fabricmem::detail
