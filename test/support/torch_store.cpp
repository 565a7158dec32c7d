// SPDX-License-Identifier: Apache-2.0
#include "support/torch_store.hpp"

#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <fabricmem/c10d_store.hpp>

namespace fabricmem::test {

std::shared_ptr<Store> make_torch_store() {
    c10d::TCPStoreOptions options;
    options.port = 0;
    options.isServer = true;
    options.waitWorkers = false;
    return adapt_c10d_store(std::make_shared<c10d::TCPStore>("127.0.0.1", options));
}

}  // namespace fabricmem::test
