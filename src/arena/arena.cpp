// SPDX-License-Identifier: Apache-2.0
// Checks what is asked of an arena, and words what it refuses.
#include <fabricmem/arena.hpp>

#include <bit>
#include <utility>

#include "arena/arena_core.hpp"
#include "arena/refuse_forked.hpp"
#include "buffer/buffer_parts.hpp"
#include "error/refuse.hpp"
#include "text/text.hpp"

namespace fabricmem {
namespace {

using detail::ArenaCore;

void check_options(const ArenaOptions& options) {
    if (options.max_blocks == 0 || options.max_blocks > ArenaCore::kBlocksMax)
        detail::refuse(detail::formatted("max_blocks is {}: 1 to 2^24 are taken", options.max_blocks));
}

// Checks before there is memory to undo.
FabricBuffer make_buffer(std::shared_ptr<Driver> driver, std::uint64_t bytes, FabricBufferOptions&& buffer_options,
                         const ArenaOptions& options) {
    check_options(options);
    return {std::move(driver), bytes, std::move(buffer_options)};
}

ArenaCore* make_core(FabricBuffer&& buffer, const ArenaOptions& options) {
    check_options(options);
    if (buffer.is_open()) detail::check_driver(buffer.driver());  // a closed one is the core's to refuse
    return new ArenaCore(std::move(buffer), options);
}

void check_block(const ArenaCore& core, std::uint64_t bytes, std::uint64_t alignment_bytes) {
    if (bytes == 0) detail::refuse("a block of 0 bytes");
    if (bytes > core.capacity_bytes()) {
        detail::refuse(detail::formatted("a block of {} bytes: the whole arena has {}", bytes, core.capacity_bytes()));
    }
    if (!std::has_single_bit(alignment_bytes) || alignment_bytes > core.granularity()) {
        detail::refuse(detail::formatted("an alignment of {} bytes is no power of two up to the granularity, {} bytes",
                                         alignment_bytes, core.granularity()));
    }
}

[[noreturn]] void refuse_too_many(const ArenaCore& core, std::uint64_t bytes) {
    throw Error({.kind = ErrorKind::out_of_memory,
                 .bytes = bytes,
                 .subject = detail::formatted("the arena has {} live blocks, as many as its max_blocks allows",
                                              core.max_blocks()),
                 .cure = "free blocks, or make the arena with a larger ArenaOptions::max_blocks"});
}

[[noreturn]] void refuse_no_room(const ArenaStatistics& now, std::uint64_t bytes, std::uint64_t alignment_bytes) {
    throw Error(
        {.kind = ErrorKind::out_of_memory,
         .bytes = bytes,
         .subject = detail::formatted(
             "the arena has no room for {} bytes aligned to {}: {} of its {} bytes are free, {} of them in the "
             "largest piece, beside {} live blocks",
             bytes, alignment_bytes, now.free_bytes, now.capacity_bytes, now.largest_free_bytes, now.live_blocks),
         .cure = "free blocks, or make a larger arena"});
}

}  // namespace

void detail::ArenaRelease::operator()(ArenaCore* core) const noexcept { core->end_arena(); }

Arena::Arena(FabricBuffer buffer, ArenaOptions options) : core_(make_core(std::move(buffer), options)) {}
Arena::Arena(std::shared_ptr<Driver> driver, std::uint64_t bytes, FabricBufferOptions buffer_options,
             ArenaOptions options)
    : Arena(make_buffer(std::move(driver), bytes, std::move(buffer_options), options), options) {}
Arena::Arena(Arena&&) noexcept = default;
Arena& Arena::operator=(Arena&&) noexcept = default;
Arena::~Arena() = default;

const detail::ArenaCore& Arena::open_core() const {
    if (core_ == nullptr) throw Error({.kind = ErrorKind::closed, .subject = "the arena was closed or moved from"});
    return *core_;
}

detail::ArenaCore& Arena::core_of_this_process() const {
    if (open_core().forked()) detail::refuse_forked_arena();
    return *core_;
}

Block Arena::allocate(std::uint64_t bytes, std::uint64_t alignment_bytes) {
    ArenaCore& core = core_of_this_process();
    check_block(core, bytes, alignment_bytes);
    ArenaStatistics now;
    const ArenaCore::Grant grant = core.take(bytes, alignment_bytes, &now);
    if (grant.outcome == ArenaCore::Outcome::too_many) refuse_too_many(core, bytes);
    if (grant.outcome == ArenaCore::Outcome::no_room) refuse_no_room(now, bytes, alignment_bytes);
    return {&core, grant.pool, grant.piece, grant.offset, bytes};
}

std::optional<Block> Arena::try_allocate(std::uint64_t bytes, std::uint64_t alignment_bytes) {
    ArenaCore& core = core_of_this_process();
    check_block(core, bytes, alignment_bytes);
    const ArenaCore::Grant grant = core.take(bytes, alignment_bytes, nullptr);
    if (grant.outcome != ArenaCore::Outcome::taken) return std::nullopt;
    return Block(&core, grant.pool, grant.piece, grant.offset, bytes);
}

ArenaStatistics Arena::statistics() const { return core_of_this_process().statistics(); }
const HandleBlob& Arena::blob() const { return open_core().blob(); }
Location Arena::location() const { return open_core().buffer().location(); }
const Access& Arena::access() const { return open_core().buffer().access(); }
std::uint64_t Arena::granularity() const { return open_core().granularity(); }
void* Arena::address() const noexcept { return core_ == nullptr ? nullptr : core_->at(0); }
std::shared_ptr<Driver> Arena::driver() const noexcept { return core_ == nullptr ? nullptr : core_->buffer().driver(); }

HandleBlob Arena::export_again() const {
    HandleBlob blob = core_of_this_process().buffer().export_again();
    blob.bytes = blob.mapped_bytes;
    return blob;
}

CloseResult Arena::close() {
    if (core_ == nullptr) return CloseResult::released;
    if (core_->forked()) {
        core_.reset();
        detail::refuse_forked_arena();
    }
    if (const ArenaStatistics now = core_->statistics(); now.live_blocks != 0) {
        throw Error(
            {.kind = ErrorKind::conflict,
             .subject =
                 detail::formatted("{} blocks of the arena are live, {} bytes", now.live_blocks, now.asked_bytes),
             .cure = "free them first; where the arena is destroyed instead, the memory stays until the last of "
                     "them is freed"});
    }
    FabricBuffer buffer = std::move(core_->buffer());
    core_.reset();
    return buffer.close();
}

}  // namespace fabricmem
