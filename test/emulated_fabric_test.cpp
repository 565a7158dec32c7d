// SPDX-License-Identifier: Apache-2.0
// What is switched while a fabric runs, seen by several drivers of one process. Two processes are in
// emulated_fabric_process_test.cpp.
#include <fabricmem/emulated_fabric.hpp>

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "support/buffers.hpp"
#include "support/fabric_kit.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

// Two nodes of one rack.
struct Rack {
    Fabric fabric = ready_made("gb200-nvl72");
    std::shared_ptr<Driver> here = driver_on(fabric, "node0");
    std::shared_ptr<Driver> there = driver_on(fabric, "node1");
};

// An import of `exporter`'s memory by `importer`, mapped, with access.
class Peering {
public:
    Peering(Driver& exporter, Driver& importer)
        : own_(exporter), peer_(importer, imported(importer, own_.bytes()), {access_for(kDevice)}) {
        REQUIRE(peer_.result() == CUDA_SUCCESS);
    }
    [[nodiscard]] Exported& own() { return own_; }
    [[nodiscard]] Mapped& peer() { return peer_; }

private:
    Exported own_;
    Mapped peer_;
};

std::optional<Error> import_error(const std::shared_ptr<Driver>& importer, const FabricBuffer& buffer) {
    return error_of([&] { const ImportedFabricBuffer peer(importer, buffer.blob()); });
}

// Every call of a driver that was cut off, or a good sample of them.
void check_cut_off(Driver& driver, const Mapped& peer) {
    CHECK(any_call(driver) == CUDA_ERROR_NVLINK_UNCORRECTABLE);
    CHECK(try_create(driver) == CUDA_ERROR_NVLINK_UNCORRECTABLE);
    std::uint32_t word = 0;
    CHECK(driver.memcpy_dtoh(&word, peer.address(), sizeof word) == CUDA_ERROR_NVLINK_UNCORRECTABLE);
    CHECK(driver.mem_release(peer.handle()) == CUDA_ERROR_NVLINK_UNCORRECTABLE);
    CHECK(driver.ctx_synchronize() == CUDA_ERROR_NVLINK_UNCORRECTABLE);
    const char* text = nullptr;
    CHECK(driver.get_error_name(CUDA_ERROR_NVLINK_UNCORRECTABLE, &text) == CUDA_SUCCESS);
}

class TemporaryFile {
public:
    ~TemporaryFile() { ::unlink(path.c_str()); }
    std::string path = "/tmp/fabricmem-switches-" + std::to_string(::getpid());
};

}  // namespace

TEST_CASE("A handle exported while the daemon was down is single-node for ever, a fresh one is not", "[emulated]") {
    const Rack rack;
    const auto beside = driver_on(rack.fabric, "node0");
    const Exported memory(*rack.here);
    rack.fabric->set_imex_daemon("node0", ImexDaemon::down);
    const FabricBytes bytes = memory.bytes();
    CHECK(memory.bytes() == bytes);
    CHECK(try_import(*rack.here, bytes) == CUDA_SUCCESS);
    CHECK(try_import(*beside, bytes) == CUDA_SUCCESS);
    CHECK(try_import(*rack.there, bytes) == CUDA_ERROR_NOT_SUPPORTED);
    rack.fabric->set_imex_daemon("node0", ImexDaemon::ready);
    CHECK(try_import(*rack.there, bytes) == CUDA_ERROR_NOT_SUPPORTED);
    CHECK(try_import(*rack.there, memory.bytes()) == CUDA_SUCCESS);
}

TEST_CASE("A buffer that was exported while the daemon was down is exported again, and is good elsewhere",
          "[emulated]") {
    const Rack rack;
    rack.fabric->set_imex_daemon("node0", ImexDaemon::down);
    const FabricBuffer buffer(rack.here, 5000, {.location = Location::device(0)});
    const HandleBlob before = buffer.blob();
    CHECK(!import_if_alive(rack.there, buffer.export_again()).has_value());  // no better yet
    rack.fabric->set_imex_daemon("node0", ImexDaemon::ready);
    CHECK(!import_if_alive(rack.there, before).has_value());
    const HandleBlob again = buffer.export_again();
    CHECK(again.handle != before.handle);
    CHECK(import_if_alive(rack.there, again).has_value());
    CHECK(buffer.blob() == before);
}

