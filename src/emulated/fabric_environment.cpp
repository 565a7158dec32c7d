// SPDX-License-Identifier: Apache-2.0
// FABRICMEM_EMULATOR and its companions.
#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <utility>

#include <fabricmem/emulated_fabric.hpp>
#include <fabricmem/error.hpp>

#include "emulated/fabric.hpp"
#include "text/text.hpp"

namespace fabricmem {

namespace {

constexpr const char* kScenario = "FABRICMEM_EMULATOR";
constexpr const char* kNode = "FABRICMEM_EMULATOR_NODE";
constexpr const char* kDevices = "FABRICMEM_EMULATOR_DEVICES";

std::vector<int> devices_in(std::string_view text) {
    std::vector<int> devices;
    while (!text.empty()) {
        const std::string_view word = text.substr(0, text.find(','));
        int device = 0;
        const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), device);
        if (error != std::errc() || end != word.data() + word.size()) {
            throw Error({.kind = ErrorKind::bad_argument,
                         .subject = detail::formatted("{}: \"{}\" is no device's number", kDevices, word)});
        }
        devices.push_back(device);
        text.remove_prefix(std::min(word.size() + 1, text.size()));
    }
    return devices;
}

}  // namespace

std::shared_ptr<EmulatedFabric> make_emulated_fabric_from_environment() {
    const char* const text = std::getenv(kScenario);
    if (text == nullptr || *text == '\0') return nullptr;
    const std::vector<std::string>& names = Scenario::ready_made_names();
    const bool ready_made = std::find(names.begin(), names.end(), text) != names.end();
    using detail::emulated::FabricCore;
    return std::make_shared<EmulatedFabric>(FabricCore::of_scenario(
        ready_made ? Scenario::ready_made(text) : Scenario::from_file(text), FabricCore::Sharing::none));
}

std::shared_ptr<Driver> make_emulated_driver_from_environment(const EmulatedOptions& otherwise) {
    std::shared_ptr<EmulatedFabric> fabric = make_emulated_fabric_from_environment();
    if (fabric == nullptr) return make_emulated_driver(otherwise);
    EmulatedProcess process;
    if (const char* const node = std::getenv(kNode)) process.node = node;
    if (const char* const devices = std::getenv(kDevices)) process.visible_devices = devices_in(devices);
    return make_emulated_driver(std::move(fabric), process);
}

}  // namespace fabricmem
