// SPDX-License-Identifier: Apache-2.0
// A probe's rungs: what is looked at, what is done, and which of them a failure belongs to.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <fabricmem/driver.hpp>
#include <fabricmem/probe.hpp>

#include "driver/driver_state.hpp"

namespace fabricmem::detail {

class Ladder {
public:
    Ladder(std::shared_ptr<Driver> driver, const Location& location);

    /// Tries all, once. Throws std::bad_alloc alone.
    [[nodiscard]] ProbeResult climb();

private:
    void look();
    void look_at_attributes();
    void look_at_channels();
    void look_at_fabric();
    void judge_fabric(const FabricInfo& info);
    void make_and_touch();
    [[nodiscard]] bool has_file_descriptors();
    [[nodiscard]] HandleReach reach_of_fabric();

    ProbeStep& step(ProbeRung rung) { return result_.steps[static_cast<std::size_t>(rung)]; }
    void pass(ProbeRung rung, std::string facts = {});
    void pass_all(ProbeRung first, ProbeRung end);
    void set(ProbeRung rung, RungState state, std::string facts, std::string_view check, std::string cause,
             std::string cure = {});
    void fail(ProbeRung rung, const Error& error);

    std::shared_ptr<Driver> driver_;
    std::shared_ptr<const Topology> topology_;
    const DeviceFacts* device_ = nullptr;  // whose memory, or the nearest; of a host node any that is nearest to it
    bool host_travels_ = false;
    ProbeResult result_;
    ProbeRung at_ = ProbeRung::attributes;  // what is done now
};

}  // namespace fabricmem::detail
