// SPDX-License-Identifier: Apache-2.0
// Every public operation that can make a driver call, by place and by option: what the fault loops run through. And
// every other public function, with the reason why it is in no loop. One table: a function that is in neither list
// fails fault_loop_test.cpp.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fabricmem/arena.hpp>
#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/fault_driver.hpp>
#include <fabricmem/flag_slots.hpp>
#include <fabricmem/from_pointer.hpp>
#include <fabricmem/import_cache.hpp>
#include <fabricmem/peer_probe.hpp>
#include <fabricmem/probe.hpp>

#include "support/driver_kit.hpp"

namespace fabricmem::test {

/// An emulated node of three devices and two NUMA nodes, with memory at each place that somebody else exported.
struct World {
    World();

    std::shared_ptr<Driver> emulated;
    std::vector<FabricBuffer> exporters;
};

/// What one operation works on: a driver that knows nothing yet, and room for what is made.
struct Scene {
    explicit Scene(const World& world_of_scene);

    /// Ends what was made.
    void clear();
    /// Makes `own`, and counts the address that will stay reserved where that is asked for.
    void make(const FabricBufferOptions& options);
    /// Makes `arena` and a block of it.
    void make_arena(const Location& place);
    /// The same, and ends the arena: the block is the last owner of the memory.
    void make_last_block(const Location& place);

    /// Makes `cache`, which holds imports to no time that a test can come near.
    void make_cache();
    /// Waits for what ends on a thread of the cache's.
    void settle_cache();
    /// What was answered in place of an exception; nullopt: that all is well.
    [[nodiscard]] std::optional<Error> answer() const;

    const World& world;
    std::shared_ptr<FaultDriver> driver;
    std::optional<FabricBuffer> own;
    std::optional<FabricBuffer> other;
    std::optional<ImportedFabricBuffer> imported;
    std::optional<ImportedFabricBuffer> other_import;
    std::optional<Arena> arena;
    std::optional<Arena> other_arena;
    Block block;
    Block other_block;
    std::optional<FlagSlots<SlotMessage>> slots;
    std::optional<FlagSlots<SlotMessage>> other_slots;
    std::optional<ImportCache> cache;
    std::optional<ImportCache> other_cache;
    ImportView view;
    ImportView other_view;
    std::optional<Error> acquired;  // what acquire_all() says
    std::optional<ProbeResult> probed;
    std::optional<PeerProbe> peer_probe;
    std::optional<PeerProbe> foreign_probe;  // made with no fault in force
    std::optional<PeerProbeResult> peer_checked;
    std::optional<Mapped> foreign;  // memory that no buffer made; with no fault in force, as its end
    std::size_t retired = 0;        // ranges that stay reserved once all this is cleared
};

/// How a failure is told.
enum class Told {
    thrown,    ///< as an Error
    logged,    ///< in the log: it is a destructor's
    answered,  ///< by Scene::answer()
};

struct Operation {
    std::string name;      ///< with place and option, for humans
    std::string function;  ///< as PublicFunctions spells it
    Told told = Told::thrown;
    std::function<void(Scene&)> prepare;  ///< with no fault in force
    std::function<void(Scene&)> act;
};
[[nodiscard]] const std::vector<Operation>& operations();

/// A public function that makes no driver call; `act` does it, and the calls are counted.
struct Quiet {
    std::string function;
    std::function<void(Scene&)> act;
};
[[nodiscard]] const std::vector<Quiet>& quiet_functions();

/// Public functions that are in no loop. `functions` is one, or all members of a class as "Class::*", and then only
/// those that are told of no Driver.
struct Untried {
    std::string functions;
    std::string reason;
};
[[nodiscard]] const std::vector<Untried>& untried_functions();

/// Calls of the seam that no operation makes.
struct Unmade {
    std::string call;
    std::string reason;
};
[[nodiscard]] const std::vector<Unmade>& unmade_calls();

/// How many descriptors this process has open.
[[nodiscard]] std::size_t open_descriptors();

}  // namespace fabricmem::test
