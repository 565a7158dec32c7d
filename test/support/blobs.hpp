// SPDX-License-Identifier: Apache-2.0
// Handle blobs for tests: the example of docs/blob-format.md, one with everything known, one with nothing known.
// Knows no offset: what tests damage, they name themselves.
#pragma once

#include <cstdint>

#include <fabricmem/handle_blob.hpp>

namespace fabricmem::test {

/// 16 bytes that rise from `first`.
inline fabricmem::Id128 id_from(std::uint8_t first) {
    fabricmem::Id128 id;
    for (std::uint8_t& byte : id.bytes) byte = first++;
    return id;
}

/// The example of docs/blob-format.md.
inline fabricmem::HandleBlob example_blob() {
    using namespace fabricmem;
    HandleBlob blob;
    blob.kinds = {HandleKind::fabric, HandleKind::posix_fd};
    blob.location_kind = LocationKind::device;
    blob.device_ordinal = 3;
    blob.device_uuid = id_from(0xa0);
    blob.allocation_id = id_from(0xb0);
    blob.peer = id_from(0xc0);
    blob.generation = 2;
    blob.host_id = id_from(0xd0);
    blob.boot_id = id_from(0xe0);
    blob.process_id = 4711;
    blob.pid_namespace = 4026531836;
    blob.process_start = 123456789;
    blob.imex_channel = 0;
    blob.fabric = FabricPlace{id_from(0xf0), 7};
    blob.mapped_bytes = 4194304;
    blob.offset = 2097152;
    blob.bytes = 1048576;
    blob.granularity = 2097152;
    blob.rdma = true;
    blob.created_ns = 1700000000123456789;
    std::uint8_t next = 1;
    for (std::uint8_t& byte : blob.handle) byte = next++;
    return blob;
}

inline fabricmem::HandleBlob full_blob() {
    fabricmem::HandleBlob blob = example_blob();
    blob.numa_node = 1;
    blob.descriptor_token = id_from(0x70);
    return blob;
}

/// The least that is a blob.
inline fabricmem::HandleBlob bare_blob() {
    fabricmem::HandleBlob blob;
    blob.kinds = fabricmem::HandleKind::fabric;
    blob.location_kind = fabricmem::LocationKind::host_numa;
    blob.mapped_bytes = 2097152;
    blob.bytes = 2097152;
    return blob;
}

}  // namespace fabricmem::test
