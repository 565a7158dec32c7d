// SPDX-License-Identifier: Apache-2.0
// What FabricBuffer and ImportedFabricBuffer share.
#include <utility>

#include "buffer/buffer_parts.hpp"

namespace fabricmem {

MappedBuffer::MappedBuffer(std::unique_ptr<detail::BufferParts> parts) noexcept : parts_(std::move(parts)) {}
MappedBuffer::MappedBuffer(MappedBuffer&&) noexcept = default;
MappedBuffer& MappedBuffer::operator=(MappedBuffer&&) noexcept = default;
MappedBuffer::~MappedBuffer() = default;

const detail::BufferParts& MappedBuffer::open_parts() const {
    if (parts_ == nullptr) {
        throw Error({.kind = ErrorKind::closed, .subject = "the buffer was closed or moved from"});
    }
    return *parts_;
}

void* MappedBuffer::address() const noexcept {
    return parts_ == nullptr ? nullptr : static_cast<std::byte*>(parts_->base()) + parts_->blob.offset;
}
std::uint64_t MappedBuffer::bytes() const noexcept { return parts_ == nullptr ? 0 : parts_->blob.bytes; }
std::uint64_t MappedBuffer::mapped_bytes() const noexcept { return parts_ == nullptr ? 0 : parts_->blob.mapped_bytes; }
std::uint64_t MappedBuffer::granularity() const noexcept { return parts_ == nullptr ? 0 : parts_->granularity; }
Location MappedBuffer::location() const { return open_parts().location; }
HandleKinds MappedBuffer::kinds() const noexcept { return parts_ == nullptr ? HandleKinds() : parts_->kinds; }
const Access& MappedBuffer::access() const { return open_parts().access; }
bool MappedBuffer::rdma() const noexcept { return parts_ != nullptr && parts_->rdma; }
const HandleBlob& MappedBuffer::blob() const { return open_parts().blob; }
std::shared_ptr<Driver> MappedBuffer::driver() const noexcept { return parts_ == nullptr ? nullptr : parts_->driver; }

}  // namespace fabricmem
