// SPDX-License-Identifier: Apache-2.0
// One thread's import cache: what is found, what is imported anew, what ends when.
#include <fabricmem/import_cache.hpp>

#include <cstring>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "support/cache_kit.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

TEST_CASE("All ranges of an allocation come from one import, and are where they are", "[cache]") {
    CacheKit kit;
    const FabricBuffer own = kit.make(0, 0, 4 * kMiB);
    auto* const bytes = static_cast<unsigned char*>(own.address());
    bytes[0] = 17;
    bytes[3 * kMiB] = 18;
    const ImportView whole = kit.cache.acquire(own.blob());
    const ImportView part = kit.cache.acquire(own.blob().sub_range(3 * kMiB, 100));
    CHECK(kit.imports() == 1);
    CHECK(whole.bytes() == 4 * kMiB);
    CHECK(part.bytes() == 100);
    CHECK(*static_cast<unsigned char*>(whole.address()) == 17);
    CHECK(*static_cast<unsigned char*>(part.address()) == 18);
    CHECK(pointer(part.address()) == pointer(whole.address()) + 3 * kMiB);
    CHECK(&whole.buffer() == &part.buffer());
    CHECK(whole.buffer().mapped_bytes() == 4 * kMiB);
    CHECK(kit.now().hits == 1);
    CHECK(kit.now().misses == 1);
    CHECK(kit.now().imports == 1);
    CHECK(kit.now().bytes == 4 * kMiB);
}

TEST_CASE("72 peers of 8 regions each are 72 imports, of no call but the four that one takes", "[cache]") {
    CacheKit kit;
    static_cast<void>(kit.cache.acquire(kit.make().blob()));  // what is learnt once
    std::vector<FabricBuffer> own;
    std::vector<HandleBlob> blobs;
    for (std::uint64_t peer = 1; peer <= 72; ++peer) {
        own.push_back(kit.make(peer));
        for (std::uint64_t region = 0; region < 8; ++region)
            blobs.push_back(own.back().blob().sub_range(region * 1000, 1000));
    }
    kit.driver->forget();
    const std::vector<AcquireResult> views = kit.cache.acquire_all(blobs);
    for (const AcquireResult& result : views) REQUIRE(result.view.is_open());
    const std::vector<std::string> calls = kit.driver->calls();
    for (const char* const call :
         {"mem_import_from_shareable_handle", "mem_address_reserve", "mem_map", "mem_set_access"})
        CHECK(count(calls, call) == 72);
    CHECK(calls.size() == 4 * 72);
    kit.driver->forget();
    for (const HandleBlob& blob : blobs) static_cast<void>(kit.cache.acquire(blob));
    CHECK(kit.driver->calls().empty());
}

TEST_CASE("An allocation that was exported again is the same one", "[cache]") {
    CacheKit kit;
    const FabricBuffer own = kit.make();
    const ImportView first = kit.cache.acquire(own.blob());
    HandleBlob again = own.export_again();
    again.handle[3] ^= 1;  // as if the driver had given another handle
    CHECK(kit.cache.acquire(again).address() == first.address());
    CHECK(kit.imports() == 1);
}

TEST_CASE("Blobs that differ in who exported them, or in the allocation, are different imports", "[cache]") {
    CacheKit kit;
    const FabricBuffer own = kit.make();
    const ImportView first = kit.cache.acquire(own.blob());
    std::vector<HandleBlob> others(6, own.blob());
    others[0].host_id = id_of(1);
    others[1].boot_id = id_of(1);
    others[2].process_start = 1;
    others[3].pid_namespace = 1;
    others[4].allocation_id = id_of(1);
    others[5].process_start.reset();
    std::ptrdiff_t imports = 1;
    for (const HandleBlob& other : others) {
        CHECK(kit.cache.acquire(other).address() != first.address());
        CHECK(kit.imports() == ++imports);
    }
}

