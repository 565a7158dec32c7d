// SPDX-License-Identifier: Apache-2.0
// docs/mooncake.md: every block of code that it shows, compiled as it stands there, and run on the emulated driver
// between two ranks on two nodes, with a stand-in for Mooncake's transfer engine.
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/fabricmem.hpp>

#include "support/buffers.hpp"
#include "support/driver_notes.hpp"
#include "support/expect_error.hpp"
#include "support/meeting.hpp"
#include "support/test.hpp"
#include "support/transfer_engine.hpp"

// The driver calls of section 6 reach the driver of whoever maps or registers at the moment.
namespace {
fabricmem::Driver* libcuda = nullptr;
}
CUresult CUDAAPI cuPointerGetAttribute(void* data, CUpointer_attribute attribute, CUdeviceptr address) {
    return libcuda->pointer_get_attribute(data, attribute, address);
}
CUresult CUDAAPI cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp* properties,
                                                        CUmemGenericAllocationHandle handle) {
    return libcuda->mem_get_allocation_properties_from_handle(properties, handle);
}
CUresult CUDAAPI cuMemSetAccess(CUdeviceptr address, std::size_t bytes, const CUmemAccessDesc* access,
                                std::size_t count) {
    return libcuda->mem_set_access(address, bytes, access, count);
}

// Unnamed within: what the page shows and nothing here calls is a warning.
namespace mooncake {
namespace {
// In the order of the page.
// clang-format off
#include "mooncake/policy.hpp"
#include "mooncake/placement.hpp"
#include "mooncake/regions.hpp"
#include "mooncake/register.hpp"
#include "mooncake/plain_slots.hpp"
#include "mooncake/polled_slots.hpp"
#include "mooncake/credits.hpp"
#include "mooncake/links.hpp"
#include "mooncake/engine_writer.hpp"
#include "mooncake/engine_range.hpp"
#include "mooncake/engine_access.hpp"
#include "mooncake/ep_buffer.hpp"
#include "mooncake/tear_down.hpp"
// clang-format on
}  // namespace
}  // namespace mooncake

using namespace fabricmem;
using namespace fabricmem::test;
using namespace mooncake;

namespace {

using Clock = std::chrono::steady_clock;

EngineCalls calls_with_both_changes(const std::shared_ptr<Driver>& driver) {
    return {[driver](CUdeviceptr address, CUdeviceptr* base, std::size_t* bytes) {
                libcuda = driver.get();
                return range_of(address, base, bytes);
            },
            [driver](CUdeviceptr at, std::size_t bytes, CUmemGenericAllocationHandle handle) {
                libcuda = driver.get();
                return grant_access(at, bytes, handle, 1);
            }};
}

// One process: its node's driver, its engine, its arenas.
struct Rank {
    Rank(std::uint32_t number, const std::shared_ptr<Metadata>& metadata, EngineForHost changes)
        : driver(make_emulated_driver({.node = "node" + std::to_string(number)})),
          name("rank" + std::to_string(number)),
          engine(driver, metadata, name,
                 changes == EngineForHost::yes ? calls_with_both_changes(driver) : calls_of_today(driver)),
          placement(place(driver, {}, 0, changes)),
          arenas(make_arenas(driver, placement, 0, 1)) {
        register_arena(engine, *arenas.slots, "cpu:0");
        register_arena(engine, *arenas.bulk, "cuda:0");
    }
    [[nodiscard]] bool registered_right() {
        return engine.published().size() == 2 && is_published(engine.published()[0], *arenas.slots) &&
               is_published(engine.published()[1], *arenas.bulk);
    }
    /// PG's warm-up as it is: 4 bytes to an address of the peer's.
    [[nodiscard]] bool write(const std::string& segment, std::uint64_t address, std::int32_t value) {
        const BatchID batch = engine.allocateBatchID(1);
        const bool submitted = engine
                                   .submitTransfer(batch, {{.opcode = TransferRequest::WRITE,
                                                            .source = &value,
                                                            .target_id = engine.openSegment(segment),
                                                            .target_offset = address,
                                                            .length = sizeof value}})
                                   .ok();
        engine.freeBatchID(batch);
        return submitted;
    }

