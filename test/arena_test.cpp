// SPDX-License-Identifier: Apache-2.0
// What an Arena and its blocks promise, on every driver at hand: [each] cases run on the real one too. A model of
// random blocks is in arena_model_test.cpp, threads in arena_threads_test.cpp, allocations in
// arena_allocation_test.cpp.
#include <fabricmem/arena.hpp>
#include <fabricmem/fault_driver.hpp>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <limits>
#include <thread>
#include <type_traits>
#include <vector>

#include "support/buffers.hpp"
#include "support/build.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/fabric_kit.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

static_assert(std::is_nothrow_move_constructible_v<Block> && std::is_nothrow_move_assignable_v<Block>);
static_assert(!std::is_copy_constructible_v<Block> && !std::is_copy_assignable_v<Block>);
static_assert(std::is_nothrow_move_constructible_v<Arena> && std::is_nothrow_move_assignable_v<Arena>);
static_assert(!std::is_copy_constructible_v<Arena> && !std::is_copy_assignable_v<Arena>);

namespace {

constexpr std::uint64_t kUnit = 64;

}  // namespace

TEST_CASE("A block tells what was asked and where it is", "[arena][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const Location& location : {Location::device(0), Location::host_numa(0)}) {
        CAPTURE(to_string(location));
        Arena arena(driver, 4 * kMiB, {.location = location});
        const Block first = arena.allocate(100);
        const Block block = arena.allocate(5000, 4096);
        CHECK(block.is_open());
        CHECK(block.bytes() == 5000);
        CHECK(block.offset() % 4096 == 0);
        CHECK(pointer(block.address()) == pointer(arena.address()) + block.offset());
        CHECK(block.location() == location);
        CHECK(block.access() == arena.access());
        CHECK(block.access().host == location.is_host());
        CHECK(block.driver() == driver);
        CHECK(block.blob() == arena.blob().sub_range(block.offset(), 5000));
        CHECK(block.blob().handle == arena.blob().handle);
        CHECK(first.offset() != block.offset());
        CHECK(arena.location() == location);
        CHECK(arena.driver() == driver);
        CHECK(arena.granularity() == 2 * kMiB);
    }
}

TEST_CASE("All of the mapping is given out, what the size was rounded up by too", "[arena][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    FabricBuffer buffer(driver, 5000);
    const HandleBlob of_buffer = buffer.blob();
    Arena arena(std::move(buffer));
    CHECK(arena.statistics().capacity_bytes == 2 * kMiB);
    CHECK(arena.blob().bytes == 2 * kMiB);
    CHECK(arena.blob().allocation_id == of_buffer.allocation_id);
    const Block block = arena.allocate(2 * kMiB, 2 * kMiB);
    CHECK(block.address() == arena.address());
    CHECK(arena.statistics().free_bytes == 0);
    CHECK(arena.statistics().largest_free_bytes == 0);
    CHECK(arena.statistics().fragmentation() == 0);
}

TEST_CASE("A block's blob is imported as that block", "[arena][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Arena arena(driver, 1, {.location = Location::host_numa(0)});
    const Block other = arena.allocate(1000);
    const Block block = arena.allocate(300);
    std::memset(other.address(), 1, 1000);
    std::memset(block.address(), 2, 300);
    const ImportedFabricBuffer peer(driver, HandleBlob::from_bytes(block.blob().to_bytes()));
    CHECK(peer.bytes() == 300);
    const auto* const bytes = static_cast<const unsigned char*>(peer.address());
    CHECK(std::count(bytes, bytes + 300, 2) == 300);
}

TEST_CASE("A piece that fits is found, also among smaller ones of its size class", "[arena]") {
    Arena arena(make_emulated_driver(), 2 * kMiB);
    // Two pieces of one class (2048 and 2052 units; its pieces differ by up to 63) and nothing else.
    Block small = arena.allocate(2048 * kUnit);
    const Block wall = arena.allocate(kUnit);
    Block large = arena.allocate(2052 * kUnit);
    const Block rest = arena.allocate(arena.statistics().free_bytes);
    large.free();
    small.free();
    CHECK(arena.statistics().largest_free_bytes == 2052 * kUnit);
    const std::optional<Block> found = arena.try_allocate(2052 * kUnit);
    REQUIRE(found.has_value());
    CHECK(found->offset() == wall.offset() + kUnit);
}