TEST_CASE("A freed allocation's address finds the new memory, never the old", "[cache]") {
    CacheKit kit;
    const Id128 peer = id_of(1);
    std::optional<FabricBuffer> own = kit.make(1);
    *static_cast<unsigned char*>(own->address()) = 1;
    const std::uint64_t address = pointer(*own);
    kit.cache.add_range(peer, address, own->blob());
    ImportView old = kit.cache.acquire(own->blob());
    own.reset();
    own = kit.make(1);  // where it is here says nothing: to importers it is at the same address
    *static_cast<unsigned char*>(own->address()) = 2;
    const ImportView renewed = kit.cache.acquire(own->blob());
    CHECK(*static_cast<unsigned char*>(renewed.address()) == 2);
    CHECK(*static_cast<unsigned char*>(old.address()) == 1);
    // By address: the exporter tells of the new one, and the old one is forgotten.
    kit.cache.add_range(peer, address, own->blob());
    CHECK(*static_cast<unsigned char*>(kit.cache.translate(peer, address, 1).address()) == 2);
    CHECK(kit.now().ranges == 1);
}

TEST_CASE("A blob that can't be imported, or not be cached, is refused as it says", "[cache]") {
    CacheKit kit;
    const FabricBuffer own = kit.make();
    const HandleBlob bare = HandleBlob::from_bare(own.blob().bare_hex(), 2 * kMiB, Location::host_numa(0));
    FABRICMEM_CHECK_ERROR(kit.cache.acquire(bare), bad_argument, "no allocation id");
    HandleBlob wrong = own.blob();
    wrong.bytes = 4 * kMiB;
    FABRICMEM_CHECK_ERROR(kit.cache.acquire(wrong), bad_blob, "");
    wrong = own.blob();
    wrong.kinds = HandleKind::posix_fd;
    FABRICMEM_CHECK_ERROR(kit.cache.acquire(wrong), unsupported, "posix_fd");
    FABRICMEM_CHECK_ERROR(kit.cache.acquire(own.blob(), {.idle_timeout = milliseconds(-1)}), bad_argument, "-1 ms");
    CHECK(kit.driver->calls().empty());
    const ImportView good = kit.cache.acquire(own.blob());
    FABRICMEM_CHECK_ERROR(kit.cache.acquire(own.blob(), {.idle_timeout = milliseconds(-1)}), bad_argument, "-1 ms");
    wrong = own.blob();
    wrong.mapped_bytes = 4 * kMiB;
    FABRICMEM_CHECK_ERROR(kit.cache.acquire(wrong), bad_blob, "was imported with 2097152");
    wrong = own.blob();
    wrong.offset = kMiB;
    FABRICMEM_CHECK_ERROR(kit.cache.acquire(wrong), bad_blob, "");
    CHECK(kit.imports() == 1);
}

TEST_CASE("Options that would leave a cache without bounds are refused", "[cache]") {
    const auto driver = make_emulated_driver();
    using Options = ImportCacheOptions;
    const auto with = [&](const std::function<void(Options&)>& change) {
        Options options;
        change(options);
        ImportCache(driver, options);
    };
    FABRICMEM_CHECK_ERROR(with([](Options& o) { o.max_entries = 0; }), bad_argument, "max_entries");
    FABRICMEM_CHECK_ERROR(with([](Options& o) { o.max_entries = (1U << 20) + 1; }), bad_argument, "max_entries");
    FABRICMEM_CHECK_ERROR(with([](Options& o) { o.max_bytes = 0; }), bad_argument, "max_bytes");
    FABRICMEM_CHECK_ERROR(with([](Options& o) { o.idle_timeout = milliseconds(-1); }), bad_argument, "idle_timeout");
    FABRICMEM_CHECK_ERROR(with([](Options& o) { o.import.timeout = milliseconds(0); }), bad_argument, "timeout");
    FABRICMEM_CHECK_ERROR(with([](Options& o) { o.import.tear_down_timeout = milliseconds(0); }), bad_argument,
                          "tear_down_timeout");
    FABRICMEM_CHECK_ERROR(ImportCache(nullptr), bad_argument, "driver");
}