TEST_CASE("The library names the exporter's daemon for a single-node handle", "[emulated]") {
    const Rack rack;
    rack.fabric->set_imex_daemon("node0", ImexDaemon::down);
    const FabricBuffer buffer(rack.here, 1, {.location = Location::device(0)});
    rack.fabric->set_imex_daemon("node0", ImexDaemon::ready);
    const auto error = import_error(rack.there, buffer);
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::peer_gone);
    CHECK(contains(error->what(), "IMEX daemon was down when it exported"));
    CHECK(!import_if_alive(rack.there, buffer.blob()).has_value());
}

TEST_CASE("While the importer's daemon is down imports from other nodes alone are NOT_READY", "[emulated]") {
    const Rack rack;
    const auto beside = driver_on(rack.fabric, "node1");
    const FabricBuffer buffer(rack.here, 1, {.location = Location::device(0)});
    const Exported own(*rack.there);
    rack.fabric->set_imex_daemon("node1", ImexDaemon::down);
    const auto error = import_error(rack.there, buffer);
    REQUIRE(error.has_value());
    CHECK(error->code() == CUDA_ERROR_NOT_READY);
    CHECK(error->kind() == ErrorKind::system);
    CHECK(contains(error->what(), "nvidia-imex"));
    CHECK(try_import(*rack.there, own.bytes()) == CUDA_SUCCESS);
    CHECK(try_import(*beside, own.bytes()) == CUDA_SUCCESS);
    rack.fabric->set_imex_daemon("node1", ImexDaemon::ready);
    CHECK(!import_error(rack.there, buffer).has_value());
}

TEST_CASE("While the exporter's daemon is down its good handles are INVALID_HANDLE elsewhere", "[emulated]") {
    const Rack rack;
    const Exported memory(*rack.here);
    const FabricBytes bytes = memory.bytes();
    rack.fabric->set_imex_daemon("node0", ImexDaemon::down);
    CHECK(try_import(*rack.there, bytes) == CUDA_ERROR_INVALID_HANDLE);
    rack.fabric->set_imex_daemon("node0", ImexDaemon::ready);
    CHECK(try_import(*rack.there, bytes) == CUDA_SUCCESS);
}

TEST_CASE("A daemon that goes down takes no import with it", "[emulated]") {
    const Rack rack;
    Peering peering(*rack.here, *rack.there);
    rack.fabric->set_imex_daemon("node0", ImexDaemon::down);
    rack.fabric->set_imex_daemon("node1", ImexDaemon::down);
    CHECK(any_call(*rack.there) == CUDA_SUCCESS);
    CHECK(peering.peer().destroy() == CUDA_SUCCESS);
}

TEST_CASE("A killed daemon cuts off who had imports from its node, for good", "[emulated]") {
    const Rack rack;
    const auto bystander = driver_on(rack.fabric, "node2");
    const auto beside = driver_on(rack.fabric, "node0");
    Peering peering(*rack.here, *rack.there);
    const CUmemGenericAllocationHandle same_node = imported(*beside, peering.own().bytes());
    rack.fabric->set_imex_daemon("node0", ImexDaemon::killed);
    check_cut_off(*rack.there, peering.peer());
    rack.fabric->set_imex_daemon("node0", ImexDaemon::ready);
    check_cut_off(*rack.there, peering.peer());
    for (Driver* const alive : {rack.here.get(), beside.get(), bystander.get()})
        CHECK(any_call(*alive) == CUDA_SUCCESS);
    CHECK(beside->mem_release(same_node) == CUDA_SUCCESS);
    // A process that is started anew on the node is well.
    CHECK(try_import(*driver_on(rack.fabric, "node1"), peering.own().bytes()) == CUDA_SUCCESS);
}

