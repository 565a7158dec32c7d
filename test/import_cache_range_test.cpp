// SPDX-License-Identifier: Apache-2.0
// Peers' addresses: which range they are in, and where that is here.
#include <fabricmem/import_cache.hpp>

#include <atomic>
#include <limits>
#include <optional>
#include <thread>
#include <vector>

#include <fabricmem/owned_ranges.hpp>

#include "support/build.hpp"
#include "support/cache_kit.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr std::uint64_t kBase = 0x7000'0000'0000;

}  // namespace

TEST_CASE("An address of a peer's is found in its range, and nowhere else", "[cache][ranges]") {
    CacheKit kit;
    const Id128 peer = id_of(1), other_peer = id_of(2);
    const FabricBuffer own = kit.make(1, 0, 8 * kMiB), other = kit.make(2, 0, 2 * kMiB);
    FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, kBase, 1), bad_argument, "in no range");
    kit.cache.add_range(peer, kBase + kMiB, own.blob().sub_range(kMiB, 2 * kMiB));
    kit.cache.add_range(other_peer, kBase + kMiB, other.blob());
    CHECK(kit.imports() == 2);
    const auto base = [&](const FabricBuffer& of) { return pointer(kit.cache.acquire(of.blob()).address()); };
    const auto at = [&](const Id128& of, std::uint64_t address, std::uint64_t bytes) {
        return pointer(kit.cache.translate(of, address, bytes).address());
    };
    CHECK(at(peer, kBase + kMiB, 2 * kMiB) == base(own) + kMiB);
    CHECK(at(peer, kBase + 3 * kMiB - 1, 1) == base(own) + 3 * kMiB - 1);
    CHECK(at(other_peer, kBase + kMiB + 5, 10) == base(other) + 5);
    CHECK(kit.cache.translate(peer, kBase + kMiB + 7, 9).bytes() == 9);
    FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, kBase + kMiB - 1, 1), bad_argument, "in no range");
    FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, kBase + 3 * kMiB, 1), bad_argument, "in no range");
    FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, kBase + 3 * kMiB - 1, 2), bad_argument, "end after range");
    FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, kBase + kMiB, std::numeric_limits<std::uint64_t>::max()),
                          bad_argument, "end after range");
    FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, kBase + kMiB, 0), bad_argument, "0 bytes");
    FABRICMEM_CHECK_ERROR(kit.cache.translate(id_of(3), kBase + kMiB, 1), bad_argument, to_string(id_of(3)));
    CHECK(kit.now().hits == 3);  // by acquire() alone
}

TEST_CASE("Bytes of two ranges are one piece in one allocation, and an error in two", "[cache][ranges]") {
    CacheKit kit;
    const Id128 peer = id_of(1);
    const FabricBuffer own = kit.make(1, 0, 4 * kMiB), next = kit.make(1);
    kit.cache.add_range(peer, kBase + 2 * kMiB, own.blob().sub_range(2 * kMiB, 2 * kMiB));
    kit.cache.add_range(peer, kBase, own.blob().sub_range(0, kMiB));
    FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, kBase, 2 * kMiB + 1), bad_argument, "end after range");
    kit.cache.add_range(peer, kBase + kMiB, own.blob().sub_range(kMiB, kMiB));
    kit.cache.add_range(peer, kBase + 4 * kMiB, next.blob());
    CHECK(kit.now().ranges == 4);
    CHECK(pointer(kit.cache.translate(peer, kBase, 4 * kMiB).address()) ==
          pointer(kit.cache.acquire(own.blob()).address()));
    CHECK(kit.cache.translate(peer, kBase + kMiB - 1, 2).is_open());
    FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, kBase + 4 * kMiB - 1, 2), bad_argument,
                          to_string(*own.blob().allocation_id));
    FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, kBase + 4 * kMiB - 1, 2), bad_argument,
                          to_string(*next.blob().allocation_id));
    CHECK(kit.cache.remove_range(peer, kBase + kMiB));
    CHECK_FALSE(kit.cache.remove_range(peer, kBase + kMiB));
    FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, kBase + kMiB - 1, 2), bad_argument, "end after range");
    // Side by side in the peer's addresses, but not in the allocation.
    kit.cache.add_range(peer, kBase + kMiB, own.blob().sub_range(2 * kMiB, kMiB));
    FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, kBase + kMiB - 1, 2), bad_argument, "two allocations");
}