TEST_CASE("A failed import is tried anew by the next acquire, and takes no room", "[cache]") {
    CacheKit kit({.max_entries = 1});
    const FabricBuffer own = kit.make();
    kit.driver->add({.call = "mem_map", .number = 1, .result = CUDA_ERROR_OUT_OF_MEMORY});
    CHECK(kind_of([&] { static_cast<void>(kit.cache.acquire(own.blob())); }) == ErrorKind::out_of_memory);
    CHECK(kit.now().failed_imports == 1);
    CHECK(kit.now().entries == 0);
    CHECK(kit.now().bytes == 0);
    CHECK(kit.cache.acquire(own.blob()).is_open());
    CHECK(kit.now().imports == 1);
    CHECK(kit.now().misses == 2);
}

TEST_CASE("Copies and moves of a view share the import, and the last one to go frees a retired one", "[cache]") {
    CacheKit kit;
    const FabricBuffer own = kit.make();
    const EmulatedCounts before = emulated_counts(*kit.emulated);
    ImportView first = kit.cache.acquire(own.blob());
    ImportView copy = first;
    ImportView moved = std::move(first);
    CHECK_FALSE(first.is_open());
    CHECK(first.address() == nullptr);
    CHECK(first.bytes() == 0);
    FABRICMEM_CHECK_ERROR(first.buffer(), closed, "view");
    CHECK(kit.cache.invalidate(*own.blob().allocation_id) == 1);
    CHECK(kit.now().retired == 1);
    CHECK(kit.now().entries == 1);
    copy = moved;
    ImportView& self = copy;
    copy = self;
    moved.let_go();
    moved.let_go();
    CHECK(kit.settled() != before);
    CHECK(copy.buffer().is_open());
    const ImportView of_retired = copy;
    copy = ImportView();
    CHECK(kit.settled() != before);
    CHECK(of_retired.buffer().is_open());
    const_cast<ImportView&>(of_retired).let_go();
    CHECK(kit.settled() == before);
    CHECK(kit.now().entries == 0);
    CHECK(kit.now().retired == 0);
    CHECK(kit.now().invalidated == 1);
}

TEST_CASE("The least recently used import that nobody has ends for room", "[cache]") {
    for (const bool by_entries : {true, false}) {
        ImportCacheOptions options;
        options.max_entries = by_entries ? 3 : 100;
        options.max_bytes = by_entries ? options.max_bytes : 6 * kMiB;
        CacheKit kit(options);
        std::vector<FabricBuffer> own;
        for (std::uint64_t i = 0; i < 6; ++i) own.push_back(kit.make());
        const auto was_there = [&](std::size_t i) {
            const std::ptrdiff_t imports = kit.imports();
            static_cast<void>(kit.cache.acquire(own[i].blob()));
            return kit.imports() == imports;
        };
        ImportView held = kit.cache.acquire(own[0].blob());
        CHECK_FALSE(was_there(1));
        CHECK_FALSE(was_there(2));
        kit.cache.collect();  // what is used between two collects or misses is of one age
        CHECK(was_there(1));
        CHECK_FALSE(was_there(3));  // ends 2: 0 is older still, but held
        kit.cache.collect();
        CHECK(was_there(1));
        CHECK(was_there(0));
        CHECK_FALSE(was_there(2));  // ends 3
        CHECK(was_there(1));
        CHECK(kit.now().evicted_for_room == 2);
        CHECK(kit.now().entries_peak == 3);
        const ImportView second = kit.cache.acquire(own[1].blob());
        const ImportView third = kit.cache.acquire(own[2].blob());
        FABRICMEM_CHECK_ERROR(kit.cache.acquire(own[4].blob()), out_of_memory, "no room: 3 of");
        held.let_go();
        CHECK(kit.cache.acquire(own[4].blob()).is_open());
        CHECK(kit.now().entries == 3);
        CHECK(kit.now().bytes == 6 * kMiB);
        const FabricBuffer large = kit.make(0, 0, 8 * kMiB);
        if (!by_entries) {
            FABRICMEM_CHECK_ERROR(kit.cache.acquire(large.blob()), out_of_memory, "");
            CHECK(kit.now().entries == 3);  // nothing was given up for it
        }
    }
}

