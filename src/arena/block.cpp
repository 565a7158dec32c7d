// SPDX-License-Identifier: Apache-2.0
// One block: a range of its arena's memory, and a share in it.
#include <utility>

#include "arena/arena_core.hpp"
#include "arena/refuse_forked.hpp"

namespace fabricmem {

Block& Block::operator=(Block&& other) noexcept {
    if (this == &other) return *this;
    if (core_ != nullptr) static_cast<void>(release());
    core_ = std::exchange(other.core_, nullptr);
    offset_ = std::exchange(other.offset_, 0);
    bytes_ = std::exchange(other.bytes_, 0);
    piece_ = other.piece_;
    pool_ = other.pool_;
    return *this;
}

bool Block::release() noexcept {
    offset_ = 0;
    return std::exchange(core_, nullptr)->give_back(pool_, piece_, std::exchange(bytes_, 0));
}

const detail::ArenaCore& Block::open_core() const {
    if (core_ == nullptr) {
        throw Error({.kind = ErrorKind::closed, .subject = "the block was freed or moved from"});
    }
    return *core_;
}

void* Block::address() const noexcept { return core_ == nullptr ? nullptr : core_->at(offset_); }
HandleBlob Block::blob() const { return open_core().blob().sub_range(offset_, bytes_); }
Location Block::location() const { return open_core().buffer().location(); }
const Access& Block::access() const { return open_core().buffer().access(); }
std::shared_ptr<Driver> Block::driver() const noexcept { return core_ == nullptr ? nullptr : core_->buffer().driver(); }

void Block::free() {
    static_cast<void>(open_core());
    if (!release()) detail::refuse_forked_arena();
}

}  // namespace fabricmem
