// SPDX-License-Identifier: Apache-2.0
// Wires buffers to the table, and words what a look-up finds.
#include <fabricmem/owned_ranges.hpp>

#include <utility>

#include "error/refuse.hpp"
#include "registry/range_registry.hpp"
#include "text/text.hpp"

namespace fabricmem {

std::string_view to_string(OwnedState state) noexcept {
    switch (state) {
        case OwnedState::owned: return "owned";
        case OwnedState::not_owned: return "not_owned";
        case OwnedState::tearing_down: return "tearing_down";
        case OwnedState::beyond_end: return "beyond_end";
        case OwnedState::crosses_buffers: return "crosses_buffers";
    }
    return "unknown";
}

OwnedRanges::OwnedRanges() : registry_(std::make_shared<detail::RangeRegistry>()) {}
OwnedRanges::~OwnedRanges() = default;

FabricBufferOptions OwnedRanges::watch(FabricBufferOptions options) const {
    options.on_make = [registry = registry_, inner = std::move(options.on_make)](const BufferInfo& buffer) {
        if (inner) inner(buffer);
        registry->add(buffer);
    };
    options.before_tear_down = [registry = registry_,
                                inner = std::move(options.before_tear_down)](const BufferInfo& buffer) {
        registry->begin_tear_down(buffer);
        if (inner) inner(buffer);
    };
    options.after_tear_down = [registry = registry_,
                               inner = std::move(options.after_tear_down)](const BufferInfo& buffer) {
        registry->end_tear_down(buffer);
        if (inner) inner(buffer);
    };
    return options;
}

void OwnedRanges::add(const BufferInfo& buffer) const { registry_->add(buffer); }
void OwnedRanges::begin_tear_down(const BufferInfo& buffer) const noexcept { registry_->begin_tear_down(buffer); }
void OwnedRanges::end_tear_down(const BufferInfo& buffer) const noexcept { registry_->end_tear_down(buffer); }
std::size_t OwnedRanges::size() const noexcept { return registry_->size(); }

OwnedRange OwnedRanges::look_up(const void* address, std::uint64_t bytes) const noexcept {
    return registry_->look_up(reinterpret_cast<std::uintptr_t>(address), bytes);
}

OwnedRange OwnedRanges::at(const void* address, std::uint64_t bytes) const {
    if (bytes == 0) detail::refuse(detail::formatted("a range of 0 bytes at {}", address));
    OwnedRange range = look_up(address, bytes);
    if (range.state == OwnedState::owned) return range;
    ErrorDetails details{.kind = ErrorKind::bad_argument,
                         .bytes = bytes,
                         .subject = detail::formatted("a range of {} bytes at {}", bytes, address)};
    const auto buffer = [&] {
        return detail::formatted("the buffer of {} bytes at {}", range.buffer_bytes, range.base);
    };
    switch (range.state) {
        case OwnedState::tearing_down:
            details.kind = ErrorKind::conflict;
            details.cause = buffer() + " is being torn down";
            break;
        case OwnedState::beyond_end: details.cause = "it goes beyond the end of " + buffer(); break;
        case OwnedState::crosses_buffers:
            details.cause = "it begins in " + buffer() + " and reaches into another one";
            details.cure = "send each buffer's part by itself";
            break;
        default: details.cause = "it begins in no buffer that is watched"; break;
    }
    throw Error(std::move(details));
}

}  // namespace fabricmem