TEST_CASE("Two allocations that claim one place in the peer's addresses are no piece", "[cache][ranges]") {
    CacheKit kit;
    const Id128 peer = id_of(1);
    const FabricBuffer own = kit.make(1), other = kit.make(1);
    kit.cache.add_range(peer, kBase, own.blob().sub_range(0, kMiB));
    kit.cache.add_range(peer, kBase + kMiB, other.blob().sub_range(kMiB, kMiB));
    FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, kBase, kMiB + 1), bad_argument, "two allocations");
    CHECK(pointer(kit.cache.translate(peer, kBase + kMiB, kMiB).address()) ==
          pointer(kit.cache.acquire(other.blob()).address()) + kMiB);
}

TEST_CASE("A range keeps its import, until it is removed or the import is retired", "[cache][ranges]") {
    CacheKit kit({.max_entries = 2, .idle_timeout = milliseconds(0)});
    const Id128 peer = id_of(1);
    const FabricBuffer own = kit.make(1, 1), other = kit.make(2), third = kit.make(3), newer = kit.make(1, 2);
    const EmulatedCounts before = emulated_counts(*kit.emulated);
    kit.cache.add_range(peer, kBase, own.blob());
    kit.cache.add_range(peer, kBase, own.blob());  // told again
    CHECK(kit.now().ranges == 1);
    CHECK(kit.cache.collect() == 0);
    static_cast<void>(kit.cache.acquire(other.blob()));
    static_cast<void>(kit.cache.acquire(third.blob()));
    ImportView view = kit.cache.translate(peer, kBase, 1);
    CHECK(kit.imports() == 3);
    SECTION("by evict") { CHECK(kit.cache.evict(peer) == 1); }
    SECTION("by invalidate") { CHECK(kit.cache.invalidate(*own.blob().allocation_id) == 1); }
    SECTION("by a newer generation") { static_cast<void>(kit.cache.acquire(newer.blob())); }
    SECTION("by another allocation in its place") {
        kit.cache.add_range(peer, kBase + kMiB, newer.blob());
        CHECK(kit.now().ranges == 1);
    }
    SECTION("by name") { CHECK(kit.cache.remove_range(peer, kBase)); }
    FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, kBase, 1), bad_argument, "in no range");
    CHECK(view.buffer().is_open());
    view.let_go();
    kit.cache.evict(id_of(2));
    kit.cache.evict(id_of(3));
    kit.cache.evict(peer);
    CHECK(kit.settled() == before);
}

TEST_CASE("Ranges of a peer that has started anew keep no room from its new memory", "[cache][ranges]") {
    CacheKit kit({.max_entries = 1});
    const Id128 peer = id_of(1);
    const FabricBuffer own = kit.make(1, 1), newer = kit.make(1, 2);
    kit.cache.add_range(peer, kBase, own.blob());
    CHECK(kit.cache.acquire(newer.blob()).is_open());
    CHECK(kit.now().ranges == 0);
    CHECK(kit.now().misses == 2);
    CHECK(kit.now().outdated == 1);
    CHECK(kit.now().entries_peak == 1);
}

TEST_CASE("A range goes with its peer's generation, also where the import was made for nobody", "[cache][ranges]") {
    CacheKit kit;
    const Id128 peer = id_of(1);
    const FabricBuffer own = kit.make(0, 1), newer = kit.make(0, 2), other = kit.make(0, 1);
    const ImportView held = kit.cache.acquire(own.blob());
    kit.cache.add_range(peer, kBase, own.blob());
    kit.cache.add_range(id_of(2), kBase, other.blob());
    const ImportView early = kit.cache.acquire(newer.blob());
    SECTION("that is imported then") { kit.cache.invalidate(*newer.blob().allocation_id); }
    SECTION("that was there") {}
    kit.cache.add_range(peer, kBase + 4 * kMiB, newer.blob());
    FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, kBase, 1), bad_argument, "in no range");
    CHECK(kit.cache.translate(peer, kBase + 4 * kMiB, 1).is_open());
    CHECK(kit.cache.translate(id_of(2), kBase, 1).is_open());
    FABRICMEM_CHECK_ERROR(kit.cache.add_range(peer, kBase, own.blob()), peer_gone, "generation 1");
    HandleBlob wrong = own.blob();
    wrong.generation = 3;
    wrong.bytes = 0;
    FABRICMEM_CHECK_ERROR(kit.cache.add_range(peer, kBase, wrong), bad_blob, "");
    CHECK(kit.cache.translate(peer, kBase + 4 * kMiB, 1).is_open());   // no word on generations
    CHECK(kit.cache.acquire(own.blob()).address() == held.address());  // nobody's is nobody's
}

