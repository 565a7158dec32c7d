// SPDX-License-Identifier: Apache-2.0
#include "doctor/child.hpp"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include <fabricmem/cuda_driver.hpp>
#include <fabricmem/driver.hpp>
#include <fabricmem/emulated_fabric.hpp>
#include <fabricmem/error.hpp>
#include <fabricmem/fault_driver.hpp>
#include <fabricmem/probe.hpp>

#include "common/unique_fd.hpp"
#include "doctor/facts_json.hpp"

namespace doctor {
namespace {

using fabricmem::Driver;
using fabricmem::Location;
using fabricmem::Platform;

// What libraries print must not come between the lines: they get stderr as their stdout.
examples::UniqueFd take_stdout() {
    examples::UniqueFd own(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3));
    ::dup2(STDERR_FILENO, STDOUT_FILENO);
    return own;
}

/// A machine's Platform without its NVML, which hung or crashed.
class WithoutNvml final : public Platform {
public:
    explicit WithoutNvml(std::shared_ptr<const Platform> inner) : inner_(std::move(inner)) {}

    [[nodiscard]] std::optional<fabricmem::Id128> host_id() const override { return inner_->host_id(); }
    [[nodiscard]] std::optional<fabricmem::Id128> boot_id() const override { return inner_->boot_id(); }
    [[nodiscard]] std::optional<std::uint32_t> process_id() const override { return inner_->process_id(); }
    [[nodiscard]] std::optional<std::uint64_t> pid_namespace() const override { return inner_->pid_namespace(); }
    [[nodiscard]] std::optional<std::uint64_t> process_start() const override { return inner_->process_start(); }
    [[nodiscard]] fabricmem::ProcessState process_state(std::uint32_t id, std::uint64_t start) const override {
        return inner_->process_state(id, start);
    }
    [[nodiscard]] std::vector<fabricmem::ImexChannel> imex_channels() const override { return inner_->imex_channels(); }
    [[nodiscard]] std::optional<fabricmem::KernelModule> kernel_module() const override {
        return inner_->kernel_module();
    }

private:
    std::shared_ptr<const Platform> inner_;
};

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

Failure failure_of(const fabricmem::Error& error) {
    const fabricmem::ErrorDetails& details = error.details();
    const std::string text = error.what();
    return {.kind = std::string(to_string(error.kind())),
            .code = error.code(),
            .text = without_cause(text),
            .cause = details.cause,
            .cure = details.cure,
            .check = details.check};
}

class Child {
public:
    explicit Child(const Options& options) : options_(options), out_(take_stdout()) {
        if (options.driver == DriverKind::emulated) return;
        platform_ = fabricmem::make_system_platform(options.root);
        if (options.child->without_nvml) platform_ = std::make_shared<const WithoutNvml>(platform_);
    }

    void run() {
        if (platform_ != nullptr) look();
        if (make_driver()) {
            if (options_.driver == DriverKind::emulated) look();
            try_all();
        }
        say(end_line());
    }

private:
    void say(std::string line);
    /// False where that is done already.
    [[nodiscard]] bool begin(const std::string& step);
    [[nodiscard]] const Platform& platform() const { return platform_ != nullptr ? *platform_ : driver_->platform(); }
    void look();
    [[nodiscard]] bool make_driver();
    void try_all();
    [[nodiscard]] DeviceFacts look_at(int ordinal);

    const Options& options_;
    const examples::UniqueFd out_;
    std::shared_ptr<const Platform> platform_;  // null: the driver has one
    std::shared_ptr<Driver> driver_;
};

void Child::say(std::string line) {
    line += '\n';
    for (std::string_view rest = line; !rest.empty();) {
        const ssize_t written = ::write(out_.get(), rest.data(), rest.size());
        if (written < 0 && errno != EINTR) ::_exit(1);  // there is nobody left to tell
        if (written > 0) rest.remove_prefix(static_cast<std::size_t>(written));
    }
}

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
                             .channels = platform().imex_channels()};
        const char* const visible = std::getenv(emulated ? "FABRICMEM_EMULATOR_DEVICES" : "CUDA_VISIBLE_DEVICES");
        if (visible != nullptr) machine.visible_devices = visible;
        if (!emulated) machine.gpu_on_pci = gpu_on_pci(options_.root);
        say(machine_line(machine));
    }
    if (!options_.child->without_nvml && begin("nvml")) say(nvml_line(platform().nvml()));
}

bool Child::make_driver() {
    const bool first = begin("driver");
    if (!first) say(begin_line("driver again"));
    DriverFacts facts;
    try {
        if (options_.driver == DriverKind::emulated) {
            driver_ = fabricmem::make_emulated_driver_from_environment();
            facts.place = emulated_place(*driver_);
        } else {
            driver_ = fabricmem::make_cuda_driver({.platform = platform_});
        }
        driver_ = fabricmem::with_faults_from_environment(std::move(driver_));
        (void)driver_->driver_get_version(&facts.cuda_version);
    } catch (const fabricmem::Error& error) {
        facts.why_not = failure_of(error);
    }
    if (first || facts.why_not.has_value()) say(driver_line(facts));
    return !facts.why_not.has_value();
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
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a call that hangs does not outlive who waits for it
    Child(options).run();
    return 0;
}

}  // namespace doctor
