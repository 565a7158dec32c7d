// SPDX-License-Identifier: Apache-2.0
// Makes this side's memory.
#include "pingpong_setup.hpp"

#include <utility>

#include "common/text.hpp"

namespace pingpong {
namespace {

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
