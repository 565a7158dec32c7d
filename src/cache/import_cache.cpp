// SPDX-License-Identifier: Apache-2.0
#include <fabricmem/import_cache.hpp>

#include <exception>
#include <utility>

#include "buffer/deadline.hpp"
#include "cache/acquire_all.hpp"
#include "cache/cache_core.hpp"
#include "cache/refuse_cache.hpp"
#include "text/text.hpp"
#include "worker/workers.hpp"

namespace fabricmem {

void detail::CacheRelease::operator()(CacheCore* core) const noexcept { core->end_cache(); }

ImportCache::ImportCache(std::shared_ptr<Driver> driver, const ImportCacheOptions& options)
    : core_(new detail::CacheCore(std::move(driver), options)) {}
ImportCache::ImportCache(ImportCache&&) noexcept = default;
ImportCache& ImportCache::operator=(ImportCache&&) noexcept = default;
ImportCache::~ImportCache() = default;

detail::CacheCore& ImportCache::core_of_this_process() const {
    if (core_ == nullptr)
        throw Error({.kind = ErrorKind::closed, .subject = "the import cache was closed or moved from"});
    if (core_->forked()) detail::refuse_forked_cache();
    return *core_;
}

ImportView ImportCache::acquire(const HandleBlob& blob, const AcquireOptions& options) {
    return core_of_this_process().acquire(blob, options);
}

std::vector<AcquireResult> ImportCache::acquire_all(std::span<const HandleBlob> blobs, const AcquireOptions& options) {
    return detail::acquire_all(core_of_this_process(), blobs, options);
}

std::size_t ImportCache::evict(const Id128& peer) { return core_of_this_process().retire_peer(peer); }
std::size_t ImportCache::invalidate(const Id128& allocation_id) {
    return core_of_this_process().retire_allocation(allocation_id);
}
std::size_t ImportCache::collect(std::chrono::steady_clock::time_point now) {
    return core_of_this_process().collect(now);
}

void ImportCache::add_range(const Id128& peer, std::uint64_t remote_address, const HandleBlob& blob) {
    core_of_this_process().add_range(peer, remote_address, blob);
}
bool ImportCache::remove_range(const Id128& peer, std::uint64_t remote_address) {
    return core_of_this_process().remove_range(peer, remote_address);
}
ImportView ImportCache::translate(const Id128& peer, std::uint64_t remote_address, std::uint64_t bytes) const {
    return core_of_this_process().translate(peer, remote_address, bytes);
}

ImportCacheStatistics ImportCache::statistics() const { return core_of_this_process().statistics(); }
bool ImportCache::wait_until_torn_down(std::chrono::steady_clock::time_point deadline) {
    return core_of_this_process().wait_until_torn_down(deadline);
}
std::shared_ptr<Driver> ImportCache::driver() const noexcept { return core_ == nullptr ? nullptr : core_->driver(); }

void ImportCache::close() {
    if (core_ == nullptr) return;
    if (core_->forked()) {
        core_.reset();
        detail::refuse_forked_cache();
    }
    core_->close();
    if (const std::exception_ptr why = core_->stalled()) {
        core_.reset();
        std::rethrow_exception(why);
    }
    const std::chrono::milliseconds timeout = core_->tear_down_timeout();
    const bool ended = core_->wait_until_torn_down(detail::deadline_after(timeout));
    const detail::Reaper::Backlog left = core_->backlog();
    core_.reset();
    if (ended) return;
    const detail::HeldUp held = left.of_other_nodes == 0 ? detail::held_up_by_driver() : detail::held_up_by_daemon();
    throw Error(
        {.kind = ErrorKind::timed_out,
         .subject = detail::formatted("{} cached imports, {} of them of other nodes, have not ended within {} ms",
                                      left.imports, left.of_other_nodes, timeout.count()),
         .cause = held.cause,
         .cure = detail::formatted("{}; they end in a thread of their own, which stuck_calls() counts", held.cure),
         .check = held.check});
}

}  // namespace fabricmem
