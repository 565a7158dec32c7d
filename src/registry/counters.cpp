// SPDX-License-Identifier: Apache-2.0
#include <fabricmem/counters.hpp>

#include <utility>

#include <nlohmann/json.hpp>

#include "driver/driver_state.hpp"
#include "registry/counting_driver.hpp"

namespace fabricmem {
namespace {

using Json = nlohmann::ordered_json;  // people read it: the order is ours

MemoryCounters memory_of(const detail::BookTotals::Side& side) {
    return {.made = side.made, .live = side.live, .live_bytes = side.bytes, .peak_bytes = side.peak_bytes};
}

// The one that counts, however it is wrapped.
const detail::CountingDriver* find_counting(const Driver& driver) {
    for (const Driver* at = &driver; at != nullptr;) {
        if (const auto* const counting = dynamic_cast<const detail::CountingDriver*>(at); counting != nullptr)
            return counting;
        const auto* const wrapper = dynamic_cast<const ForwardingDriver*>(at);
        at = wrapper == nullptr ? nullptr : wrapper->inner().get();
    }
    return nullptr;
}

std::uint64_t read(const std::atomic<std::uint64_t>& counter) { return counter.load(std::memory_order_relaxed); }

Json json_of(const MemoryCounters& memory) {
    return {{"made", memory.made},
            {"live", memory.live},
            {"live_bytes", memory.live_bytes},
            {"peak_bytes", memory.peak_bytes}};
}

Json json_of(const CacheCounters& caches) {
    return {{"caches", caches.caches},
            {"hits", caches.hits},
            {"misses", caches.misses},
            {"waits", caches.waits},
            {"imports", caches.imports},
            {"failed_imports", caches.failed_imports},
            {"evicted_for_room", caches.evicted_for_room},
            {"evicted_idle", caches.evicted_idle},
            {"evicted_by_peer", caches.evicted_by_peer},
            {"invalidated", caches.invalidated},
            {"outdated", caches.outdated},
            {"entries", caches.entries},
            {"bytes", caches.bytes},
            {"retired", caches.retired},
            {"deferred", caches.deferred},
            {"ranges", caches.ranges},
            {"backlog", caches.backlog},
            {"backlog_bytes", caches.backlog_bytes}};
}

Json json_of(const CallCounters& call) {
    // Up to the last bucket that has something: most calls take less than a second.
    Json histogram = Json::array();
    std::size_t used = CallCounters::kBuckets;
    while (used > 0 && call.histogram[used - 1] == 0) --used;
    for (std::size_t i = 0; i < used; ++i) histogram.push_back(call.histogram[i]);
    return {{"calls", call.calls},
            {"failures", call.failures},
            {"total_ns", call.total_ns},
            {"max_ns", call.max_ns},
            {"histogram_log2_ns", std::move(histogram)}};
}

}  // namespace

std::string Counters::to_json() const {
    Json json;
    json["schema"] = 1;
    json["driver"] = driver;
    json["buffers"] = json_of(buffers);
    json["imports"] = json_of(imports);
    json["caches"] = json_of(caches);
    json["fallbacks"] = {{"access_refused", fallbacks.access_refused},
                         {"host_access_refused", fallbacks.host_access_refused},
                         {"access_one_by_one", fallbacks.access_one_by_one},
                         {"rdma_not_granted", fallbacks.rdma_not_granted}};
    json["waits"] = {{"gpu", waits.gpu},
                     {"gpu_timed_out", waits.gpu_timed_out},
                     {"calls_with_deadline", waits.calls_with_deadline},
                     {"calls_given_up", waits.calls_given_up}};
    json["given_up"] = given_up;
    json["failed_tear_downs"] = failed_tear_downs;
    json["retired_ranges"] = retired_ranges;
    json["stuck_calls"] = stuck_calls;
    if (has_calls) {
        Json& by_call = json["calls"] = Json::object();
        for (const CallCounters& call : calls) by_call[std::string(call.call)] = json_of(call);
    }
    return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

Counters counters(const Driver& driver) {
    Counters all;
    all.driver = std::string(driver.name());
    const detail::DriverState& state = detail::DriverState::of(driver);
    if (state.forked()) return all;
    if (const detail::CountingDriver* const counting = find_counting(driver); counting != nullptr) {
        all.has_calls = true;
        all.calls = counting->calls();
    }
    const detail::BookTotals totals = state.book.totals();
    all.buffers = memory_of(totals.own);
    all.imports = memory_of(totals.imported);
    all.caches = state.caches.totals();
    all.given_up = totals.given_up;
    all.failed_tear_downs = totals.failed_tear_downs;
    all.retired_ranges = state.retired().ranges;
    const detail::Tally& tally = state.tally;
    all.fallbacks = {.access_refused = read(tally.access_refused),
                     .host_access_refused = read(tally.host_access_refused),
                     .access_one_by_one = read(tally.access_one_by_one),
                     .rdma_not_granted = read(tally.rdma_not_granted)};
    all.waits.gpu = read(tally.gpu_waits);
    all.waits.gpu_timed_out = read(tally.gpu_waits_timed_out);
    if (const detail::Workers* const workers = state.workers_if_any(); workers != nullptr) {
        const detail::Workers::Counts counts = workers->counts();
        all.waits.calls_with_deadline = counts.begun;
        all.waits.calls_given_up = counts.given_up;
        all.stuck_calls = counts.stuck;
    }
    return all;
}

std::shared_ptr<Driver> make_counting_driver(std::shared_ptr<Driver> inner) {
    return std::make_shared<detail::CountingDriver>(std::move(inner));
}

}  // namespace fabricmem