    std::shared_ptr<Driver> driver;
    std::string name;
    TransferEngine engine;
    Placement placement;
    Arenas arenas;
};

struct Pair {
    explicit Pair(EngineForHost changes) : a(0, metadata, changes), b(1, metadata, changes) {}

    std::shared_ptr<Metadata> metadata = std::make_shared<Metadata>();
    Rank a;
    Rank b;
};

HandshakeOptions with_engine(Rank& rank, std::uint32_t number) {
    HandshakeOptions options = warm_up_options(number, 0, rank.placement, rank.arenas);
    options.writer = engine_writer(
        rank.engine, [&rank](std::uint32_t peer) { return rank.engine.openSegment("rank" + std::to_string(peer)); });
    return options;
}

void poll_until_up(Links& a, Links& b, const std::vector<std::uint32_t>& ups, std::size_t wanted) {
    const auto deadline = Clock::now() + std::chrono::seconds(60);
    while (ups.size() < wanted && Clock::now() < deadline) {
        a.poll();
        b.poll();
        std::this_thread::yield();
    }
    INFO(a.handshake().report().describe() << b.handshake().report().describe());
    REQUIRE(ups.size() == wanted);
}

void check_ring(Ring& mine, Ring& peers) {
    CHECK(mine.count() == 4096);
    mine.reset(1);
    CHECK_FALSE(credit(mine, 4097).has_value());
    std::array<std::byte, 48> payload{};
    payload[47] = std::byte{9};
    give_credit(peers, 4097, payload);
    const auto seen = credit(mine, 4097);
    REQUIRE(seen.has_value());
    CHECK(seen->payload == payload);
    CHECK_FALSE(credit(mine, 1).has_value());  // the same slot, another round
}

// The environment that a scope runs in; as it was, afterwards.
class Environment {
public:
    Environment(const char* name, const char* value) : name_(name) {
        if (const char* const old = std::getenv(name)) old_ = old;
        set(value);
    }
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;
    ~Environment() { set(old_.has_value() ? old_->c_str() : nullptr); }

private:
    void set(const char* value) const {
        if (value == nullptr) {
            ::unsetenv(name_);
        } else {
            ::setenv(name_, value, 1);
        }
    }
    const char* name_;
    std::optional<std::string> old_{};
};

}  // namespace

TEST_CASE("The page's helper reads the variables as the engine and EP do", "[mooncake]") {
    const Environment no_force("MC_FORCE_MNNVL", nullptr);
    {
        const Environment unset("MC_USE_NVLINK_IPC", nullptr);
        const FabricPolicy policy = policy_from_environment();
        CHECK((policy.engine && policy.ep && !policy.required));
        const Environment force("MC_FORCE_MNNVL", "1");
        CHECK(policy_from_environment().required);
    }
    {
        const Environment zero("MC_USE_NVLINK_IPC", "0");
        const FabricPolicy policy = policy_from_environment();
        CHECK((!policy.engine && policy.ep));
        const Environment force("MC_FORCE_MNNVL", "1");
        FABRICMEM_CHECK_ERROR(policy_from_environment(), bad_argument, "unset MC_USE_NVLINK_IPC");
    }
    const Environment one("MC_USE_NVLINK_IPC", "1");
    const FabricPolicy policy = policy_from_environment();
    CHECK((!policy.engine && !policy.ep));
}

TEST_CASE("Regions are placed by what a probe has done, and by what the engine can register", "[mooncake]") {
    const auto driver = make_emulated_driver();
    CHECK(place(driver, {}, 0, EngineForHost::yes).host);
    const Placement unchanged = place(driver, {}, 0, EngineForHost::no);
    CHECK((unchanged.device && !unchanged.host));
    CHECK(contains(unchanged.why, "can't register host memory"));
    const Placement ipc = place(driver, {.engine = false}, 0, EngineForHost::yes);
    CHECK((!ipc.device && !ipc.host));
    CHECK(contains(ipc.why, "MC_USE_NVLINK_IPC"));
    const auto without = make_emulated_driver({.imex_channel = std::nullopt});
    const Placement nowhere = place(without, {}, 0, EngineForHost::yes);
    CHECK_FALSE(nowhere.device);
    CHECK_FALSE(nowhere.why.empty());
    FABRICMEM_CHECK_ERROR(place(without, {.required = true}, 0, EngineForHost::yes), not_permitted, "IMEX");
}

