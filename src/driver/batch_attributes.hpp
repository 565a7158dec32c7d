// SPDX-License-Identifier: Apache-2.0
// The attributes of cuMemcpyBatchAsync, laid out as cuda.h has them from 12.8 on, for older ones too.
#pragma once

#include <cstddef>

#include <cuda.h>

namespace fabricmem::detail {

struct BatchAttributes {
    int source_access_order = 1;  ///< CU_MEMCPY_SRC_ACCESS_ORDER_STREAM
    CUmemLocation source_hint{};
    CUmemLocation destination_hint{};
    unsigned int flags = 0;
};
#if CUDA_VERSION >= 12080
static_assert(sizeof(BatchAttributes) == sizeof(CUmemcpyAttributes));
static_assert(offsetof(BatchAttributes, flags) == offsetof(CUmemcpyAttributes, flags));
static_assert(CU_MEMCPY_SRC_ACCESS_ORDER_STREAM == 1);
#endif

}  // namespace fabricmem::detail
