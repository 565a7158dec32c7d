// SPDX-License-Identifier: Apache-2.0
// Which driver a program runs on, and what it asks of it by itself.
#include "common/driver_choice.hpp"

#include <array>
#include <stdexcept>
#include <utility>

#include <fabricmem/emulated_fabric.hpp>
#include <fabricmem/fabricmem.hpp>
#include <fabricmem/fault_driver.hpp>

#include "common/arguments.hpp"
#include "common/text.hpp"

namespace examples {
namespace {

constexpr std::array kDrivers{Word<DriverChoice>{"auto", DriverChoice::automatic},
                              Word<DriverChoice>{"cuda", DriverChoice::cuda},
                              Word<DriverChoice>{"emulated", DriverChoice::emulated}};

// FABRICMEM_FAULTS makes calls of either driver fail, for those who want to see what is said then.
std::shared_ptr<fabricmem::Driver> with_faults(std::shared_ptr<fabricmem::Driver> driver) {
    return fabricmem::with_faults_from_environment(std::move(driver));
}

// A node of the scenario that FABRICMEM_EMULATOR names; without it a machine of its own.
ChosenDriver choose_emulated(std::string refused) {
    fabricmem::EmulatedOptions options;
    options.devices = 8;  // so that --device and --peer-device have something to choose from
    std::shared_ptr<fabricmem::Driver> driver = fabricmem::make_emulated_driver_from_environment(options);
    std::string place = fabricmem::emulated_place(*driver);
    return {.driver = with_faults(std::move(driver)), .place = std::move(place), .refused = std::move(refused)};
}

}  // namespace

std::string_view to_string(DriverChoice driver) noexcept { return word_of(driver, kDrivers); }

DriverChoice driver_choice_of(std::string_view text) { return meaning_of(text, kDrivers); }

void check_call(fabricmem::Driver& driver, CUresult result, const char* call) {
    if (result == CUDA_SUCCESS) return;
    const char* name = nullptr;
    if (driver.get_error_name(result, &name) != CUDA_SUCCESS || name == nullptr) name = "an unknown error";
    throw std::runtime_error(formatted("{} failed: {} ({})", call, name, static_cast<int>(result)));
}

CUdevice device_of(fabricmem::Driver& driver, int ordinal) {
    CUdevice device{};
    check_call(driver, driver.device_get(&device, ordinal), "cuDeviceGet");
    return device;
}

ChosenDriver choose_driver(DriverChoice choice, const fabricmem::Location& location) {
    if (choice == DriverChoice::cuda) return {.driver = with_faults(fabricmem::make_cuda_driver())};
    if (choice == DriverChoice::emulated) return choose_emulated({});

    std::string refused;
    try {
        std::shared_ptr<fabricmem::Driver> cuda = with_faults(fabricmem::make_cuda_driver());
        const fabricmem::ProbeResult probed = fabricmem::probe(cuda, location);
        if (probed.usable()) return {.driver = std::move(cuda)};
        refused = probed.why_not->what();
    } catch (const fabricmem::Error& error) {
        refused = error.what();
    }
    return choose_emulated(std::move(refused));
}

std::string device_name(fabricmem::Driver& driver, int ordinal) {
    std::array<char, 256> name{};
    const auto name_bytes = static_cast<int>(name.size());
    check_call(driver, driver.device_get_name(name.data(), name_bytes, device_of(driver, ordinal)), "cuDeviceGetName");
    return name.data();
}

}  // namespace examples
