// SPDX-License-Identifier: Apache-2.0
// Calls that hang: given up at the deadline, counted while they are out, and cleaned up after when they return.
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include <fabricmem/fabric_buffer.hpp>
#include <fabricmem/fault_driver.hpp>

#include "buffer/deadline.hpp"
#include "support/buffers.hpp"
#include "support/child_process.hpp"
#include "support/driver_under_test.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;
using std::chrono::milliseconds;

namespace {

constexpr auto kPatience = std::chrono::seconds(60);
constexpr milliseconds kLong = std::chrono::minutes(10);

Fault hang(const char* call, std::uint64_t number = 0) {
    return {.effect = Fault::Effect::hang, .call = call, .number = number};
}

// Exporter and importer, on one emulated node, with the importer's calls under rules.
struct Pair {
    explicit Pair(const EmulatedOptions& options = {}) : emulated(make_emulated_driver(options)), own(emulated, 100) {}

    void end_calls() {
        driver->end_hangs();
        driver->clear();
        CHECK(detail::wait_until_stuck(*driver, 0, kPatience));
        CHECK(stuck_calls(*driver) == 0);
    }
    // Nothing is left but the exporter's buffer, once all calls have returned.
    void check_clean() {
        end_calls();
        CHECK(emulated_counts(*emulated) == before);
    }

    std::shared_ptr<Driver> emulated;
    FabricBuffer own;
    EmulatedCounts before = emulated_counts(*emulated);
    std::shared_ptr<FaultDriver> driver = std::make_shared<FaultDriver>(emulated);
};

// Prepares with a new driver, lets `rule` in, acts with a timeout, and hands back the error while the call still hangs.
// Again with a longer timeout where the deadline passed before the call was reached, as on a machine that is busy: then
// nothing hangs, or what is said is not `as_expected` yet.
template <typename Prepare, typename Action>
std::optional<Error> error_while_hung(
    Pair& pair, const Fault& rule, Prepare&& prepare, Action&& action,
    const std::function<bool(const std::optional<Error>&)>& as_expected = [](const auto&) { return true; }) {
    for (milliseconds timeout{5};; timeout *= 4) {
        pair.driver = std::make_shared<FaultDriver>(pair.emulated);
        prepare(timeout);
        pair.driver->add(rule);
        std::optional<Error> error = error_of(action);
        const bool longest = timeout > std::chrono::seconds(10);
        if (longest) REQUIRE(pair.driver->wait_until_hanging(1, kPatience));
        if (longest || (pair.driver->hanging() == 1 && as_expected(error))) return error;
        pair.end_calls();  // what the action has made is the caller's
    }
}

std::function<bool(const std::optional<Error>&)> naming(const char* call) {
    return [call](const std::optional<Error>& error) { return error.has_value() && error->details().call == call; };
}

}  // namespace

TEST_CASE("An import is given up at its deadline, whichever of its calls hangs", "[deadline][fault]") {
    Pair pair({.devices = 2});
    ImportedFabricBuffer(pair.driver, pair.own.blob()).close();
    const std::size_t calls = pair.driver->calls().size() - 3;  // all but the tear-down
    REQUIRE(calls > 20);
    for (std::uint64_t number = 1; number <= calls; ++number) {
        CAPTURE(number);
        ImportOptions options;
        const auto error = error_while_hung(
            pair, hang("", number), [&](milliseconds timeout) { options.timeout = timeout; },
            [&] { ImportedFabricBuffer(pair.driver, pair.own.blob(), options); });
        REQUIRE(error.has_value());
        CHECK(error->kind() == ErrorKind::timed_out);
        CHECK(stuck_calls(*pair.driver) == 1);
        pair.check_clean();
    }
}

TEST_CASE("An import that is given up names call, stage and both sides", "[deadline][fault]") {
    Pair pair;
    for (const char* call : {"cuMemAddressReserve", "cuMemImportFromShareableHandle", "cuMemMap", "cuMemSetAccess"}) {
        CAPTURE(call);
        ImportOptions options;
        const auto error = error_while_hung(
            pair, hang(call), [&](milliseconds timeout) { options.timeout = timeout; },
            [&] { static_cast<void>(import_if_alive(pair.driver, pair.own.blob(), options)); }, naming(call));
        REQUIRE(error.has_value());
        INFO(error->what());
        CHECK(error->kind() == ErrorKind::timed_out);
        CHECK(error->code() == 0);
        CHECK(error->details().call == call);
        CHECK(error->details().subject == "importing device 0");
        CHECK(error->details().bytes == 2 * kMiB);
        CHECK(contains(error->details().cause, std::to_string(options.timeout.count()) + " ms"));
        // Both sides are on one node: its IMEX daemon has no part in it (peer_probe_test has two nodes).
        CHECK_FALSE(contains(error->details().cause, "IMEX daemon"));
        CHECK(error->details().check == "FM-DRIVER-008");
        CHECK(contains(error->details().identity, to_string(*pair.own.blob().allocation_id)));
        CHECK(contains(error->details().identity, "Importer: host " + to_string(*pair.own.blob().host_id)));
        pair.check_clean();
    }
    ImportOptions options;
    const auto early = error_while_hung(
        pair, hang("cuDeviceGetUuid"), [&](milliseconds timeout) { options.timeout = timeout; },
        [&] { ImportedFabricBuffer(pair.driver, pair.own.blob(), options); });
    REQUIRE(early.has_value());
    CHECK(early->details().call.empty());
    CHECK(contains(early->what(), "importing a peer's memory failed while the devices were looked at"));
    pair.check_clean();
}

