// SPDX-License-Identifier: Apache-2.0
// Takes a buffer down by a deadline, and words what is thrown where a deadline passes.
#pragma once

#include <chrono>
#include <memory>
#include <optional>

#include "buffer/buffer_parts.hpp"
#include "worker/workers.hpp"

namespace fabricmem::detail {

class TearDownJob final : public Job {
public:
    explicit TearDownJob(std::shared_ptr<Driver> driver) noexcept;
    ~TearDownJob() override;

    void run() noexcept override;
    void clean_up() noexcept override;

    std::unique_ptr<BufferParts> parts;
    TearDownFailure failure;
};

/// As the destructor of the parts, but where they have a deadline for it within that: what goes on after it, or can't
/// be begun, is logged and goes on, or is done, later.
void let_go(std::unique_ptr<BufferParts> parts) noexcept;

/// Takes parts that have a deadline down. The failure, and the parts where the deadline was kept (with all given back
/// that could be). Throws Error{timed_out} where not, and then they are not the caller's any more; throws as
/// Workers::run() where nothing was begun, and then `parts` is as it was.
TearDownFailure tear_down_within(std::unique_ptr<BufferParts>& parts);

/// What was not done in time, and for how long it was waited.
struct Late {
    const char* what;  // "importing"
    const char* call;  // null where it was at no call of its own yet
    std::chrono::milliseconds timeout;
    std::optional<Location> location;
};
[[nodiscard]] Error timed_out(const Late& late, const Driver& driver, const HandleBlob& blob);

/// Whether both sides are known to run on one node, where the IMEX daemon has no part in an import or its end. Asks
/// nobody: a call of the driver's may hang.
[[nodiscard]] bool on_one_node(const Driver& driver, const HandleBlob& blob);

/// What likely holds a call up.
struct HeldUp {
    const char* cause;
    const char* cure;
    const char* check;
};
[[nodiscard]] HeldUp held_up_by_daemon() noexcept;
[[nodiscard]] HeldUp held_up_by_driver() noexcept;

/// Throws Error{bad_argument} for a negative one.
void check_timeout(std::chrono::milliseconds timeout);

/// For tests, which need an event to wait for: false where the time is up before so few calls are stuck.
[[nodiscard]] FABRICMEM_API bool wait_until_stuck(const Driver& driver, std::size_t at_most,
                                                  std::chrono::milliseconds timeout);

}  // namespace fabricmem::detail