TEST_CASE("A killed daemon cuts off its own node's importers too", "[emulated]") {
    const Rack rack;
    Peering peering(*rack.here, *rack.there);
    rack.fabric->set_imex_daemon("node1", ImexDaemon::killed);
    check_cut_off(*rack.there, peering.peer());
    CHECK(any_call(*rack.here) == CUDA_SUCCESS);
}

TEST_CASE("A kill between two looks is not missed, and one without imports harms nobody", "[emulated]") {
    const Rack rack;
    auto peering = std::make_unique<Peering>(*rack.here, *rack.there);
    CHECK(peering->peer().destroy() == CUDA_SUCCESS);
    rack.fabric->set_imex_daemon("node0", ImexDaemon::killed);
    rack.fabric->set_imex_daemon("node0", ImexDaemon::ready);
    CHECK(any_call(*rack.there) == CUDA_SUCCESS);
    peering = std::make_unique<Peering>(*rack.here, *rack.there);
    rack.fabric->set_imex_daemon("node0", ImexDaemon::killed);
    rack.fabric->set_imex_daemon("node0", ImexDaemon::ready);
    CHECK(any_call(*rack.there) == CUDA_ERROR_NVLINK_UNCORRECTABLE);
}

TEST_CASE("A mapping alone is an import that a kill cuts off", "[emulated]") {
    const Rack rack;
    Peering peering(*rack.here, *rack.there);
    CHECK(peering.peer().release() == CUDA_SUCCESS);
    rack.fabric->set_imex_daemon("node0", ImexDaemon::killed);
    CHECK(any_call(*rack.there) == CUDA_ERROR_NVLINK_UNCORRECTABLE);
}

TEST_CASE("A node whose daemon was killed makes no fabric memory until it is ready again", "[emulated]") {
    const Rack rack;
    rack.fabric->set_imex_daemon("node0", ImexDaemon::killed);
    CHECK(try_create(*rack.here, device_memory(kPosixFd)) == CUDA_SUCCESS);
    CHECK(try_create(*rack.here, host_memory(kFabric)) == CUDA_ERROR_SYSTEM_NOT_READY);
    CHECK(try_create(*rack.there) == CUDA_SUCCESS);
    const auto error = error_of([&] { const FabricBuffer buffer(rack.here, 1, {.location = Location::device(0)}); });
    REQUIRE(error.has_value());
    CHECK(error->code() == CUDA_ERROR_SYSTEM_NOT_READY);
    CHECK(error->kind() == ErrorKind::system);
    CHECK(contains(error->what(), "IMEX daemon died"));
    rack.fabric->set_imex_daemon("node0", ImexDaemon::ready);
    CHECK(try_create(*rack.here) == CUDA_SUCCESS);
}

TEST_CASE("A buffer of a process that was cut off can be destroyed, and says why it can't be closed", "[emulated]") {
    const Rack rack;
    const QuietLog quiet;
    const FabricBuffer buffer(rack.here, 1, {.location = Location::device(0)});
    ImportedFabricBuffer peer(rack.there, buffer.blob());
    ImportedFabricBuffer other(rack.there, buffer.blob());
    rack.fabric->set_node("node0", NodeLife::lost);
    const auto error = error_of([&] { peer.close(); });
    REQUIRE(error.has_value());
    CHECK(error->code() == CUDA_ERROR_NVLINK_UNCORRECTABLE);
    CHECK(contains(error->what(), "NVLink peer is gone"));
}