TEST_CASE("With both changes PG's present warm-up works on a block of host memory", "[mooncake]") {
    Pair pair(EngineForHost::yes);
    REQUIRE(pair.a.placement.host);
    CHECK(pair.a.registered_right());
    CHECK(pair.b.registered_right());
    const Block slots = pair.a.arenas.slots->allocate(256);
    REQUIRE(slots.access().host);
    CHECK(load_slot(slots, 1) == 0);
    REQUIRE(pair.b.write("rank0", pointer(slots.address()) + 4, 1));
    CHECK(load_slot(slots, 1) == 1);
    CHECK(load_slot(slots, 0) == 0);
    CHECK(load_slot(slots, 2) == 0);
}

TEST_CASE("Every region of a communicator is written by the peer through one registration", "[mooncake]") {
    Pair pair(EngineForHost::yes);
    const CommunicatorRegions regions = make_regions(pair.a.arenas);
    const PrimaryContext context(pair.a.driver, 0);
    for (const Block* block : {&regions.cpu_sync_recv[0], &regions.cpu_sync_recv[1], &regions.credits, &regions.acks,
                               &regions.collective_recv[0], &regions.collective_recv[1]}) {
        const CUdeviceptr last = pointer(block->address()) + block->bytes() - 4;
        const auto value = static_cast<std::int32_t>(block->offset() + 1);
        REQUIRE(pair.b.write("rank0", last, value));
        std::int32_t seen = 0;
        REQUIRE(pair.a.driver->memcpy_dtoh(&seen, last, sizeof seen) == CUDA_SUCCESS);
        CHECK(seen == value);
    }
    CHECK(pair.a.engine.published().size() == 2);
}

TEST_CASE("An unchanged engine publishes address 0 for host memory, and then nothing of the process is reached",
          "[mooncake]") {
    Pair pair(EngineForHost::no);
    CHECK(pair.a.registered_right());
    const Block good = pair.a.arenas.bulk->allocate(256);
    REQUIRE(pair.b.write("rank0", pointer(good.address()), 1));
    const Arena host(pair.a.driver, 4096, {.location = Location::host_nearest(0)});
    register_arena(pair.a.engine, host, "cpu:0");
    CHECK(pair.a.engine.published().back().addr == 0);
    CHECK(pair.a.engine.published().back().length == host.blob().mapped_bytes);
    CHECK_FALSE(is_published(pair.a.engine.published().back(), host));
    CHECK_FALSE(pair.b.write("rank0", pointer(good.address()), 1));
}

TEST_CASE("Heap memory is registered without an error, and a write to it is refused", "[mooncake]") {
    Pair pair(EngineForHost::yes);
    std::array<std::int32_t, 64> heap{};
    CHECK(pair.a.engine.registerLocalMemory(heap.data(), sizeof heap, "*") == 0);
    CHECK(pair.a.engine.published().size() == 2);
    CHECK_FALSE(pair.b.write("rank0", pointer(heap.data()), 1));
}

TEST_CASE("Slots on a device, for an unchanged engine, are read by copies", "[mooncake]") {
    Pair pair(EngineForHost::no);
    REQUIRE_FALSE(pair.a.placement.host);
    PolledSlots slots(pair.a.arenas.slots->allocate(256));
    CHECK(slots.by_copies());
    CHECK(slots.load(1) == 0);
    REQUIRE(pair.b.write("rank0", slots.address() + 4, -7));
    CHECK(slots.load(1) == -7);
    CHECK(slots.load(2) == 0);
    slots.clear(1);
    CHECK(slots.load(1) == 0);
    Pair changed(EngineForHost::yes);
    CHECK_FALSE(PolledSlots(changed.a.arenas.slots->allocate(256)).by_copies());
}

