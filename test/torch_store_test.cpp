// SPDX-License-Identifier: Apache-2.0
// The adapter over PyTorch's own TCPStore, on the loopback. Built with it where the build found PyTorch's headers
// (FABRICMEM_TORCH_STORE); skipped elsewhere.
#include <fabricmem/c10d_store.hpp>

#include "support/store_conformance.hpp"
#include "support/test.hpp"

#if defined(FABRICMEM_TORCH_STORE)
#include "support/torch_store.hpp"
#endif

TEST_CASE("PyTorch's TCPStore is a store", "[store]") {
#if defined(FABRICMEM_TORCH_STORE)
    const auto store = fabricmem::test::make_torch_store();
    fabricmem::test::check_values(*store);
    fabricmem::test::check_limits(*store);
    fabricmem::test::check_waits(*store);
    if (store->can_compare_exchange()) fabricmem::test::check_compare_exchange(*store);
#else
    FABRICMEM_SKIP("PyTorch's C++ headers were not found when this was built");
#endif
}