TEST_CASE("An import that fails, and whose undoing hangs, is given up at the call that hangs", "[deadline][fault]") {
    Pair pair;
    ImportOptions options;
    const auto error = error_while_hung(
        pair, hang("cuMemRelease"),
        [&](milliseconds timeout) {
            options.timeout = timeout;
            pair.driver->add({.call = "cuMemSetAccess", .result = CUDA_ERROR_UNKNOWN});
        },
        [&] { ImportedFabricBuffer(pair.driver, pair.own.blob(), options); }, naming("cuMemRelease"));
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::timed_out);
    CHECK(error->details().call == "cuMemRelease");
    pair.check_clean();
}

TEST_CASE("An end that hangs is given up at its deadline by close, destructor and move assignment",
          "[deadline][fault]") {
    const CapturedLog log;
    Pair pair;
    for (const char* call : {"cuMemUnmap", "cuMemRelease", "cuMemAddressFree"}) {
        CAPTURE(call);
        std::optional<ImportedFabricBuffer> buffer;
        const auto import = [&](milliseconds timeout) {
            buffer.emplace(pair.driver, pair.own.blob(), ImportOptions{.tear_down_timeout = timeout});
        };
        const auto error = error_while_hung(
            pair, hang(call), import, [&] { buffer->close(); }, naming(call));
        REQUIRE(error.has_value());
        CHECK(error->kind() == ErrorKind::timed_out);
        CHECK(error->details().call == call);
        CHECK(error->details().subject == "tearing down device 0");
        CHECK(contains(error->details().identity, to_string(*pair.own.blob().allocation_id)));
        CHECK_FALSE(buffer->is_open());
        CHECK_NOTHROW(buffer->close());
        CHECK(stuck_calls(*pair.driver) == 1);
        pair.check_clean();

        const auto is_logged = [&](const std::optional<Error>&) {
            return contains(log.text(), std::string(call) + " has not returned");
        };
        CHECK_FALSE(error_while_hung(
                        pair, hang(call), import, [&] { buffer.reset(); }, is_logged)
                        .has_value());
        CHECK(is_logged({}));
        pair.check_clean();

        CHECK_FALSE(error_while_hung(pair, hang(call, 1), import, [&] {
                        *buffer = ImportedFabricBuffer(pair.driver, pair.own.blob());
                    }).has_value());
        CHECK(buffer->is_open());
        CHECK(stuck_calls(*pair.driver) == 1);
        buffer.reset();
        pair.check_clean();
    }
}

TEST_CASE("The deadline of an import is the one of its end too, unless another is given", "[deadline][fault]") {
    class Watcher : public FaultDriver {
    public:
        using FaultDriver::FaultDriver;
        CUresult mem_import_from_shareable_handle(CUmemGenericAllocationHandle* handle, void* shareable,
                                                  CUmemAllocationHandleType type) noexcept override {
            imported_in = std::this_thread::get_id();
            return FaultDriver::mem_import_from_shareable_handle(handle, shareable, type);
        }
        CUresult mem_release(CUmemGenericAllocationHandle handle) noexcept override {
            released_in = std::this_thread::get_id();
            return FaultDriver::mem_release(handle);
        }
        std::thread::id imported_in;
        std::thread::id released_in;
    };
    const auto driver = std::make_shared<Watcher>(make_emulated_driver());
    const FabricBuffer own(driver, 1);
    const std::thread::id here = std::this_thread::get_id();
    const auto threads = [&](const ImportOptions& options) {
        ImportedFabricBuffer(driver, own.blob(), options).close();
        const std::pair<bool, bool> closed{driver->imported_in != here, driver->released_in != here};
        { const ImportedFabricBuffer imported(driver, own.blob(), options); }
        CHECK(std::pair(driver->imported_in != here, driver->released_in != here) == closed);
        return closed;
    };
    CHECK(threads({}) == std::pair(false, false));  // no thread where nobody asked for a deadline
    CHECK(threads({.timeout = kLong}) == std::pair(true, true));
    CHECK(threads({.timeout = kLong, .tear_down_timeout = milliseconds(0)}) == std::pair(true, false));
    CHECK(threads({.tear_down_timeout = kLong}) == std::pair(false, true));
    CHECK(stuck_calls(*driver) == 0);
}