TEST_CASE("Links come up by the library's own writes, and are told of once", "[mooncake]") {
    Pair pair(EngineForHost::yes);
    std::vector<std::uint32_t> ups;
    const Links::Changed up = [&](const PeerReport& peer) {
        if (peer.stage == PeerStage::connected) ups.push_back(peer.rank);
    };
    Links a(pair.a.driver, warm_up_options(0, 0, pair.a.placement, pair.a.arenas), up);
    Links b(pair.b.driver, warm_up_options(1, 0, pair.b.placement, pair.b.arenas), up);
    a.poll();
    a.enable_peer(1, b.hello());
    b.enable_peer(0, a.hello());
    poll_until_up(a, b, ups, 2);
    a.poll();
    CHECK(ups.size() == 2);  // told once
    a.handshake().health_check(1, soon(std::chrono::seconds(60)));

    b.stop_reconnect(0);
    CHECK(b.handshake().report().peers.size() == 1);
}

TEST_CASE("Credits go through a ring in the reader's arena, on hosts and on devices", "[mooncake]") {
    for (const EngineForHost changes : {EngineForHost::no, EngineForHost::yes}) {
        CAPTURE(static_cast<int>(changes));
        Pair pair(changes);
        CommunicatorRegions regions = make_regions(pair.a.arenas);
        const auto blob = regions.credits.blob().to_bytes();
        Ring mine(std::move(regions.credits));
        CHECK(mine.is_direct() == (changes == EngineForHost::yes));
        Ring peers = ring_of_peer(pair.b.driver, blob);
        CHECK(peers.count() == mine.count());
        check_ring(mine, peers);
    }
}

TEST_CASE("Tokens go through the transfer engine, changed or not", "[mooncake]") {
    for (const EngineForHost changes : {EngineForHost::no, EngineForHost::yes}) {
        CAPTURE(static_cast<int>(changes));
        Pair pair(changes);
        std::vector<std::uint32_t> ups;
        const Links::Changed up = [&](const PeerReport& peer) {
            if (peer.stage == PeerStage::connected) ups.push_back(peer.rank);
        };
        Links a(pair.a.driver, with_engine(pair.a, 0), up);
        Links b(pair.b.driver, with_engine(pair.b, 1), up);
        a.enable_peer(1, b.hello());
        b.enable_peer(0, a.hello());
        poll_until_up(a, b, ups, 2);
        const PeerReport peer = a.handshake().peer(1);
        CHECK(peer.device.state == PathState::proved);
        CHECK(peer.host.state == (changes == EngineForHost::yes ? PathState::proved : PathState::absent));
        CHECK(peer.device.from_device == -1);
        CHECK(pair.a.engine.writes() >= 2);
        CHECK(pair.a.engine.batches() == 0);
        CHECK(a.handshake().imported(1, LocationKind::device) == nullptr);
        CHECK(kind_of([&] { a.handshake().health_check(1, soon(std::chrono::seconds(60))); }) ==
              ErrorKind::unsupported);
    }
}

TEST_CASE("A write that the engine can't place fails the peer instead of reading as completed", "[mooncake]") {
    Pair pair(EngineForHost::yes);
    pair.b.engine.unregisterLocalMemory(pair.b.arenas.bulk->address());
    TransferStatus status{};
    const BatchID batch = pair.a.engine.allocateBatchID(1);
    REQUIRE(pair.a.engine.getTransferStatus(batch, 0, status).ok());
    CHECK(status.s == TransferStatusEnum::COMPLETED);  // the trap: nothing was submitted
    REQUIRE(pair.a.engine.freeBatchID(batch).ok());
    Links a(pair.a.driver, with_engine(pair.a, 0), [](const PeerReport&) {});
    Links b(pair.b.driver, with_engine(pair.b, 1), [](const PeerReport&) {});
    a.enable_peer(1, b.hello());
    a.handshake().wait(soon(std::chrono::seconds(60)));
    const PeerReport peer = a.handshake().peer(1);
    CHECK(peer.stage == PeerStage::failed);
    REQUIRE(peer.error.has_value());
    CHECK(contains(peer.error->what(), "not found!"));
    CHECK(pair.a.engine.batches() == 0);
}

