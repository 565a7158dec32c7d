// SPDX-License-Identifier: Apache-2.0
// Chooses the driver, and gives each rank its place.
#include "warmup/site.hpp"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include "common/driver_choice.hpp"
#include "common/text.hpp"

namespace warmup {
namespace {

using examples::formatted;
using fabricmem::Scenario;

constexpr auto kDefaultScenario = "gb200-nvl72";

Scenario scenario_of(const Options& options) {
    std::string wanted = options.scenario;
    if (const char* const named = std::getenv("FABRICMEM_EMULATOR"); wanted.empty() && named != nullptr) wanted = named;
    if (wanted.empty()) wanted = kDefaultScenario;
    const std::vector<std::string>& names = Scenario::ready_made_names();
    return std::find(names.begin(), names.end(), wanted) != names.end() ? Scenario::ready_made(wanted)
                                                                        : Scenario::from_file(wanted);
}

std::string counted(std::size_t count, const char* what) {
    return formatted("{} {}{}", count, what, count == 1 ? "" : "s");
}

std::vector<Place> places_in(const Scenario& scenario, const std::optional<int>& wanted) {
    std::vector<Place> places;
    std::size_t most = 0;
    for (const auto& node : scenario.nodes) most = std::max(most, node.devices.size());
    for (std::size_t device = 0; device < most; ++device) {
        if (wanted && static_cast<std::size_t>(*wanted) != device) continue;
        for (const auto& node : scenario.nodes) {
            if (device < node.devices.size()) places.push_back({node.name, static_cast<int>(device)});
        }
    }
    if (places.empty()) {
        throw std::runtime_error(wanted ? formatted("no node of scenario {} has a device {}", scenario.name, *wanted)
                                        : formatted("no node of scenario {} has a device", scenario.name));
    }
    return places;
}

}  // namespace

Site::Site(const Options& options) {
    const bool emulated = options.driver == examples::DriverChoice::emulated || !options.scenario.empty();
    if (!emulated) {
        const examples::ChosenDriver chosen =
            examples::choose_driver(options.driver, fabricmem::Location::device(options.device.value_or(0)));
        refused_ = chosen.refused;
        driver_ = chosen.driver->name();
        if (driver_ == "cuda") {
            int count = 0;
            examples::check_call(*chosen.driver, chosen.driver->device_get_count(&count), "cuDeviceGetCount");
            const int first = options.device.value_or(0);
            const std::string name = examples::device_name(*chosen.driver, first);
            if (options.device) {
                places_.push_back({"", first});
                description_ = formatted("device {} ({})", first, name);
            } else {
                for (int device = 0; device < count; ++device) places_.push_back({"", device});
                description_ = formatted("{} ({})", counted(places_.size(), "device"), name);
            }
            return;
        }
    }
    take_scenario(options);
}

void Site::take_scenario(const Options& options) {
    driver_ = "emulated";
    const Scenario scenario = scenario_of(options);
    places_ = places_in(scenario, options.device);
    fabric_ = fabricmem::make_emulated_fabric(scenario);
    std::size_t devices = 0;
    for (const auto& node : scenario.nodes) devices += node.devices.size();
    description_ = formatted("scenario {} ({}, {})", scenario.name, counted(scenario.nodes.size(), "node"),
                             counted(devices, "device"));
}

std::map<std::string, std::string> Site::environment_of(std::uint32_t rank) const {
    if (fabric_ == nullptr) return {};
    const Place& place = place_of(rank);
    std::map<std::string, std::string> environment = fabric_->environment(place.node);
    // Ordinals are the node's: another rank's device has to be seen to be imported from.
    std::string& devices = environment["FABRICMEM_EMULATOR_DEVICES"];
    devices.clear();
    for (const auto& node : fabric_->scenario().nodes) {
        if (node.name != place.node) continue;
        for (std::size_t device = 0; device < node.devices.size(); ++device)
            devices += formatted("{}{}", device == 0 ? "" : ",", device);
    }
    return environment;
}

}  // namespace warmup
