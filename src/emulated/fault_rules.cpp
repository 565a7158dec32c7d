// SPDX-License-Identifier: Apache-2.0
#include "emulated/fault_rules.hpp"

#include <algorithm>
#include <utility>

#include "emulated/numbers.hpp"

namespace fabricmem {
namespace {

// 0 to 1, from the rule's place and the call's number alone: threads do not change it.
double chance(std::uint64_t seed, std::uint64_t rule, std::uint64_t call) noexcept {
    const std::uint64_t bits = detail::emulated::mix(detail::emulated::mix(seed ^ (rule << 48U)) ^ call);
    return static_cast<double>(bits >> 11U) * 0x1.0p-53;
}

}  // namespace

FaultDriver::Rules::Rules(std::uint64_t seed_of_chances) : seed_(seed_of_chances), last_calls_(kCallsKept) {}

std::optional<CUresult> FaultDriver::Rules::enter(const char* name) noexcept {
    if (forked()) return std::nullopt;
    std::unique_lock lock(mutex_);
    ++under_way_;
    const Verdict verdict = judge(name);
    wait(lock, verdict);
    return verdict.failure;
}

void FaultDriver::Rules::leave() noexcept {
    if (forked()) return;
    const std::lock_guard lock(mutex_);
    // Under the lock: whoever waits for the last call destroys all this as soon as it has the lock.
    if (--under_way_ == 0) changed_.notify_all();
}

FaultDriver::Rules::Verdict FaultDriver::Rules::judge(const char* name) noexcept {
    last_calls_[called_++ % last_calls_.size()] = name;
    Verdict verdict;
    for (std::size_t i = 0; i < active_.size(); ++i) {
        Active& rule = active_[i];
        if (rule.name != nullptr && std::string_view(rule.name) != name) continue;
        ++rule.seen;
        if (rule.fault.number != 0 && rule.fault.number != rule.seen) continue;
        if (rule.fault.probability < 1 && chance(seed_, i, rule.seen) >= rule.fault.probability) continue;
        apply(rule.fault, verdict);
    }
    return verdict;
}

void FaultDriver::Rules::apply(const Fault& fault, Verdict& verdict) noexcept {
    switch (fault.effect) {
        case Fault::Effect::fail:
            if (verdict.failure.has_value()) return;
            verdict.failure = fault.result;
            break;
        case Fault::Effect::delay: verdict.delay += fault.delay; break;
        case Fault::Effect::hang: verdict.hang = true; break;
    }
    ++met_;
}

// The lock is held since the call was judged, so whoever takes the rules back or ends hangs meets it waiting.
void FaultDriver::Rules::wait(std::unique_lock<std::mutex>& lock, const Verdict& verdict) noexcept {
    const std::uint64_t released = released_;
    const std::uint64_t cleared = cleared_;
    if (verdict.delay.count() > 0) changed_.wait_for(lock, verdict.delay, [&] { return cleared_ != cleared; });
    if (!verdict.hang) return;
    ++hanging_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return released_ != released; });
    --hanging_;
    changed_.notify_all();
}

void FaultDriver::Rules::add(Fault fault, const char* name) {
    const std::lock_guard lock(mutex_);
    active_.push_back({std::move(fault), name});
}

void FaultDriver::Rules::clear() {
    const std::lock_guard lock(mutex_);
    active_.clear();
    met_ = 0;
    ++released_;
    ++cleared_;
    changed_.notify_all();
}

void FaultDriver::Rules::end_hangs() {
    const std::lock_guard lock(mutex_);
    ++released_;
    changed_.notify_all();
}

void FaultDriver::Rules::end() noexcept {
    std::unique_lock lock(mutex_);
    ++released_;
    ++cleared_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return under_way_ == 0; });
}

std::vector<std::string> FaultDriver::Rules::calls() const {
    std::vector<std::string> names;
    const std::lock_guard lock(mutex_);
    const std::uint64_t kept = std::min<std::uint64_t>(called_, last_calls_.size());
    names.reserve(kept);
    for (std::uint64_t i = called_ - kept; i < called_; ++i) names.emplace_back(last_calls_[i % last_calls_.size()]);
    return names;
}

void FaultDriver::Rules::forget() {
    const std::lock_guard lock(mutex_);
    called_ = 0;
}

std::uint64_t FaultDriver::Rules::met() const {
    const std::lock_guard lock(mutex_);
    return met_;
}

std::size_t FaultDriver::Rules::hanging() const {
    const std::lock_guard lock(mutex_);
    return hanging_;
}

bool FaultDriver::Rules::wait_until_hanging(std::size_t count, std::chrono::milliseconds timeout) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, [&] { return hanging_ >= count; });
}

}  // namespace fabricmem
