// SPDX-License-Identifier: Apache-2.0
// Tries fabric memory from create to touch, takes all down again, and remembers the answer.
#include <fabricmem/probe.hpp>

#include <fabricmem/driver.hpp>

#include "driver/driver_state.hpp"
#include "probe/ladder.hpp"
#include "text/text.hpp"

namespace fabricmem {
namespace {

std::string in_one_sentence(const ProbeResult& result) {
    const std::string where = to_string(result.location);
    if (result.usable()) {
        const char* const others = result.reach == HandleReach::fabric_domain
                                       ? "and the GPU is part of a multi-node NVLink domain; other nodes were not tried"
                                       : "within this node; other nodes were not tried";
        return detail::formatted("fabric memory works on {} ({})", where, others);
    }
    const char* const instead = result.reach == HandleReach::posix_fd ? " (file descriptors work there)" : "";
    return detail::formatted("no fabric memory on {}{}: {}", where, instead, result.why_not->what());
}

// Of the machine and the process, as against what may be another time around: too little memory, say.
bool is_lasting(const ProbeResult& result) {
    if (result.usable()) return true;
    switch (result.why_not->kind()) {
        case ErrorKind::unsupported:
        case ErrorKind::not_permitted:
        case ErrorKind::system:
        case ErrorKind::timed_out: return true;
        default: return false;
    }
}

}  // namespace

std::string_view to_string(ProbeRung rung) noexcept {
    switch (rung) {
        case ProbeRung::attributes: return "attributes";
        case ProbeRung::channels: return "channels";
        case ProbeRung::fabric_state: return "fabric_state";
        case ProbeRung::reserve: return "reserve";
        case ProbeRung::create: return "create";
        case ProbeRung::map: return "map";
        case ProbeRung::set_access: return "set_access";
        case ProbeRung::handle_types: return "handle_types";
        case ProbeRung::export_handle: return "export_handle";
        case ProbeRung::import_handle: return "import_handle";
        case ProbeRung::map_import: return "map_import";
        case ProbeRung::touch: return "touch";
        case ProbeRung::tear_down: return "tear_down";
    }
    return "unknown";
}

std::string_view to_string(RungState state) noexcept {
    switch (state) {
        case RungState::passed: return "passed";
        case RungState::warning: return "warning";
        case RungState::failed: return "failed";
        case RungState::unknown: return "unknown";
        case RungState::skipped: return "skipped";
    }
    return "unknown";
}

std::string_view to_string(HandleReach reach) noexcept {
    switch (reach) {
        case HandleReach::none: return "none";
        case HandleReach::posix_fd: return "posix_fd";
        case HandleReach::fabric_node: return "fabric_node";
        case HandleReach::fabric_domain: return "fabric_domain";
    }
    return "unknown";
}

ProbeResult probe(const std::shared_ptr<Driver>& driver, const Location& location, ProbeMemory memory) {
    const bool can_keep = driver != nullptr && !detail::DriverState::of(*driver).forked();
    if (can_keep && memory == ProbeMemory::kept) {
        if (auto kept = detail::DriverState::of(*driver).kept_probe(location); kept.has_value()) return *kept;
    }
    ProbeResult result = detail::Ladder(driver, location).climb();
    result.summary = in_one_sentence(result);
    if (can_keep && is_lasting(result)) detail::DriverState::of(*driver).keep_probe(result);
    if (can_keep && !is_lasting(result)) detail::DriverState::of(*driver).forget_probe(location);
    return result;
}

}  // namespace fabricmem