TEST_CASE("A lost node's processes fail, and so do those that had imports from it", "[emulated]") {
    const Rack rack;
    const QuietLog quiet;
    const auto bystander = driver_on(rack.fabric, "node2");
    Peering peering(*rack.here, *rack.there);
    const FabricBuffer buffer(rack.here, 1, {.location = Location::device(0)});
    const FabricBytes bytes = peering.own().bytes();
    rack.fabric->set_node("node0", NodeLife::lost);
    CHECK(any_call(*rack.here) == CUDA_ERROR_NVLINK_UNCORRECTABLE);
    check_cut_off(*rack.there, peering.peer());
    const auto error = import_error(bystander, buffer);
    REQUIRE(error.has_value());
    CHECK(error->code() == CUDA_ERROR_INVALID_HANDLE);
    CHECK(contains(error->what(), "exporter that is gone"));
    CHECK(kind_of([&] { static_cast<void>(driver_on(rack.fabric, "node0")); }) == ErrorKind::system);

    rack.fabric->set_node("node0", NodeLife::up);
    CHECK(any_call(*rack.here) == CUDA_ERROR_NVLINK_UNCORRECTABLE);
    CHECK(try_import(*bystander, bytes) == CUDA_ERROR_NOT_SUPPORTED);  // of before the boot
    const auto again = driver_on(rack.fabric, "node0");
    CHECK(again->platform().host_id() == rack.here->platform().host_id());
    CHECK(again->platform().boot_id() != rack.here->platform().boot_id());
    CHECK(try_import(*again, bytes) == CUDA_ERROR_NOT_SUPPORTED);
    const Exported memory(*again);
    CHECK(try_import(*bystander, memory.bytes()) == CUDA_SUCCESS);
}

TEST_CASE("A stream that waits for a word of a lost node ends its wait", "[emulated]") {
    const Rack rack;
    Peering peering(*rack.here, *rack.there);
    std::atomic<bool> queued{false};
    Call call([&] {
        const CurrentContext context(*rack.there);
        CUstream stream = nullptr;
        rack.there->stream_create(&stream, CU_STREAM_NON_BLOCKING);
        rack.there->stream_wait_value32(stream, peering.peer().address(), 1, CU_STREAM_WAIT_VALUE_EQ);
        queued = true;
        return rack.there->stream_synchronize(stream);
    });
    CHECK(call.still_hangs());
    CHECK(queued);
    rack.fabric->set_node("node0", NodeLife::lost);
    CHECK(call.answer() == CUDA_ERROR_NVLINK_UNCORRECTABLE);
}

TEST_CASE("An import that never returns does so once the switch is taken back, and hurts nobody else", "[emulated]") {
    const Rack rack;
    const Exported memory(*rack.here);
    const Exported own(*rack.there);
    const FabricBytes bytes = memory.bytes();
    rack.fabric->set_imports("node1", RemoteCalls::hang);
    Call call([&] { return try_import(*rack.there, bytes); });
    CHECK(call.still_hangs());
    CHECK(any_call(*rack.there) == CUDA_SUCCESS);
    CHECK(try_import(*rack.there, own.bytes()) == CUDA_SUCCESS);
    CHECK(try_import(*driver_on(rack.fabric, "node2"), bytes) == CUDA_SUCCESS);
    rack.fabric->set_imports("node1", RemoteCalls::answer);
    CHECK(call.answer() == CUDA_SUCCESS);
}

TEST_CASE("A release and an unmap that end an import hang, others do not", "[emulated]") {
    const Rack rack;
    Exported memory(*rack.here);
    Mapped first(*rack.there, imported(*rack.there, memory.bytes()), {access_for(kDevice)});
    Mapped second(*rack.there, imported(*rack.there, memory.bytes()), {});
    rack.fabric->set_releases("node1", RemoteCalls::hang);
    CHECK(first.release() == CUDA_SUCCESS);  // its mapping keeps the import
    CHECK(second.unmap() == CUDA_SUCCESS);   // its handle does
    CHECK(memory.memory().destroy() == CUDA_SUCCESS);
    CHECK(try_create(*rack.there) == CUDA_SUCCESS);  // what is no import is released at once
    Call unmap([&] { return first.unmap(); });
    Call release([&] { return second.release(); });
    CHECK(unmap.still_hangs());
    CHECK(release.still_hangs());
    CHECK(any_call(*rack.there) == CUDA_SUCCESS);
    rack.fabric->set_releases("node1", RemoteCalls::answer);
    CHECK(unmap.answer() == CUDA_SUCCESS);
    CHECK(release.answer() == CUDA_SUCCESS);
}

