// SPDX-License-Identifier: Apache-2.0
#include "doctor/facts.hpp"

#include <algorithm>

#include "common/text.hpp"

namespace doctor {
namespace {

using fabricmem::FabricInfo;
using fabricmem::HandleReach;
using fabricmem::Location;

/// "0-3 and 5", of ascending numbers.
std::string name_numbers(const std::vector<int>& numbers) {
    std::vector<std::string> runs;
    for (std::size_t first = 0; first < numbers.size();) {
        std::size_t last = first;
        while (last + 1 < numbers.size() && numbers[last + 1] == numbers[last] + 1) ++last;
        runs.push_back(first == last ? std::to_string(numbers[first])
                                     : examples::formatted("{}-{}", numbers[first], numbers[last]));
        first = last + 1;
    }
    std::string text;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        if (i > 0) text += i + 1 == runs.size() ? " and " : ", ";
        text += runs[i];
    }
    return text;
}

std::string name_kind(const std::vector<Location>& places, bool host) {
    std::vector<int> numbers;
    for (const Location& place : places) {
        if (place.is_host() == host) numbers.push_back(place.index());
    }
    if (numbers.empty()) return {};
    std::sort(numbers.begin(), numbers.end());
    numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
    const char* const one = host ? "host NUMA node" : "device";
    return examples::formatted("{}{} {}", one, numbers.size() > 1 ? "s" : "", name_numbers(numbers));
}

}  // namespace

const PlaceFacts* Facts::at(const Location& place) const noexcept {
    const auto found =
        std::find_if(places.begin(), places.end(), [&](const PlaceFacts& facts) { return facts.place == place; });
    return found == places.end() ? nullptr : &*found;
}

bool works(const PlaceFacts& place) noexcept {
    return place.reach == HandleReach::fabric_node || place.reach == HandleReach::fabric_domain;
}

std::string without_cause(const std::string& text) {
    std::size_t end = text.size();
    for (const char* const mark : {". Cause: ", ". Cure: ", ". Check: "}) end = std::min(end, text.find(mark));
    return text.substr(0, end);
}

std::string name_places(const std::vector<Location>& places) {
    const std::string devices = name_kind(places, false);
    const std::string hosts = name_kind(places, true);
    return devices + (devices.empty() || hosts.empty() ? "" : " and ") + hosts;
}

bool in_domain(const FabricInfo& info) noexcept {
    return !info.cluster_uuid.is_zero() &&
           (info.state == FabricInfo::State::completed || info.state == FabricInfo::State::in_progress);
}

bool has_multinode_domain(const Facts& facts) noexcept {
    if (!facts.nvml.has_value()) {
        return std::any_of(facts.places.begin(), facts.places.end(),
                           [](const PlaceFacts& place) { return place.reach == HandleReach::fabric_domain; });
    }
    const auto& devices = facts.nvml->devices;
    return std::any_of(devices.begin(), devices.end(), [](const fabricmem::NvmlDevice& device) {
        return device.fabric.has_value() && in_domain(*device.fabric);
    });
}

}  // namespace doctor