TEST_CASE("An alignment leaves the room before the block to others", "[arena]") {
    Arena arena(make_emulated_driver(), 4 * kMiB);
    const Block first = arena.allocate(1);
    const Block aligned = arena.allocate(kMiB, 2 * kMiB);
    CHECK(aligned.offset() == 2 * kMiB);
    const Block between = arena.allocate(2 * kMiB - kUnit);
    CHECK(between.offset() == kUnit);
    for (const std::uint64_t small : {1U, 2U, 32U}) CHECK(arena.allocate(10, small).offset() % kUnit == 0);
}

TEST_CASE("A wrong size or alignment is a typed error and takes nothing", "[arena]") {
    Arena arena(make_emulated_driver(), 4 * kMiB);
    const ArenaStatistics before = arena.statistics();
    const auto refused = [&](std::uint64_t bytes, std::uint64_t alignment) {
        const auto error = error_of([&] { static_cast<void>(arena.allocate(bytes, alignment)); });
        REQUIRE(error.has_value());
        CHECK(error->kind() == ErrorKind::bad_argument);
        CHECK(kind_of([&] { static_cast<void>(arena.try_allocate(bytes, alignment)); }) == ErrorKind::bad_argument);
        CHECK(arena.statistics() == before);
        return std::string(error->what());
    };
    constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();
    CHECK(refused(0, 64) == "a block of 0 bytes");
    CHECK(refused(4 * kMiB + 1, 64) == "a block of 4194305 bytes: the whole arena has 4194304");
    for (const std::uint64_t bytes : {kHuge, kHuge - 62, kHuge - 63, std::uint64_t{1} << 63}) refused(bytes, 64);
    CHECK(refused(1, 3) == "an alignment of 3 bytes is no power of two up to the granularity, 2097152 bytes");
    for (const std::uint64_t alignment : {std::uint64_t{0}, std::uint64_t{96}, 4 * kMiB, std::uint64_t{1} << 63, kHuge})
        refused(1, alignment);
}