TEST_CASE("A call that hangs returns when its process is cut off, and when the fabric ends", "[emulated]") {
    const Rack rack;
    const Exported memory(*rack.here);
    const FabricBytes bytes = memory.bytes();
    rack.fabric->set_imports("node1", RemoteCalls::hang);
    SECTION("cut off") {
        Call call([&] { return try_import(*rack.there, bytes); });
        CHECK(call.still_hangs());
        rack.fabric->set_node("node1", NodeLife::lost);
        CHECK(call.answer() == CUDA_ERROR_NVLINK_UNCORRECTABLE);
    }
    SECTION("ended") {
        Call call([&] { return try_import(*rack.there, bytes); });
        CHECK(call.still_hangs());
        rack.fabric->end();
        CHECK(call.answer() == CUDA_ERROR_NVLINK_UNCORRECTABLE);
        CHECK(any_call(*rack.there) == CUDA_ERROR_NVLINK_UNCORRECTABLE);
        CHECK(any_call(*rack.here) == CUDA_SUCCESS);
    }
}

TEST_CASE("NVML's state, health and clique are as switched, and back", "[emulated]") {
    const Rack rack;
    rack.fabric->set_health_mask("node0", 0x5U);
    rack.fabric->set_clique("node0", 5U);
    CHECK(info_of(*rack.here).health_mask == 0x5U);
    CHECK(info_of(*rack.here).clique == 5);
    CHECK(info_of(*rack.there).clique == 32766);
    rack.fabric->set_health_mask("node0", std::nullopt);
    rack.fabric->set_clique("node0", std::nullopt);
    CHECK(info_of(*rack.here).health_mask == 0xaaU);
    CHECK(info_of(*rack.here).clique == 32766);
}

TEST_CASE("A clique that changes is noticed by the next map", "[emulated]") {
    const Rack rack;
    const FabricBuffer buffer(rack.here, 1, {.location = Location::device(0)});
    rack.fabric->set_clique("node1", 5U);
    const auto error = import_error(driver_on(rack.fabric, "node1"), buffer);
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::foreign_domain);
    CHECK(contains(error->what(), "different NVLink domains or cliques"));
    rack.fabric->set_clique("node1", std::nullopt);
    CHECK(!import_error(rack.there, buffer).has_value());
}