TEST_CASE("The operator reads of a missing peer what the page shows, and of bytes that are no hello why",
          "[mooncake]") {
    Pair pair(EngineForHost::yes);
    Links a(pair.a.driver, warm_up_options(0, 0, pair.a.placement, pair.a.arenas), [](const PeerReport&) {});
    const std::vector<std::byte> garbage(Handshake::kHelloBytes);
    FABRICMEM_CHECK_ERROR(a.enable_peer(2, garbage), bad_blob, "hello");
    HandshakeOptions options = warm_up_options(1, 0, pair.b.placement, pair.b.arenas);
    options.world_size = 2;
    Handshake alone(pair.b.driver, options);
    std::string shown = alone.wait(soon(std::chrono::milliseconds(1))).describe();
    while (!shown.empty() && shown.back() == '\n') shown.pop_back();
    CHECK(contains(shown, "rank 0, no_hello: "));
    INFO(shown);
    CHECK(contains(read_text(std::string(FABRICMEM_SOURCE_DIR) + "/docs/mooncake.md"), "\n" + shown + "\n"));
}

TEST_CASE("EP's buffers go around as 80 words, and a rank without one costs that rank alone", "[mooncake]") {
    const auto own = make_emulated_driver({.node = "node0"});
    const auto other = make_emulated_driver({.node = "node1"});
    const auto without = make_emulated_driver({.imex_channel = std::nullopt, .node = "node2"});
    const auto buffer = make_gdr_buffer(own, {}, 0, 3 * kMiB);
    const auto peers_buffer = make_gdr_buffer(other, {}, 0, 3 * kMiB);
    REQUIRE(buffer.has_value());
    REQUIRE(peers_buffer.has_value());
    CHECK(buffer->rdma());
    CHECK_FALSE(make_gdr_buffer(without, {}, 0, kMiB).has_value());
    CHECK_FALSE(make_gdr_buffer(own, {.ep = false}, 0, kMiB).has_value());
    FABRICMEM_CHECK_ERROR(make_gdr_buffer(without, {.required = true}, 0, kMiB), not_permitted, "IMEX");
    FABRICMEM_CHECK_ERROR(make_gdr_buffer(own, {}, 0, std::uint64_t{1} << 38), out_of_memory, "cuMemCreate");

    const std::vector<EpWords> gathered{words_of(buffer), words_of(std::nullopt), words_of(peers_buffer)};
    const EpPeers peers = import_peers(own, gathered, 0, *buffer);
    CHECK(peers.pointers[0] == buffer->address());
    CHECK(peers.pointers[1] == nullptr);
    CHECK_FALSE(peers.reasons[1].empty());
    REQUIRE(peers.imports[2].has_value());
    CHECK(peers.reasons[2].empty());
    const PrimaryContext context(own, 0);
    const PrimaryContext peers_context(other, 0);
    const std::uint32_t word = 0x600d;
    REQUIRE(own->memcpy_htod(pointer(peers.pointers[2]), &word, sizeof word) == CUDA_SUCCESS);
    std::uint32_t seen = 0;
    REQUIRE(other->memcpy_dtoh(&seen, pointer(*peers_buffer), sizeof seen) == CUDA_SUCCESS);
    CHECK(seen == word);
}

TEST_CASE("At the end the arenas that the engine still holds are counted", "[mooncake]") {
    const QuietLog quiet;
    Pair pair(EngineForHost::yes);
    Links links(pair.a.driver, warm_up_options(0, 0, pair.a.placement, pair.a.arenas), [](const PeerReport&) {});
    {
        const CommunicatorRegions regions = make_regions(pair.a.arenas);
        CHECK(kind_of([&] { pair.a.arenas.slots->close(); }) == ErrorKind::conflict);
    }
    const void* const old = pair.a.arenas.bulk->address();
    CHECK(tear_down(links, pair.a.engine, pair.a.arenas) == 2);
    CHECK(pair.a.engine.published().empty());
    CHECK_FALSE(pair.a.arenas.bulk->is_open());
    const Arenas again = make_arenas(pair.a.driver, pair.a.placement, 0, 1);
    CHECK(again.bulk->address() != old);  // retired
}
