// SPDX-License-Identifier: Apache-2.0
// PyTorch's TCPStore, adapted, in a file of its own: its headers need other settings than our tests.
#pragma once

#include <memory>

#include <fabricmem/store.hpp>

namespace fabricmem::test {

/// With a server of its own on a free port of the loopback.
[[nodiscard]] std::shared_ptr<Store> make_torch_store();

}  // namespace fabricmem::test