TEST_CASE("A node that has not joined the NVLink fabric makes no fabric memory and starts no process", "[emulated]") {
    const Rack rack;
    rack.fabric->set_fabric_state("node0", FabricInfo::State::in_progress);
    CHECK(info_of(*rack.here).state == FabricInfo::State::in_progress);
    const auto error = error_of([&] { const FabricBuffer buffer(rack.here, 1, {.location = Location::device(0)}); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::system);
    CHECK(contains(error->what(), "not finished joining"));
    const auto refused = error_of([&] { static_cast<void>(driver_on(rack.fabric, "node0")); });
    REQUIRE(refused.has_value());
    CHECK(refused->kind() == ErrorKind::system);
    CHECK(refused->code() == CUDA_ERROR_SYSTEM_NOT_READY);
    rack.fabric->set_fabric_state("node0", FabricInfo::State::not_started);
    CHECK(try_create(*rack.here) == CUDA_ERROR_SYSTEM_NOT_READY);
    CHECK(try_create(*rack.here, device_memory(kPosixFd)) == CUDA_SUCCESS);
    rack.fabric->set_fabric_state("node0", std::nullopt);
    CHECK(try_create(*rack.here) == CUDA_SUCCESS);
    CHECK(any_call(*driver_on(rack.fabric, "node0")) == CUDA_SUCCESS);
}

TEST_CASE("With measured latency every call of an allocation's life takes at least as long as it did", "[emulated]") {
    const Rack rack;
    Driver& driver = *rack.here;
    const CUmemAllocationProp wanted = device_memory(kFabric | kPosixFd);
    CUmemGenericAllocationHandle handle = 0;
    CUmemGenericAllocationHandle import = 0;
    CUdeviceptr address = 0;
    FabricBytes bytes{};
    int descriptor = -1;
    const CUmemAccessDesc access = access_for(kDevice);
    const auto takes = [](double microseconds, auto call) {
        const auto begin = std::chrono::steady_clock::now();
        CHECK(call() == CUDA_SUCCESS);
        const auto took = std::chrono::steady_clock::now() - begin;
        CHECK(std::chrono::duration<double, std::micro>(took).count() >= microseconds);
    };
    rack.fabric->set_latency("node0", 1000.0);
    takes(31'000, [&] { return driver.mem_create(&handle, kTwoMiB, &wanted, 0); });
    takes(1'000, [&] { return driver.mem_address_reserve(&address, kTwoMiB, 0, 0, 0); });
    takes(1'000, [&] { return driver.mem_map(address, kTwoMiB, 0, handle, 0); });
    takes(31'000, [&] { return driver.mem_set_access(address, kTwoMiB, &access, 1); });
    takes(100, [&] { return export_fabric(driver, handle, &bytes); });
    takes(28'000, [&] { return import_fabric(driver, bytes, &import); });
    takes(25'000, [&] { return driver.mem_release(import); });
    takes(35'000, [&] {
        return driver.mem_export_to_shareable_handle(&descriptor, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    });
    takes(29'000, [&] {
        return driver.mem_import_from_shareable_handle(&import, reinterpret_cast<void*>(std::intptr_t{descriptor}),
                                                       CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    });
    close_descriptor(descriptor);
    takes(25'000, [&] { return driver.mem_release(import); });
    takes(21'000, [&] { return driver.mem_unmap(address, kTwoMiB); });
    takes(25'000, [&] { return driver.mem_release(handle); });
    takes(1'000, [&] { return driver.mem_address_free(address, kTwoMiB); });
}

TEST_CASE("Latency is as switched, else as the scenario says", "[emulated]") {
    const auto create_takes = [](const Fabric& fabric) {
        const auto driver = make_emulated_driver(fabric);
        const auto begin = std::chrono::steady_clock::now();
        CHECK(try_create(*driver) == CUDA_SUCCESS);
        return std::chrono::steady_clock::now() - begin;
    };
    Scenario scenario = Scenario::ready_made("single-h100");
    scenario.latency_factor = 3'600'000'000.0 / 56;  // an hour, were it on
    CHECK(kind_of([&] { scenario.validate(); }) == ErrorKind::bad_argument);
    scenario.latency_factor = 1'000'000;
    CHECK(create_takes(make_emulated_fabric(scenario)) < std::chrono::seconds(30));  // a minute, were it on
    scenario.latency = CallLatency::measured;
    const Fabric slow = make_emulated_fabric(scenario);
    slow->set_latency("node0", 0.0);
    CHECK(create_takes(slow) < std::chrono::seconds(30));
    scenario.latency_factor = 500;
    CHECK(create_takes(make_emulated_fabric(scenario)) >= std::chrono::milliseconds(28));
}

TEST_CASE("Every switch is set and told by name, and what can't be is a bad argument", "[emulated]") {
    const Fabric fabric = ready_made("single-h100");
    struct Row {
        const char* name;
        const char* value;
        const char* at_first;
        const char* wrong;
    };
    const Row rows[] = {
        {"imex_daemon", "killed", "ready", "dead"}, {"node", "lost", "up", ""},
        {"imports", "hang", "answer", "1"},         {"releases", "hang", "answer", "Hang"},
        {"channels", "absent", "present", "0"},     {"fabric_state", "in_progress", "scenario", "4"},
        {"health_mask", "170", "scenario", "0xaa"}, {"clique", "4294967295", "scenario", "4294967296"},
        {"latency", "2.5", "scenario", "-1"},       {"recovery_action", "5", "scenario", "none"},
    };
    CHECK(EmulatedFabric::switch_names().size() == std::size(rows));
    for (const Row& row : rows) {
        INFO(row.name);
        CHECK(fabric->get("node0", row.name) == row.at_first);
        fabric->set("node0", row.name, row.value);
        CHECK(fabric->get("", row.name) == row.value);
        fabric->set("node0", row.name, row.at_first);
        CHECK(fabric->get("node0", row.name) == row.at_first);
        CHECK(kind_of([&] { fabric->set("node0", row.name, row.wrong); }) == ErrorKind::bad_argument);
    }
    for (const char* const wrong : {"nan", "1e7", "2x", ""}) {
        CHECK(kind_of([&] { fabric->set("node0", "latency", wrong); }) == ErrorKind::bad_argument);
    }
    CHECK(kind_of([&] { fabric->set_latency("node0", -1.0); }) == ErrorKind::bad_argument);
    CHECK(kind_of([&] { fabric->set("node1", "node", "lost"); }) == ErrorKind::bad_argument);
    CHECK(kind_of([&] { fabric->set("node0", "nodes", "lost"); }) == ErrorKind::bad_argument);
}

TEST_CASE("Fabrics that name one file share their switches, and a file of others is refused", "[emulated]") {
    const TemporaryFile file;
    Scenario scenario = Scenario::ready_made("two-racks");
    scenario.switches = file.path;
    const Fabric one = make_emulated_fabric(scenario);
    const Fabric other = make_emulated_fabric(scenario);
    const auto exporter = driver_on(one, "rack0-node0");
    const auto importer = driver_on(other, "rack0-node1");
    Peering peering(*exporter, *importer);
    other->set_node("rack0-node0", NodeLife::lost);
    CHECK(one->get("rack0-node0", "node") == "lost");
    CHECK(any_call(*exporter) == CUDA_ERROR_NVLINK_UNCORRECTABLE);
    CHECK(any_call(*importer) == CUDA_ERROR_NVLINK_UNCORRECTABLE);

    const auto text_of = [&](const Scenario& wrong) {
        const auto error = error_of([&] { static_cast<void>(make_emulated_fabric(wrong)); });
        REQUIRE(error.has_value());
        CHECK(error->kind() == ErrorKind::bad_argument);
        return std::string(error->what());
    };
    Scenario changed = scenario;
    changed.nodes[0].devices[0].clique = 3;
    CHECK(contains(text_of(changed), "is of another scenario"));
    changed.nodes.pop_back();
    CHECK(contains(text_of(changed), "not the switches of this scenario"));
    std::fstream(file.path, std::ios::in | std::ios::out).seekp(8).put('\x63');
    CHECK(contains(text_of(scenario), "another version"));
    std::fstream(file.path, std::ios::in | std::ios::out).put('\x63');
    CHECK(contains(text_of(scenario), "is no file of switches"));
    scenario.switches = "/dev/null";
    CHECK(contains(text_of(scenario), "not the switches of this scenario"));
    scenario.switches = "/nowhere/at/all";
    CHECK(kind_of([&] { static_cast<void>(make_emulated_fabric(scenario)); }) == ErrorKind::system);
}

TEST_CASE("Threads that import, export and look are not disturbed by switches that do not concern them", "[emulated]") {
    const Rack rack;
    std::atomic<bool> stop{false};
    std::atomic<int> failures{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
        threads.emplace_back([&] {
            const CUmemAllocationProp wanted = device_memory(kFabric);
            for (int round = 0; round < 200; ++round) {
                const Mapped memory(*rack.here, wanted, {});
                FabricBytes bytes{};
                if (export_fabric(*rack.here, memory.handle(), &bytes) != CUDA_SUCCESS ||
                    try_import(*rack.there, bytes) != CUDA_SUCCESS) {
                    ++failures;
                }
            }
        });
    }
    std::thread switching([&] {
        while (!stop) {
            rack.fabric->set_imex_daemon("node5", ImexDaemon::killed);
            rack.fabric->set_health_mask("node0", 1U);
        }
    });
    for (std::thread& thread : threads) thread.join();
    stop = true;
    switching.join();
    CHECK(failures == 0);
}