TEST_CASE("No room is out_of_memory that says what there is", "[arena]") {
    Arena arena(make_emulated_driver(), 2 * kMiB);
    std::vector<Block> blocks;
    blocks.reserve(4);
    for (int i = 0; i < 4; ++i) blocks.push_back(arena.allocate(kMiB / 2));
    blocks[0].free();
    blocks[2].free();
    const auto error = error_of([&] { static_cast<void>(arena.allocate(kMiB / 2 + 1, 128)); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::out_of_memory);
    CHECK(error->details().bytes == kMiB / 2 + 1);
    CHECK(std::string(error->what()) ==
          "the arena has no room for 524289 bytes aligned to 128: 1048576 of its 2097152 bytes are free, 524288 of "
          "them in the largest piece, beside 2 live blocks. Cure: free blocks, or make a larger arena");
    CHECK(!arena.try_allocate(kMiB / 2 + 1).has_value());
    CHECK(arena.statistics().live_blocks == 2);
    blocks[1].free();
    CHECK(arena.try_allocate(kMiB + kMiB / 2).has_value());
}

TEST_CASE("More blocks than max_blocks are out_of_memory that names it", "[arena]") {
    Arena arena(make_emulated_driver(), 2 * kMiB, {}, {.max_blocks = 3});
    std::vector<Block> blocks;
    // Each between two free pieces: as much bookkeeping as there can be.
    for (const std::uint64_t apart : {4096U, 8192U, 16384U}) blocks.push_back(arena.allocate(64, apart));
    const auto error = error_of([&] { static_cast<void>(arena.allocate(64)); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::out_of_memory);
    CHECK(std::string(error->what()) ==
          "the arena has 3 live blocks, as many as its max_blocks allows. Cure: free blocks, or make the arena with a "
          "larger ArenaOptions::max_blocks");
    CHECK(!arena.try_allocate(64).has_value());
    blocks.pop_back();
    CHECK(arena.try_allocate(64).has_value());
}

TEST_CASE("Statistics tell waste and fragmentation", "[arena]") {
    Arena arena(make_emulated_driver(), 2 * kMiB);
    const ArenaStatistics fresh = arena.statistics();
    CHECK(fresh == ArenaStatistics{.capacity_bytes = 2 * kMiB, .free_bytes = 2 * kMiB, .largest_free_bytes = 2 * kMiB});
    CHECK(fresh.waste() == 0);
    CHECK(fresh.fragmentation() == 0);
    Block first = arena.allocate(kMiB / 2);
    const Block second = arena.allocate(16);
    const Block third = arena.allocate(80);
    first.free();
    const ArenaStatistics now = arena.statistics();
    CHECK(now.live_blocks == 2);
    CHECK(now.asked_bytes == 96);
    CHECK(now.reserved_bytes == 192);
    CHECK(now.free_bytes == 2 * kMiB - 192);
    CHECK(now.largest_free_bytes == 2 * kMiB - 192 - kMiB / 2);
    CHECK(now.waste() == 0.5);
    constexpr std::uint64_t kHole = kMiB / 2;
    CHECK(now.fragmentation() == static_cast<double>(kHole) / static_cast<double>(now.free_bytes));
}

TEST_CASE("A block that is freed or moved from is empty, and freeing it again is a typed error", "[arena]") {
    Arena arena(make_emulated_driver(), 1);
    const auto check_empty = [&](Block& block) {
        CHECK_FALSE(block.is_open());
        CHECK(block.address() == nullptr);
        CHECK(block.bytes() == 0);
        CHECK(block.offset() == 0);
        CHECK(block.driver() == nullptr);
        CHECK(kind_of([&] { static_cast<void>(block.blob()); }) == ErrorKind::closed);
        CHECK(kind_of([&] { static_cast<void>(block.location()); }) == ErrorKind::closed);
        CHECK(kind_of([&] { static_cast<void>(block.access()); }) == ErrorKind::closed);
        const auto error = error_of([&] { block.free(); });
        REQUIRE(error.has_value());
        CHECK(error->kind() == ErrorKind::closed);
        CHECK(std::string(error->what()) == "the block was freed or moved from");
    };
    Block none;
    check_empty(none);
    const Block wall = arena.allocate(1);
    Block block = arena.allocate(100);
    const std::uint64_t offset = block.offset();
    Block moved(std::move(block));
    check_empty(block);  // NOLINT(bugprone-use-after-move): that it is empty is the promise
    CHECK(moved.offset() == offset);
    moved.free();
    check_empty(moved);
    Block other = arena.allocate(200);
    CHECK(other.offset() == offset);
    check_empty(moved);  // its range is another block's now
    CHECK(arena.statistics().live_blocks == 2);
    Block over = arena.allocate(300);
    over = std::move(other);
    check_empty(other);  // NOLINT(bugprone-use-after-move)
    CHECK(over.offset() == offset);
    CHECK(arena.statistics().asked_bytes == 201);
    Block& itself = over;
    over = std::move(itself);
    CHECK(over.offset() == offset);
}

TEST_CASE("Closing an arena with live blocks is a typed error that counts them, and changes nothing", "[arena][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    Arena arena(driver, 1);
    Block first = arena.allocate(100);
    Block second = arena.allocate(200);
    const auto error = error_of([&] { arena.close(); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::conflict);
    CHECK(contains(error->what(), "2 blocks of the arena are live, 300 bytes"));
    CHECK(arena.is_open());
    CHECK(arena.allocate(1).is_open());
    first.free();
    CHECK(kind_of([&] { arena.close(); }) == ErrorKind::conflict);
    second = Block();
    CHECK(arena.close() == CloseResult::released);
    CHECK(arena.close() == CloseResult::released);
}

TEST_CASE("An arena that is closed or moved from says so", "[arena]") {
    Arena arena(make_emulated_driver(), 1);
    Arena moved(std::move(arena));
    CHECK(moved.allocate(1).is_open());
    const auto check_closed = [](Arena& closed) {
        CHECK_FALSE(closed.is_open());
        CHECK(closed.address() == nullptr);
        CHECK(closed.driver() == nullptr);
        CHECK(closed.close() == CloseResult::released);
        CHECK(kind_of([&] { static_cast<void>(closed.allocate(0)); }) == ErrorKind::closed);
        CHECK(kind_of([&] { static_cast<void>(closed.try_allocate(1)); }) == ErrorKind::closed);
        CHECK(kind_of([&] { static_cast<void>(closed.statistics()); }) == ErrorKind::closed);
        CHECK(kind_of([&] { static_cast<void>(closed.blob()); }) == ErrorKind::closed);
        CHECK(kind_of([&] { static_cast<void>(closed.export_again()); }) == ErrorKind::closed);
        CHECK(kind_of([&] { static_cast<void>(closed.location()); }) == ErrorKind::closed);
        CHECK(kind_of([&] { static_cast<void>(closed.access()); }) == ErrorKind::closed);
        CHECK(kind_of([&] { static_cast<void>(closed.granularity()); }) == ErrorKind::closed);
    };
    check_closed(arena);  // NOLINT(bugprone-use-after-move): that it is empty is the promise
    moved.close();
    check_closed(moved);
}

TEST_CASE("What an arena can't be made of is a typed error and leaves nothing", "[arena]") {
    const auto emulated = make_emulated_driver();
    const auto driver = std::make_shared<FaultDriver>(emulated);
    FabricBuffer closed(driver, 1);
    closed.close();
    CHECK(kind_of([&] { const Arena arena(std::move(closed)); }) == ErrorKind::closed);
    for (const std::uint32_t wrong : {0U, (1U << 24) + 1, ~0U}) {
        driver->forget();
        const auto error = error_of([&] { const Arena arena(driver, 1, {}, {.max_blocks = wrong}); });
        REQUIRE(error.has_value());
        CHECK(driver->calls().empty());
        CHECK(error->kind() == ErrorKind::bad_argument);
        CHECK(contains(error->what(), "max_blocks is " + std::to_string(wrong)));
        CHECK(kind_of([&] { const Arena arena(FabricBuffer(driver, 1), {.max_blocks = wrong}); }) ==
              ErrorKind::bad_argument);
    }
    CHECK(kind_of([&] { const Arena arena(nullptr, 1); }) == ErrorKind::bad_argument);
    CHECK(kind_of([&] { const Arena arena(driver, 0); }) == ErrorKind::bad_argument);
    CHECK(emulated_counts(*emulated) == EmulatedCounts());
}

TEST_CASE("Bookkeeping that the system has no room for is out_of_memory, and leaves nothing", "[arena][fault]") {
    if (kSlowBuild) FABRICMEM_SKIP("a sanitizer, and an emulator of the CPU, map what no limit allows for");
    // A limit of the address space, for the scope.
    class Limited {
    public:
        explicit Limited(rlim_t more_bytes) {
            REQUIRE(::getrlimit(RLIMIT_AS, &before_) == 0);
            unsigned long pages = 0;
            std::ifstream("/proc/self/statm") >> pages;
            const rlimit limit{pages * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE)) + more_bytes, before_.rlim_max};
            REQUIRE(::setrlimit(RLIMIT_AS, &limit) == 0);
        }
        Limited(const Limited&) = delete;
        Limited& operator=(const Limited&) = delete;
        ~Limited() { ::setrlimit(RLIMIT_AS, &before_); }

    private:
        rlimit before_{};
    };
    const auto driver = make_emulated_driver();
    FabricBuffer buffer(driver, 64 * kMiB);
    std::optional<Error> error;
    {
        const Limited limited(kMiB * 1024);
        error = error_of([&] { const Arena arena(std::move(buffer), {.max_blocks = 1U << 24}); });
    }
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::out_of_memory);
    CHECK(contains(error->what(), "mmap of 16"));
    CHECK(contains(error->what(), "(the bookkeeping of an arena) failed"));
    CHECK(contains(error->what(), "max_blocks"));
    CHECK(emulated_counts(*driver) == EmulatedCounts());
}

