// SPDX-License-Identifier: Apache-2.0
#include "doctor/peer_children.hpp"

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <fabricmem/checks.hpp>
#include <fabricmem/driver.hpp>
#include <fabricmem/peer_probe.hpp>

#include "doctor/child_parts.hpp"
#include "doctor/facts_json.hpp"
#include "doctor/peers.hpp"

namespace doctor {
namespace {

using fabricmem::Driver;
using fabricmem::Location;

/// Says why where there is none.
std::shared_ptr<Driver> start_driver(const Options& options, const Speaker& speaker) {
    end_with_parent();
    speaker.say(begin_line("driver"));
    DriverFacts facts;
    std::shared_ptr<Driver> driver = make_driver(options, make_platform(options), facts);
    speaker.say(driver_line(facts));
    return driver;
}

/// Device 0, and the host NUMA node that is nearest to it.
std::vector<Location> places_to_offer(Driver& driver) {
    constexpr auto kNearestNode = static_cast<CUdevice_attribute>(134);
    CUdevice device = 0;
    int node = 0;
    if (driver.device_get(&device, 0) == CUDA_SUCCESS) (void)driver.device_get_attribute(&node, kNearestNode, device);
    return {Location::device(0), Location::host_numa(std::max(0, node))};
}

Cell cell_of_result(const fabricmem::PeerProbeResult& result, const std::string& place) {
    Cell cell{.place = place, .side = std::string(to_string(result.side)), .peer = result.peer};
    cell.state = result.usable() ? Cell::State::ok : Cell::State::failed;
    if (!result.why_not.has_value()) return cell;
    const fabricmem::ErrorDetails& details = result.why_not->details();
    cell.check = details.check;
    cell.cause = details.cause.empty() ? without_cause(result.why_not->what()) : details.cause;
    cell.cure = details.cure;
    return cell;
}

}  // namespace

int run_exporter(const Options& options) {
    const Speaker speaker;
    const std::shared_ptr<Driver> driver = start_driver(options, speaker);
    std::vector<fabricmem::PeerProbe> probes;
    if (driver != nullptr) {
        for (const Location& place : places_to_offer(*driver)) {
            speaker.say(begin_line("export of " + to_string(place)));
            const auto& probe = probes.emplace_back(driver, place);
            speaker.say(offer_line({.place = to_string(place), .bytes = to_hex(probe.bytes())}));
        }
    }
    speaker.say(end_line());
    for (std::string line; std::getline(std::cin, line);) {
    }
    return 0;
}

int run_importer(const Options& options) {
    const Speaker speaker;
    const std::shared_ptr<Driver> driver = start_driver(options, speaker);
    if (driver == nullptr) return 0;
    for (std::string line; std::getline(std::cin, line);) {
        const auto task = import_from(line);
        if (!task.has_value()) continue;
        speaker.say(begin_line("import of " + task->probe.place));
        const auto bytes = from_hex(task->probe.bytes);
        const auto timeout = std::chrono::milliseconds(std::max<std::int64_t>(task->timeout_ms, 1));
        speaker.say(
            cell_line(cell_of_result(check_peer_probe(driver, bytes, {.timeout = timeout}), task->probe.place)));
    }
    return 0;
}

}  // namespace doctor
