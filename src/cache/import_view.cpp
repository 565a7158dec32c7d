// SPDX-License-Identifier: Apache-2.0
// A share in a cached import.
#include <utility>

#include "cache/cache_core.hpp"
#include "cache/cache_slot.hpp"
#include "driver/check.hpp"
#include "error/refuse.hpp"

namespace fabricmem {

ImportView::ImportView(const ImportView& other) noexcept
    : slot_(other.slot_), address_(other.address_), bytes_(other.bytes_), stripe_(other.stripe_) {
    if (slot_ != nullptr) slot_->refs.take_another(stripe_);
}

ImportView& ImportView::operator=(const ImportView& other) noexcept {
    if (this != &other) *this = ImportView(other);
    return *this;
}

ImportView& ImportView::operator=(ImportView&& other) noexcept {
    if (this == &other) return *this;
    let_go();
    slot_ = std::exchange(other.slot_, nullptr);
    address_ = std::exchange(other.address_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    stripe_ = other.stripe_;
    return *this;
}

void ImportView::let_go() noexcept {
    address_ = nullptr;
    bytes_ = 0;
    if (slot_ == nullptr) return;
    detail::CacheSlot& slot = *std::exchange(slot_, nullptr);
    slot.touch(slot.core->tick());  // its idle time begins
    detail::let_go(slot, stripe_);
}

detail::CacheSlot& ImportView::open_slot() const {
    if (slot_ == nullptr) throw Error({.kind = ErrorKind::closed, .subject = "the view was let go or moved from"});
    return *slot_;
}

const ImportedFabricBuffer& ImportView::buffer() const { return open_slot().import->buffer; }

void ImportView::retire_after(std::function<bool()> done) {
    detail::CacheSlot& slot = open_slot();
    if (!done) detail::refuse("retire_after() without a question that can be asked");
    slot.core->defer(*this, std::move(done));
}

void ImportView::retire_after_stream(void* stream) {
    detail::CacheSlot& slot = open_slot();
    if (stream == nullptr) detail::refuse("retire_after_stream() with the default stream");
    // The import keeps the driver, and the view the import.
    Driver& driver = *slot.core->driver();
    slot.core->defer(*this, [&driver, stream] {
        const CUresult result = driver.stream_query(static_cast<CUstream>(stream));
        switch (static_cast<int>(result)) {
            case CUDA_SUCCESS:
            case CUDA_ERROR_DEINITIALIZED:
            // The context is lost, with all its work.
            case CUDA_ERROR_CONTEXT_IS_DESTROYED:
            case CUDA_ERROR_ILLEGAL_ADDRESS:
            case CUDA_ERROR_LAUNCH_FAILED: return true;
            case CUDA_ERROR_NOT_READY: return false;
            default: detail::check(result, driver, {.call = "cuStreamQuery"}); return false;
        }
    });
}

}  // namespace fabricmem