TEST_CASE("A block keeps its arena's memory, and the last one takes it down", "[arena]") {
    const auto driver = make_emulated_driver();
    bool torn_down = false;
    std::optional<Arena> arena(std::in_place, driver, 1,
                               FabricBufferOptions{.location = Location::host_numa(0),
                                                   .before_tear_down = [&](const BufferInfo&) { torn_down = true; }});
    Block first = arena->allocate(64);
    Block second = arena->allocate(64);
    SECTION("after the arena's end") { arena.reset(); }
    SECTION("after another arena was moved over it") {
        *arena = Arena(driver, 1);
        arena.reset();
    }
    std::memset(second.address(), 7, 64);
    first.free();
    CHECK_FALSE(torn_down);
    CHECK(emulated_counts(*driver).allocations == 1);
    const ImportedFabricBuffer peer(driver, second.blob());
    CHECK(*static_cast<const unsigned char*>(peer.address()) == 7);
    std::thread([&] { second.free(); }).join();
    CHECK(torn_down);
    CHECK(kind_of([&] { second.free(); }) == ErrorKind::closed);
}

TEST_CASE("What can't be given back with the last block is logged", "[arena][fault]") {
    const auto driver = std::make_shared<FaultDriver>(make_emulated_driver());
    std::optional<Arena> arena(std::in_place, driver, 1);
    Block block = arena->allocate(64);
    arena.reset();
    driver->add({.call = "mem_unmap", .result = CUDA_ERROR_UNKNOWN});
    const CapturedLog log;
    block.free();
    CHECK(contains(log.text(), "cuMemUnmap"));
}

