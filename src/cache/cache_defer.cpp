// SPDX-License-Identifier: Apache-2.0
// Views that wait for work on their memory.
#include <exception>
#include <iterator>
#include <utility>

#include "cache/cache_core.hpp"
#include "cache/refuse_cache.hpp"
#include "log/log.hpp"

namespace fabricmem::detail {

void CacheCore::defer(ImportView& view, std::function<bool()> done) {
    if (forked()) refuse_forked_cache();
    DeferredList one;
    one.push_back({ImportView(), std::move(done), false});
    one.back().view = std::move(view);
    bool orphaned = false;
    {
        const std::lock_guard lock(mutex_);
        orphaned = orphaned_;
        if (!orphaned) {
            ++deferred_count_;
            deferred_.splice(deferred_.end(), one);
        }
    }
    if (!orphaned) return;  // and the view may be gone by now, and all this with it
    if (is_done(one.back())) return;
    keep_for_ever(one);
}

bool CacheCore::is_done(Deferred& deferred) noexcept {
    const auto tell = [&](const char* what) {
        if (std::exchange(deferred.told, true)) return;
        log(LogLevel::error, "what a cached import was to be retired after threw, so it is kept: {}", what);
    };
    try {
        return deferred.done();
    } catch (const std::exception& error) {
        tell(error.what());
    } catch (...) {
        tell("what is no std::exception");
    }
    return false;
}

void CacheCore::ask_deferred() {
    DeferredList asked;
    {
        const std::lock_guard lock(mutex_);
        asked.swap(deferred_);
    }
    if (asked.empty()) return;
    DeferredList over;
    for (auto one = asked.begin(); one != asked.end();) {
        const auto next = std::next(one);
        if (is_done(*one)) over.splice(over.end(), asked, one);
        one = next;
    }
    const std::lock_guard lock(mutex_);
    deferred_count_ -= over.size();
    deferred_.splice(deferred_.end(), asked);
}  // what is over ends after the lock

// Nobody is left to ask: unmapping under queued work would lose the context.
void CacheCore::keep_for_ever(DeferredList& abandoned) noexcept {
    for (Deferred& deferred : abandoned) {
        log(LogLevel::error,
            "{} bytes of a cached import stay mapped until the process ends: work on them may be queued",
            deferred.view.bytes_);
        deferred.view.slot_ = nullptr;
    }
    if (!abandoned.empty()) leave();
}

}  // namespace fabricmem::detail