TEST_CASE("An import within its deadline is as one without", "[deadline][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    const ImportOptions options{.timeout = kLong};
    FabricBuffer own(driver, 1000, {.location = Location::host_numa(0)});
    const HandleBlob blob = own.blob();
    ImportedFabricBuffer imported(driver, blob, options);
    CHECK(imported.access() == own.access());
    static_cast<unsigned char*>(imported.address())[999] = 0x44;
    CHECK(static_cast<unsigned char*>(own.address())[999] == 0x44);
    imported.close();
    CHECK_FALSE(imported.is_open());
    CHECK(import_if_alive(driver, blob, options).has_value());
    CHECK(own.close() == CloseResult::released);
    CHECK_FALSE(import_if_alive(driver, blob, options).has_value());
    CHECK(kind_of([&] { ImportedFabricBuffer(driver, blob, options); }) == ErrorKind::peer_gone);
    CHECK(kind_of([&] { ImportedFabricBuffer(driver, blob, {.timeout = milliseconds(-1)}); }) ==
          ErrorKind::bad_argument);
    CHECK(kind_of([&] { ImportedFabricBuffer(driver, blob, {.tear_down_timeout = milliseconds(-1)}); }) ==
          ErrorKind::bad_argument);
    CHECK(kind_of([&] { ImportedFabricBuffer(driver, blob, {.timeout = milliseconds::max()}); }) ==
          ErrorKind::peer_gone);
    CHECK(stuck_calls(*driver) == 0);
}

TEST_CASE("A failed release is thrown by a close with a deadline, and logged by a destructor", "[deadline][fault]") {
    Pair pair;
    const ImportOptions options{.timeout = kLong};
    ImportedFabricBuffer imported(pair.driver, pair.own.blob(), options);
    pair.driver->add({.call = "cuMemRelease", .result = CUDA_ERROR_UNKNOWN});
    const auto error = error_of([&] { imported.close(); });
    REQUIRE(error.has_value());
    CHECK(error->code() == CUDA_ERROR_UNKNOWN);
    CHECK(error->details().call == "cuMemRelease");
    CHECK_FALSE(imported.is_open());
    const CapturedLog log;
    { const ImportedFabricBuffer another(pair.driver, pair.own.blob(), options); }
    CHECK(contains(log.text(), "cuMemRelease"));
    pair.check_clean();
}