TEST_CASE("An exporter that says what it frees has no address that finds freed memory", "[cache][ranges]") {
    CacheKit kit;
    const Id128 peer = id_of(1);
    const OwnedRanges ranges;
    const FabricBufferOptions options = ranges.watch(
        {.location = Location::host_numa(0), .before_tear_down = [&](const BufferInfo& buffer) {
             CHECK(kit.cache.invalidate(*buffer.blob.allocation_id) == 1);
             FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, pointer(buffer.address), 1), bad_argument, "in no range");
         }});
    const auto tell = [&](const FabricBuffer& buffer) {
        kit.cache.add_range(peer, pointer(buffer), ranges.at(buffer.address(), buffer.bytes()).blob);
    };
    std::uint64_t address = 0;
    std::uint64_t same = 0;
    for (unsigned char round = 1; round <= 10; ++round) {
        static_cast<void>(kit.settled());  // so that both addresses are free
        const FabricBuffer own(kit.emulated, 2 * kMiB, options);
        if (pointer(own) == address) ++same;
        address = pointer(own);
        FABRICMEM_CHECK_ERROR(kit.cache.translate(peer, address, 1), bad_argument, "in no range");
        static_cast<unsigned char*>(own.address())[7] = round;
        tell(own);
        CHECK(*static_cast<unsigned char*>(kit.cache.translate(peer, address + 7, 1).address()) == round);
    }
    CHECK(same > 0);  // else nothing was tried
}

TEST_CASE("Addresses at the end of the address space are as all others", "[cache][ranges]") {
    CacheKit kit;
    const FabricBuffer own = kit.make();
    constexpr std::uint64_t kEnd = std::numeric_limits<std::uint64_t>::max();
    kit.cache.add_range(id_of(1), kEnd - 2 * kMiB, own.blob());
    const std::uint64_t base = pointer(kit.cache.acquire(own.blob()).address());
    CHECK(pointer(kit.cache.translate(id_of(1), kEnd - 1, 1).address()) == base + 2 * kMiB - 1);
    FABRICMEM_CHECK_ERROR(kit.cache.translate(id_of(1), kEnd - 1, 2), bad_argument, "end after range");
    FABRICMEM_CHECK_ERROR(kit.cache.translate(id_of(1), kEnd - 1, kEnd), bad_argument, "end after range");
    FABRICMEM_CHECK_ERROR(kit.cache.translate(id_of(1), kEnd, 1), bad_argument, "in no range");
}

TEST_CASE("A range that no address space has is refused", "[cache][ranges]") {
    CacheKit kit;
    const FabricBuffer own = kit.make();
    FABRICMEM_CHECK_ERROR(kit.cache.add_range(id_of(1), kMiB - 1, own.blob().sub_range(kMiB, 1)), bad_argument,
                          "from the start of their allocation");
    FABRICMEM_CHECK_ERROR(kit.cache.add_range(id_of(1), std::numeric_limits<std::uint64_t>::max() - 5, own.blob()),
                          bad_argument, "");
    CHECK(kit.now().ranges == 0);
    CHECK(kit.driver->calls().empty());
}

TEST_CASE("Addresses are translated while ranges come and go, and always into the memory that is meant",
          "[cache][ranges][threads]") {
    constexpr std::uint64_t kPeers = 4;
    CacheKit kit;
    std::vector<FabricBuffer> own;
    for (std::uint64_t peer = 0; peer < kPeers; ++peer) {
        own.push_back(kit.make(peer + 1));
        *static_cast<std::uint64_t*>(own.back().address()) = peer;
    }
    std::atomic<bool> over{false};
    std::atomic<int> wrong{0};
    std::atomic<std::uint64_t> found{0};
    {
        std::vector<std::jthread> readers;
        for (std::uint64_t i = 0; i < 3; ++i) {
            readers.emplace_back([&, i] {
                for (std::uint64_t turn = i; !over; ++turn) {
                    const std::uint64_t peer = turn % kPeers;
                    try {
                        const ImportView view = kit.cache.translate(id_of(peer + 1), kBase, 8);
                        if (*static_cast<std::uint64_t*>(view.address()) != peer) ++wrong;
                        ++found;
                    } catch (const Error& error) {
                        if (error.kind() != ErrorKind::bad_argument) ++wrong;
                    }
                }
            });
        }
        const int rounds = kSlowBuild ? 300 : 3000;
        for (int round = 0; round < rounds || found == 0; ++round) {
            const auto peer = static_cast<std::uint64_t>(round) % kPeers;
            kit.cache.add_range(id_of(peer + 1), kBase, own[peer].blob());
            if (round % 3 == 0) kit.cache.remove_range(id_of((peer + 1) % kPeers + 1), kBase);
            if (round % 7 == 0) kit.cache.evict(id_of((peer + 2) % kPeers + 1));
            if (round % 11 == 0) kit.cache.invalidate(*own[(peer + 3) % kPeers].blob().allocation_id);
        }
        over = true;
    }
    CHECK(wrong == 0);
    kit.cache.close();
    CHECK(emulated_counts(*kit.emulated).mappings == kPeers);
}
