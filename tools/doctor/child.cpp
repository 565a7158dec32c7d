// SPDX-License-Identifier: Apache-2.0
#include "doctor/child.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include <fabricmem/driver.hpp>
#include <fabricmem/probe.hpp>

#include "doctor/child_parts.hpp"
#include "doctor/facts_json.hpp"

namespace doctor {
namespace {

using fabricmem::Driver;
using fabricmem::Location;
using fabricmem::Platform;

/// Whether a PCI device of NVIDIA's that shows or computes is there; nullopt where /sys does not tell.
std::optional<bool> gpu_on_pci(const std::string& root) {
    const auto first_word = [](const std::filesystem::path& path) {
        std::string word;
        std::ifstream(path) >> word;
        return word;
    };
    std::error_code error;
    const std::filesystem::directory_iterator devices(root + "/sys/bus/pci/devices", error);
    if (error) return std::nullopt;
    return std::any_of(begin(devices), end(devices), [&](const auto& device) {
        return first_word(device.path() / "vendor") == "0x10de" &&
               first_word(device.path() / "class").starts_with("0x03");
    });
}

class Child {
public:
    explicit Child(const Options& options) : options_(options), platform_(make_platform(options)) {}

    void run() {
        if (platform_ != nullptr) look();
        if (start_driver()) {
            if (options_.driver == DriverKind::emulated) look();
            try_all();
        }
        say(end_line());
    }

private:
    void say(std::string line) { speaker_.say(std::move(line)); }
    /// False where that is done already.
    [[nodiscard]] bool begin(const std::string& step);
    [[nodiscard]] const Platform& platform() const { return platform_ != nullptr ? *platform_ : driver_->platform(); }
    void look();
    [[nodiscard]] bool start_driver();
    void try_all();
    [[nodiscard]] DeviceFacts look_at(int ordinal);

    const Options& options_;
    const Speaker speaker_{};
    std::shared_ptr<const Platform> platform_;  // null: the driver has one
    std::shared_ptr<Driver> driver_;
};

bool Child::begin(const std::string& step) {
    const auto& done = options_.child->done;
    if (std::find(done.begin(), done.end(), step) != done.end()) return false;
    say(begin_line(step));
    return true;
}

void Child::look() {
    const bool emulated = options_.driver == DriverKind::emulated;
    if (begin("machine")) {
        const auto text = [](const std::optional<fabricmem::Id128>& id) {
            return id.has_value() ? to_string(*id) : std::string();
        };
        MachineFacts machine{.host_id = text(platform().host_id()),
                             .boot_id = text(platform().boot_id()),
                             .kernel_module = platform().kernel_module(),
                             .channels = platform().imex_channels(),
                             .channels_errno = platform().imex_channels_errno()};
        const char* const visible = std::getenv(emulated ? "FABRICMEM_EMULATOR_DEVICES" : "CUDA_VISIBLE_DEVICES");
        if (visible != nullptr) machine.visible_devices = visible;
        if (!emulated) machine.gpu_on_pci = gpu_on_pci(options_.root);
        say(machine_line(machine));
    }
    if (!options_.child->without_nvml && begin("nvml")) say(nvml_line(platform().nvml()));
}

bool Child::start_driver() {
    const bool first = begin("driver");
    if (!first) say(begin_line("driver again"));
    DriverFacts facts;
    driver_ = make_driver(options_, platform_, facts);
    if (first || driver_ == nullptr) say(driver_line(facts));
    return driver_ != nullptr;
}

DeviceFacts Child::look_at(int ordinal) {
    DeviceFacts facts{.ordinal = ordinal};
    CUdevice device = ordinal;
    if (driver_->device_get(&device, ordinal) != CUDA_SUCCESS) return facts;
    std::array<char, 256> text{};
    const auto text_bytes = static_cast<int>(text.size() - 1);
    if (driver_->device_get_name(text.data(), text_bytes, device) == CUDA_SUCCESS) facts.name = text.data();
    text = {};
    if (driver_->device_get_pci_bus_id(text.data(), text_bytes, device) == CUDA_SUCCESS) facts.pci_bus_id = text.data();
    CUuuid uuid{};
    if (driver_->device_get_uuid(&uuid, device) == CUDA_SUCCESS)
        std::copy(std::begin(uuid.bytes), std::end(uuid.bytes), facts.uuid.bytes.begin());
    const auto attribute = [&](int number) {
        int value = 0;
        const auto known = driver_->device_get_attribute(&value, static_cast<CUdevice_attribute>(number), device);
        return known == CUDA_SUCCESS ? std::optional(value) : std::nullopt;
    };
    facts.fabric_handles = attribute(128).value_or(0) != 0;     // HANDLE_TYPE_FABRIC_SUPPORTED
    facts.numa_node = std::max(0, attribute(134).value_or(0));  // HOST_NUMA_ID; -1: the machine has no nodes
    if (const auto travels = attribute(143)) facts.host_memory_travels = *travels != 0;  // HOST_NUMA_MULTINODE_IPC
    return facts;
}

void Child::try_all() {
    const bool first = begin("devices");
    if (!first) say(begin_line("devices again"));
    int count = 0;
    (void)driver_->device_get_count(&count);
    std::vector<DeviceFacts> devices;
    std::vector<Location> places;
    for (int i = 0; i < count; ++i) {
        devices.push_back(look_at(i));
        places.push_back(Location::device(i));
    }
    for (const DeviceFacts& device : devices) {
        const Location host = Location::host_numa(device.numa_node);
        if (std::find(places.begin(), places.end(), host) == places.end()) places.push_back(host);
    }
    if (first) say(devices_line(devices, places));
    for (const Location& place : places) {
        if (!begin(to_string(place))) continue;
        const auto result = fabricmem::probe(driver_, place, fabricmem::ProbeMemory::fresh);
        PlaceFacts facts{
            .place = place, .reach = result.reach, .kinds = to_string(result.kinds), .steps = result.steps};
        for (auto& step : facts.steps) step.facts = without_cause(step.facts);
        say(place_line(facts));
    }
}

}  // namespace

int run_child(const Options& options) {
    end_with_parent();
    Child(options).run();
    return 0;
}

}  // namespace doctor
