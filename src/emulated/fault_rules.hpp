// SPDX-License-Identifier: Apache-2.0
// The rules of a FaultDriver: which calls they meet, and the waiting of those that are late or hang. Makes no call.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>

#include <fabricmem/fault_driver.hpp>

#include "platform/fork_epoch.hpp"

namespace fabricmem {

/// Thread-safe. A call takes no memory, so that it can be made where there is none.
struct FaultDriver::Rules {
    explicit Rules(std::uint64_t seed_of_chances);
    Rules(const Rules&) = delete;
    Rules& operator=(const Rules&) = delete;

    /// Each call begins here, waits here for as long as the rules say, and is told what it fails with. leave() ends it.
    std::optional<CUresult> enter(const char* name) noexcept;
    void leave() noexcept;

    /// `name` is one of the seam's, or null for every call.
    void add(Fault fault, const char* name);
    void clear();
    void end_hangs();
    /// Ends hangs and delays, and waits until no call is under way.
    void end() noexcept;

    /// A child of fork() has the rules as they were for another thread, locked perhaps: it does without.
    [[nodiscard]] bool forked() const noexcept { return detail::fork_epoch() != made_in_; }
    [[nodiscard]] std::vector<std::string> calls() const;
    void forget();
    [[nodiscard]] std::uint64_t met() const;
    [[nodiscard]] std::size_t hanging() const;
    [[nodiscard]] bool wait_until_hanging(std::size_t count, std::chrono::milliseconds timeout) const;

private:
    struct Active {
        Fault fault;
        const char* name = nullptr;
        std::uint64_t seen = 0;  // calls of that name since add()
    };
    // What meets one call.
    struct Verdict {
        std::chrono::microseconds delay{0};
        bool hang = false;
        std::optional<CUresult> failure;
    };

    Verdict judge(const char* name) noexcept;
    void apply(const Fault& fault, Verdict& verdict) noexcept;
    void wait(std::unique_lock<std::mutex>& lock, const Verdict& verdict) noexcept;

    const std::uint64_t seed_;
    const std::uint64_t made_in_ = detail::fork_epoch();
    mutable std::mutex mutex_;  // guards all below
    mutable std::condition_variable changed_;
    std::vector<Active> active_;
    std::vector<const char*> last_calls_;  // a ring
    std::uint64_t called_ = 0;             // since forget()
    std::uint64_t met_ = 0;
    std::uint64_t released_ = 0;  // how often hangs were ended
    std::uint64_t cleared_ = 0;
    std::size_t hanging_ = 0;
    std::size_t under_way_ = 0;
};

}  // namespace fabricmem