TEST_CASE("An arena exported while the daemon was down is good elsewhere once exported again", "[arena]") {
    const Fabric fabric = ready_made("gb200-nvl72");
    const auto here = driver_on(fabric, "node0");
    const auto there = driver_on(fabric, "node1");
    fabric->set_imex_daemon("node0", ImexDaemon::down);
    Arena arena(here, 5000, {.location = Location::device(0)});
    const Block block = arena.allocate(100);
    const Block other = arena.allocate(100);
    fabric->set_imex_daemon("node0", ImexDaemon::ready);
    CHECK(!import_if_alive(there, other.blob()).has_value());
    const HandleBlob again = arena.export_again();
    CHECK(again.handle != arena.blob().handle);
    CHECK(again.allocation_id == arena.blob().allocation_id);
    CHECK(again.bytes == 2 * kMiB);
    const auto peer = import_if_alive(there, again.sub_range(other.offset(), other.bytes()));
    REQUIRE(peer.has_value());
    CHECK(peer->bytes() == 100);
}

namespace {

// Exit codes of the forked child.
constexpr int kWell = 0;
constexpr int kLookedWrong = 11;
constexpr int kNotRefused = 12;

template <typename Action>
bool refused_after_fork(Action&& action) {
    const auto error = error_of(action);
    return error.has_value() && error->kind() == ErrorKind::unsupported && contains(error->what(), "fork");
}

int child_of_arena(std::optional<Arena>& arena, Arena& closed, FabricBuffer& buffer, Block& first, Block& second,
                   const bool& torn_down) {
    if (!refused_after_fork([&] { static_cast<void>(arena->allocate(64)); })) return kNotRefused;
    if (!refused_after_fork([&] { static_cast<void>(arena->try_allocate(64)); })) return kNotRefused;
    if (!refused_after_fork([&] { static_cast<void>(arena->statistics()); })) return kNotRefused;
    if (!refused_after_fork([&] { static_cast<void>(arena->export_again()); })) return kNotRefused;
    if (!refused_after_fork([&] { const Arena foreign(std::move(buffer)); })) return kNotRefused;
    if (!refused_after_fork([&] { closed.close(); }) || closed.is_open()) return kNotRefused;
    if (first.bytes() != 64 || first.address() == nullptr || !arena->is_open()) return kLookedWrong;
    if (!refused_after_fork([&] { first.free(); }) || first.is_open()) return kNotRefused;
    arena.reset();
    second = Block();
    return torn_down ? kLookedWrong : kWell;
}

}  // namespace

TEST_CASE("After fork a child's arena and blocks do nothing, also while the parent holds the lock", "[arena][fork]") {
    const auto driver = make_emulated_driver();
    bool torn_down = false;
    std::optional<Arena> arena(std::in_place, driver, 1,
                               FabricBufferOptions{.before_tear_down = [&](const BufferInfo&) { torn_down = true; }});
    Arena closed(driver, 1);
    FabricBuffer buffer(driver, 1);
    Block first = arena->allocate(64);
    Block second = arena->allocate(64);
    std::jthread busy([&](const std::stop_token& stop) {
        while (!stop.stop_requested()) static_cast<void>(arena->try_allocate(64));
    });
    for (int i = 0; i < 20; ++i) {
        const pid_t child = ::fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            ::alarm(60);  // a child that hangs ends
            ::_exit(child_of_arena(arena, closed, buffer, first, second, torn_down));
        }
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        CHECK(status == kWell);
    }
    busy.request_stop();
    busy.join();
    // The parent's are as they were.
    CHECK(arena->statistics().live_blocks == 2);
    first.free();
    second.free();
    CHECK(arena->close() == CloseResult::released);
    CHECK(torn_down);
    CHECK(closed.close() == CloseResult::released);
    CHECK(buffer.close() == CloseResult::released);
    CHECK(emulated_counts(*driver) == EmulatedCounts());
}