TEST_CASE("The driver lives until the last call that was given up has returned, and no longer", "[deadline][fault]") {
    Pair pair;
    const std::weak_ptr<FaultDriver> life = pair.driver;
    const auto rules = pair.driver.get();
    rules->add(hang("cuMemMap"));
    CHECK(kind_of([&] { ImportedFabricBuffer(pair.driver, pair.own.blob(), {.timeout = milliseconds(20)}); }) ==
          ErrorKind::timed_out);
    pair.driver.reset();
    REQUIRE_FALSE(life.expired());
    rules->end_hangs();
    const auto deadline = in_seconds(60);
    while (!life.expired() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    CHECK(life.expired());
    CHECK(emulated_counts(*pair.emulated) == pair.before);

    // A call that kept its deadline leaves nothing of the driver with its thread.
    auto driver = std::make_shared<FaultDriver>(pair.emulated);
    const std::weak_ptr<FaultDriver> other = driver;
    ImportedFabricBuffer(driver, pair.own.blob(), {.timeout = kLong}).close();
    driver.reset();
    CHECK(other.expired());
}

TEST_CASE("With too many calls stuck no other is begun, and what has to end ends when they return",
          "[deadline][fault]") {
    const QuietLog quiet;
    Pair pair;
    const ImportOptions options{.timeout = milliseconds(1), .tear_down_timeout = kLong};
    std::optional<ImportedFabricBuffer> first(std::in_place, pair.driver, pair.own.blob(),
                                              ImportOptions{.tear_down_timeout = kLong});
    ImportedFabricBuffer second(pair.driver, pair.own.blob(), {.tear_down_timeout = kLong});
    pair.driver->add(hang("cuMemImportFromShareableHandle"));
    for (int i = 0; i < 64; ++i) {
        CHECK(kind_of([&] { ImportedFabricBuffer(pair.driver, pair.own.blob(), options); }) == ErrorKind::timed_out);
    }
    CHECK(stuck_calls(*pair.driver) == 64);
    CHECK(kind_of([&] { ImportedFabricBuffer(pair.driver, pair.own.blob(), options); }) == ErrorKind::conflict);
    CHECK(kind_of([&] { second.close(); }) == ErrorKind::conflict);
    CHECK(second.is_open());
    first.reset();  // can't throw, and does not wait
    CHECK(stuck_calls(*pair.driver) == 65);
    pair.driver->clear();
    CHECK(detail::wait_until_stuck(*pair.driver, 0, kPatience));
    CHECK_NOTHROW(second.close());
    pair.check_clean();
}

TEST_CASE("Without a thread to be had there is a typed error and nothing is leaked", "[deadline][fault]") {
    // No stack of this size fits into the addresses.
    class NoThreads {
    public:
        NoThreads() {
            ::pthread_getattr_default_np(&before_);
            pthread_attr_t huge{};
            ::pthread_attr_init(&huge);
            ::pthread_attr_setstacksize(&huge, std::size_t{1} << 62);
            REQUIRE(::pthread_setattr_default_np(&huge) == 0);
            ::pthread_attr_destroy(&huge);
        }
        NoThreads(const NoThreads&) = delete;
        NoThreads& operator=(const NoThreads&) = delete;
        ~NoThreads() { ::pthread_setattr_default_np(&before_); }

    private:
        pthread_attr_t before_{};
    };
    const QuietLog quiet;
    Pair pair;
    const ImportOptions options{.timeout = kLong};
    std::optional<ImportedFabricBuffer> left(std::in_place, pair.driver, pair.own.blob(), options);
    ImportedFabricBuffer open(pair.driver, pair.own.blob(), options);
    {
        const NoThreads none;
        const auto error = error_of([&] { ImportedFabricBuffer(pair.driver, pair.own.blob(), options); });
        REQUIRE(error.has_value());
        CHECK(error->kind() == ErrorKind::system);
        CHECK(error->details().call == "pthread_create");
        CHECK(kind_of([&] { open.close(); }) == ErrorKind::system);
        CHECK(open.is_open());
        left.reset();
        CHECK(stuck_calls(*pair.driver) == 1);
        CHECK(kind_of([&] { open.close(); }) == ErrorKind::system);
        CHECK(stuck_calls(*pair.driver) == 1);
    }
    open.close();  // its thread is the next one
    pair.check_clean();
}

TEST_CASE("A forked child knows of no stuck call and waits for none", "[deadline][fork][fault]") {
    const QuietLog quiet;
    Pair pair;
    std::optional<ImportedFabricBuffer> imported(std::in_place, pair.driver, pair.own.blob(),
                                                 ImportOptions{.timeout = kLong});
    pair.driver->add(hang("cuMemMap"));
    CHECK(kind_of([&] { ImportedFabricBuffer(pair.driver, pair.own.blob(), {.timeout = milliseconds(1)}); }) ==
          ErrorKind::timed_out);
    std::optional<Error> late;
    std::thread waiting(
        [&] { late = error_of([&] { ImportedFabricBuffer(pair.driver, pair.own.blob(), {.timeout = kLong}); }); });
    REQUIRE(pair.driver->wait_until_hanging(2, kPatience));
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ::alarm(60);  // one that hangs dies
        const bool none = stuck_calls(*pair.driver) == 0;
        imported.reset();
        pair.driver.reset();
        ::_exit(none ? 0 : 1);
    }
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    CHECK(stuck_calls(*pair.driver) == 1);
    pair.driver->end_hangs();
    waiting.join();
    CHECK_FALSE(late.has_value());
    imported.reset();
    pair.check_clean();
}

TEST_CASE("Many threads import by deadlines while calls hang", "[deadline][threads]") {
    const QuietLog quiet;
    Pair pair({.devices = 2});
    pair.driver->add({.effect = Fault::Effect::hang, .probability = 0.02});
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 25; ++i) {
                const auto error = error_of(
                    [&] { ImportedFabricBuffer(pair.driver, pair.own.blob(), {.timeout = milliseconds(5)}).close(); });
                if (error.has_value() && error->kind() != ErrorKind::timed_out && error->kind() != ErrorKind::conflict)
                    ++wrong;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
    pair.driver->clear();
    pair.check_clean();
}

TEST_CASE("A process ends while calls hang that were given up", "[deadline][exit][each]") {
    FABRICMEM_DRIVER_OR_SKIP(driver);
    for (const char* const how : {"return", "exit", "quick"}) {
        CAPTURE(how);
        ChildProcess process({FABRICMEM_TEST_EXIT, how, "stuck"});
        CHECK(process.wait(in_seconds(60)) == Ended{0, 0});
    }
}
