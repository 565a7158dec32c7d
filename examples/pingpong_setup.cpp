// SPDX-License-Identifier: Apache-2.0
// Chooses the driver and makes this side's memory.
#include "pingpong_setup.hpp"

#include <array>
#include <utility>

#include <fabricmem/emulated_fabric.hpp>
#include <fabricmem/fault_driver.hpp>

#include "pingpong_text.hpp"

namespace pingpong {
namespace {

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

fabricmem::FabricBuffer make_memory(const Options& options, const std::shared_ptr<fabricmem::Driver>& driver) {
    fabricmem::FabricBufferOptions wanted;
    wanted.location = location_of(options.location, options.device);
    wanted.zeroing = fabricmem::Zeroing::memset;  // the flags count from zero
    return {driver, buffer_bytes(options.largest_bytes()), wanted};
}

CpuAccess cpu_access(const fabricmem::MappedBuffer& memory) {
    return memory.access().host ? CpuAccess::yes : CpuAccess::no;
}

}  // namespace

fabricmem::Location location_of(Place place, int device) noexcept {
    return place == Place::device ? fabricmem::Location::device(device) : fabricmem::Location::host_nearest(device);
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

Memory memory_of(const fabricmem::FabricBuffer& own, const fabricmem::ImportedFabricBuffer& peer) {
    return {.own = reinterpret_cast<CUdeviceptr>(own.address()),
            .peer = reinterpret_cast<CUdeviceptr>(peer.address()),
            .place = own.location().is_host() ? Place::host : Place::device,
            .own_access = cpu_access(own),
            .peer_access = cpu_access(peer)};
}

Side::Side(const Options& options)
    : device_(options.device),
      chosen_(choose_driver(options.driver, location_of(options.location, device_))),
      // Before the memory: zeroing then uses this context instead of making one for the purpose.
      context_(options.mode == Mode::cpu ? nullptr : std::make_unique<CurrentContext>(chosen_.driver, device_)),
      memory_(make_memory(options, chosen_.driver)) {}

Introduction Side::introduction() const {
    return {.driver = std::string(chosen_.driver->name()),
            .place = chosen_.place,
            .device_name = device_name(*chosen_.driver, device_),
            .device = device_,
            .memory = fabricmem::to_string(memory_.location()),
            .handle_kinds = fabricmem::to_string(memory_.kinds()),
            .refused = chosen_.refused};
}

}  // namespace pingpong