TEST_CASE("A view's end counts as a use", "[cache]") {
    CacheKit kit({.max_entries = 2});
    const FabricBuffer first = kit.make(), second = kit.make(), third = kit.make();
    ImportView held = kit.cache.acquire(first.blob());
    static_cast<void>(kit.cache.acquire(second.blob()));
    kit.cache.collect();
    held.let_go();
    static_cast<void>(kit.cache.acquire(third.blob()));
    const std::ptrdiff_t imports = kit.imports();
    static_cast<void>(kit.cache.acquire(first.blob()));
    CHECK(kit.imports() == imports);
}

TEST_CASE("Imports that nobody has end after their idle time, not before, and those of a dead exporter too",
          "[cache]") {
    ImportCacheOptions options;
    options.idle_timeout = milliseconds(60'000);
    CacheKit kit(options);
    const EmulatedCounts before = emulated_counts(*kit.emulated);
    {
        std::optional<FabricBuffer> normal = kit.make(), longer = kit.make(), ever = kit.make(), held = kit.make();
        static_cast<void>(kit.cache.acquire(normal->blob()));
        static_cast<void>(kit.cache.acquire(longer->blob(), {.idle_timeout = milliseconds(600'000)}));
        static_cast<void>(kit.cache.acquire(ever->blob(), {.idle_timeout = milliseconds::max()}));
        ImportView view = kit.cache.acquire(held->blob());
        const HandleBlob blob = normal->blob();
        normal.reset();
        longer.reset();
        ever.reset();
        CHECK(kit.collect_after(milliseconds(30'000)) == 0);
        CHECK(kit.collect_after(milliseconds(59'000)) == 0);
        CHECK(kit.cache.collect(std::chrono::steady_clock::time_point::min()) == 0);
        CHECK(kit.collect_after(milliseconds(200'000)) == 1);
        CHECK(kind_of([&] { static_cast<void>(kit.cache.acquire(blob)); }) == ErrorKind::peer_gone);
        CHECK(kit.collect_after(milliseconds(599'000)) == 0);
        CHECK(kit.collect_after(milliseconds(900'000)) == 1);
        CHECK(kit.collect_after(milliseconds(10'000'000'000)) == 0);
        view.let_go();
        CHECK(kit.collect_after(milliseconds(10'000'000'100)) == 0);
        CHECK(kit.collect_after(milliseconds(10'000'060'050)) == 0);
        CHECK(kit.collect_after(milliseconds(10'000'060'100)) == 1);
        CHECK(kit.now().evicted_idle == 3);
        CHECK(kit.now().entries == 1);
        CHECK(kit.cache.acquire(held->blob(), {.idle_timeout = milliseconds(0)}).is_open());
        CHECK(kit.cache.collect() == 1);
        ever = kit.make();
    }
    kit.cache.close();
    CHECK(emulated_counts(*kit.emulated) == before);
}

TEST_CASE("A miss ends what is idle", "[cache]") {
    CacheKit kit({.idle_timeout = milliseconds(0)});
    const FabricBuffer first = kit.make(), second = kit.make();
    static_cast<void>(kit.cache.acquire(first.blob()));
    static_cast<void>(kit.cache.acquire(second.blob()));
    CHECK(kit.now().evicted_idle == 1);
    CHECK(kit.now().entries == 1);
}

TEST_CASE("A peer's imports are retired by its name, and by a newer generation of it", "[cache]") {
    CacheKit kit;
    const Id128 peer = id_of(1);
    const FabricBuffer old = kit.make(1, 4), newer = kit.make(1, 5), other = kit.make(2, 1), unnamed = kit.make();
    for (const FabricBuffer* own : {&old, &other, &unnamed}) static_cast<void>(kit.cache.acquire(own->blob()));
    const ImportView held = kit.cache.acquire(old.blob());
    const ImportView renewed = kit.cache.acquire(newer.blob());
    CHECK(kit.now().outdated == 1);
    CHECK(kit.now().retired == 1);
    CHECK(held.buffer().is_open());
    FABRICMEM_CHECK_ERROR(kit.cache.acquire(old.blob()), peer_gone, "generation 4");
    CHECK(kit.cache.acquire(newer.blob()).address() == renewed.address());
    CHECK(kit.imports() == 4);
    CHECK(kit.cache.evict(peer) == 1);
    CHECK(kit.cache.evict(peer) == 0);
    CHECK(kit.now().evicted_by_peer == 1);
    CHECK(kit.cache.evict(Id128()) == 1);  // nobody's
    CHECK(kit.now().entries == 3);         // two of them retired
    CHECK(kit.cache.acquire(newer.blob()).address() != renewed.address());
    // Of a peer that the caller names.
    static_cast<void>(kit.cache.acquire(unnamed.blob(), {.peer = id_of(7)}));
    CHECK(kit.cache.evict(id_of(7)) == 1);
}

TEST_CASE("acquire_all answers for each blob, and keeps what has not changed", "[cache]") {
    CacheKit kit;
    std::vector<FabricBuffer> own;
    std::vector<HandleBlob> blobs;
    for (int i = 0; i < 4; ++i) {
        own.push_back(kit.make(0, 0, 4 * kMiB));
        for (std::uint64_t part = 0; part < 4; ++part) blobs.push_back(own.back().blob().sub_range(part * kMiB, 1000));
    }
    own.erase(own.begin() + 1);
    blobs[9].bytes = 0;
    const auto check = [&](const std::vector<AcquireResult>& results) {
        REQUIRE(results.size() == blobs.size());
        for (std::size_t i = 0; i < blobs.size(); ++i) {
            CAPTURE(i);
            const bool good = i / 4 != 1 && i != 9;
            CHECK(results[i].view.is_open() == good);
            CHECK(results[i].error.has_value() == !good);
            if (good) CHECK(results[i].view.bytes() == 1000);
        }
        CHECK(results[5].error->kind() == ErrorKind::peer_gone);
        CHECK(results[9].error->kind() == ErrorKind::bad_blob);
    };
    const std::vector<AcquireResult> first = kit.cache.acquire_all(blobs);
    check(first);
    CHECK(kit.now().imports == 3);
    const std::vector<AcquireResult> second = kit.cache.acquire_all(blobs);
    check(second);
    CHECK(kit.now().imports == 3);
    CHECK(second[0].view.address() == first[0].view.address());
    CHECK(kit.cache.acquire_all({}).empty());
}

TEST_CASE("A cache with live views does not close, counts them, and its end leaves them whole", "[cache]") {
    const auto emulated = make_emulated_driver();
    const EmulatedCounts empty = emulated_counts(*emulated);
    {
        std::optional<CacheKit> kit(std::in_place);
        const FabricBuffer own = kit->make();
        const EmulatedCounts before = emulated_counts(*kit->emulated);
        ImportView view = kit->cache.acquire(own.blob());
        const ImportView copy = view;
        FABRICMEM_CHECK_ERROR(kit->cache.close(), conflict, "2 views");
        CHECK(kit->cache.is_open());
        CHECK(kit->cache.acquire(own.blob()).address() == view.address());
        *static_cast<unsigned char*>(own.address()) = 5;
        const std::shared_ptr<Driver> exporter = kit->emulated;
        {
            const ImportCache gone = std::move(kit->cache);
            CHECK_FALSE(kit->cache.is_open());
            FABRICMEM_CHECK_ERROR(kit->cache.acquire(own.blob()), closed, "import cache");
            kit->cache.close();
        }
        CHECK(*static_cast<unsigned char*>(view.address()) == 5);
        CHECK(view.buffer().bytes() == 2 * kMiB);
        view.let_go();
        CHECK(emulated_counts(*exporter) != before);
        const_cast<ImportView&>(copy).let_go();
        CHECK(comes_back(exporter, before));
    }
    CHECK(emulated_counts(*emulated) == empty);
}

TEST_CASE("A view that waits for work keeps its import until that is done", "[cache]") {
    CacheKit kit;
    const QuietLog quiet;
    const FabricBuffer own = kit.make();
    const EmulatedCounts before = emulated_counts(*kit.emulated);
    enum class Work { queued, broken, done };
    Work work = Work::queued;
    ImportView view = kit.cache.acquire(own.blob());
    FABRICMEM_CHECK_ERROR(view.retire_after({}), bad_argument, "question");
    CHECK(view.is_open());
    view.retire_after([&] {
        if (work == Work::broken) throw std::runtime_error("no answer");
        return work == Work::done;
    });
    CHECK_FALSE(view.is_open());
    FABRICMEM_CHECK_ERROR(view.retire_after([] { return true; }), closed, "view");
    CHECK(kit.now().deferred == 1);
    CHECK(kit.cache.evict(Id128()) == 1);
    FABRICMEM_CHECK_ERROR(kit.cache.close(), conflict, "1 of them kept by retire_after()");
    for (const Work not_yet : {Work::queued, Work::broken, Work::queued}) {
        work = not_yet;
        kit.cache.collect();
        CHECK(kit.settled() != before);
    }
    work = Work::done;
    kit.cache.collect();
    CHECK(kit.now().deferred == 0);
    CHECK(kit.settled() == before);
}

TEST_CASE("A view that waits for a stream keeps its import until the stream has no work", "[cache]") {
    CacheKit kit;
    const FabricBuffer own = kit.make();
    const EmulatedCounts before = emulated_counts(*kit.emulated);
    const PrimaryContext context(kit.emulated, 0);
    CUstream stream = nullptr;
    REQUIRE(kit.driver->stream_create(&stream, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
    ImportView view = kit.cache.acquire(own.blob());
    FABRICMEM_CHECK_ERROR(view.retire_after_stream(nullptr), bad_argument, "default stream");
    auto* const flag = static_cast<std::uint32_t*>(own.address());
    *flag = 0;
    REQUIRE(kit.driver->stream_wait_value32(stream, pointer(view.address()), 1, CU_STREAM_WAIT_VALUE_EQ) ==
            CUDA_SUCCESS);
    view.retire_after_stream(stream);
    CHECK(kit.cache.evict(Id128()) == 1);
    kit.cache.collect();
    CHECK(kit.now().retired == 1);
    *flag = 1;
    REQUIRE(comes_true([&] { return kit.driver->stream_query(stream) == CUDA_SUCCESS; }));
    kit.cache.collect();
    CHECK(kit.now().retired == 0);
    REQUIRE(kit.driver->stream_destroy(stream) == CUDA_SUCCESS);
    EmulatedCounts now = kit.settled();
    now.primary_contexts = before.primary_contexts;
    now.aliases = before.aliases;
    CHECK(now == before);
}

TEST_CASE("What is still to wait for when the cache ends stays mapped", "[cache]") {
    std::optional<CacheKit> kit(std::in_place);
    const QuietLog quiet;
    const FabricBuffer own = kit->make();
    const FabricBuffer other = kit->make();
    const EmulatedCounts before = emulated_counts(*kit->emulated);
    bool done = false;
    kit->cache.acquire(own.blob()).retire_after([&] { return done; });
    kit->cache.acquire(other.blob()).retire_after([] { return true; });
    ImportView late = kit->cache.acquire(other.blob());
    const std::shared_ptr<Driver> exporter = kit->emulated;
    kit.reset();
    const std::size_t kept = before.mappings + 1;
    late.retire_after([] { return true; });  // asked at once, since nobody will later
    CHECK(comes_true([&] { return emulated_counts(*exporter).mappings == kept; }));
}
