// SPDX-License-Identifier: Apache-2.0
// The exchange over stores that lie, fail, hang, are slow or go away.
#include <atomic>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

#include "support/buffers.hpp"
#include "support/exchange_kit.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

TEST_CASE("A key that holds no hello is its peer's error, and the next hello there is taken", "[exchange]") {
    const Shared shared;
    const Rank own(shared.store(), 0, 6);
    shared.server->put("job/hello/1", bytes_of("noise"));
    shared.server->put("job/hello/2", Bytes(10'000'000, std::byte{'n'}));
    const std::string whole = Hello{7, 3, 6, 1, 1}.text();
    shared.server->put("job/hello/3", bytes_of(whole.substr(0, whole.size() - 1)));
    shared.server->put("job/hello/4", Bytes{});
    shared.server->put("job/hello/5", bytes_of(Hello{7, 5, 6, 1, 1}.text()));
    own.poll_until([&] { return own.meeting->connected(5); });
    own.exchange->wait(soon());
    for (const unsigned rank : {1U, 2U, 3U, 4U}) {
        CAPTURE(rank);
        CHECK(own.error_of(rank).kind() == ErrorKind::bad_blob);
    }
    CHECK_FALSE(own.exchange->error_of(5).has_value());
    for (const unsigned rank : {1U, 2U, 3U, 4U}) {
        shared.server->put("job/hello/" + std::to_string(rank), bytes_of(Hello{7, rank, 6, 1, 1}.text()));
    }
    CHECK(own.meets());
    for (const unsigned rank : {1U, 2U, 3U, 4U}) CHECK_FALSE(own.exchange->error_of(rank).has_value());
}

TEST_CASE("A hello of another job, rank or world is its peer's conflict and stops nobody", "[exchange]") {
    const Shared shared;
    const Rank own(shared.store(), 0, 5);
    shared.server->put("job/hello/1", bytes_of(Hello{8, 1, 5, 1, 1}.text()));
    shared.server->put("job/hello/2", bytes_of(Hello{7, 3, 5, 1, 1}.text()));
    shared.server->put("job/hello/3", bytes_of(Hello{7, 3, 6, 1, 1}.text()));
    shared.server->put("job/hello/4", bytes_of(Hello{7, 4, 5, 1, 1}.text()));
    own.poll_until([&] { return own.meeting->connected(4); });
    own.exchange->wait(soon());
    for (const unsigned rank : {1U, 2U, 3U}) {
        CAPTURE(rank);
        CHECK(own.error_of(rank).kind() == ErrorKind::conflict);
    }
}

TEST_CASE("A store that throws is the error of the peers that it was asked for, and is asked again", "[exchange]") {
    const Shared shared;
    shared.server->on_call([](const std::string& name, const std::string& key) {
        if (key == "job/hello/1") throw Error({.kind = ErrorKind::not_permitted, .subject = "not for you"});
        if (key == "job/hello/2") throw std::runtime_error("connection reset");
        if (key == "job/hello/3") throw 3;  // NOLINT(hicpp-exception-baseclass)
        if (key == "job/hello/4") throw std::bad_alloc();
        if (key == "job/hello/0" && name == "set") throw std::runtime_error("disk full");
    });
    const Rank own(shared.store(), 0, 6);
    for (const unsigned rank : {1U, 2U, 3U, 4U, 5U}) {
        shared.server->put("job/hello/" + std::to_string(rank), bytes_of(Hello{7, rank, 6, 1, 1}.text()));
    }
    own.poll_until([&] { return own.meeting->connected(5); });
    own.exchange->wait(soon());
    CHECK(own.error_of(1).kind() == ErrorKind::not_permitted);
    CHECK(own.error_of(2).kind() == ErrorKind::system);
    CHECK(contains(own.error_of(2).what(), "connection reset"));
    CHECK(contains(own.error_of(2).what(), "job/hello/2"));
    CHECK(own.error_of(3).kind() == ErrorKind::system);
    CHECK(own.error_of(4).kind() == ErrorKind::out_of_memory);
    own.poll_until([&] { return own.exchange->error_of(0).has_value(); });
    own.poll_until([&] {
        const auto error = own.exchange->error_of(0);
        return error.has_value() && contains(error->what(), "disk full");
    });
    shared.server->on_call({});
    CHECK(own.meets());
    own.poll_until([&] { return shared.server->get("job/hello/0").has_value(); });
}

TEST_CASE("A store that hangs holds up neither poll nor wait, and is named", "[exchange]") {
    const Shared shared;
    shared.server->hang();
    auto options = quick();
    options.store_timeout = milliseconds(20);
    const QuietLog quiet;
    {
        const Rank own(shared.store(), 0, 2, 1, options);
        own.exchange->poll();
        REQUIRE(shared.server->wait_until_hung(kPatience));
        own.exchange->wait(soon());
        for (const unsigned rank : {0U, 1U}) {
            const Error error = own.error_of(rank);
            CAPTURE(error.what());
            CHECK(error.kind() == ErrorKind::timed_out);
            CHECK(contains(error.what(), "has not returned after"));
            CHECK(contains(error.what(), "job/hello/"));
        }
        // It goes on, and all is well.
        shared.server->go_on();
        shared.server->put("job/hello/1", bytes_of(Hello{7, 1, 2, 1, 1}.text()));
        CHECK(own.meets());
        own.poll_until([&] { return !own.exchange->error_of(0).has_value(); });

        // It hangs once more: who is connected stays so, and close() gives up in time.
        shared.server->hang();
        own.poll_until([&] { return shared.server->wait_until_hung(std::chrono::seconds(0)); });
        CHECK(own.exchange->poll() == 0);
        const auto error = error_of([&] { own.exchange->close(); });
        REQUIRE(error.has_value());
        CHECK(error->kind() == ErrorKind::timed_out);
        CHECK(contains(error->what(), "has not answered for"));
        own.exchange->close();  // does nothing
        CHECK(kind_of([&] { own.exchange->poll(); }) == ErrorKind::closed);
    }
    // The exchange is gone; the call that hung returns, and the key goes with it.
    CHECK(shared.server->get("job/hello/0").has_value());
    shared.server->go_on();
    shared.check_unused();
    CHECK_FALSE(shared.server->get("job/hello/0").has_value());
}

TEST_CASE("A set that hangs and takes effect late leaves no key either", "[exchange]") {
    const Shared shared;
    std::atomic<bool> hang{true};
    MemoryServer* const server = shared.server.get();  // not the hook's: it would own itself
    server->on_call([&, server](const std::string& name, const std::string&) {
        if (name == "set" && hang.exchange(false)) server->hang();
    });
    auto options = quick();
    options.store_timeout = milliseconds(20);
    const QuietLog quiet;
    {
        const Rank own(shared.store(), 0, 2, 1, options);
        own.exchange->poll();
        REQUIRE(server->wait_until_hung(kPatience));
    }
    CHECK(server->size() == 0);
    server->go_on();
    shared.check_unused();
    CHECK(server->size() == 0);
}

TEST_CASE("A slow store delays those that it was not asked for yet, and nobody for ever", "[exchange]") {
    const Shared shared;
    shared.server->on_call(
        [](const std::string&, const std::string&) { std::this_thread::sleep_for(milliseconds(2)); });
    const Rank own(shared.store(), 0, 20);
    for (unsigned rank = 1; rank < 20; ++rank) {
        shared.server->put("job/hello/" + std::to_string(rank), bytes_of(Hello{7, rank, 20, 1, 1}.text()));
    }
    own.exchange->wait(steady_clock::now());
    const Error error = own.error_of(19);
    CHECK(error.kind() == ErrorKind::timed_out);
    CHECK(contains(error.what(), "job/hello/19"));
    CHECK(own.meets());
}

TEST_CASE("Of two processes with one number the first learns of it, and the last is met", "[exchange]") {
    const bool comparing = GENERATE(false, true);
    CAPTURE(comparing);
    const Shared shared;
    const auto store = [&]() -> std::shared_ptr<Store> {
        if (comparing) return std::make_shared<ComparingMemoryStore>(shared.server);
        return shared.store();
    };
    auto options = quick();
    options.last_pause = milliseconds(100);  // it is not to publish while the other does
    std::optional<Rank> first(std::in_place, store(), 0U, 2U, 1U, options);
    first->poll_until([&] { return shared.server->get("job/hello/0").has_value(); });
    const Rank second(store(), 0, 2, 2);
    const auto second_is_there = [&] {
        const auto there = shared.server->get("job/hello/0");
        return there.has_value() && Hello::from(*there).life == 2;
    };
    second.poll_until(second_is_there);
    std::optional<Error> conflict;
    const auto deadline = in_seconds(60);
    while (!conflict.has_value() && steady_clock::now() < deadline) {
        conflict = error_of([&] { first->exchange->poll(); });
    }
    REQUIRE(conflict.has_value());
    CHECK(conflict->kind() == ErrorKind::conflict);
    CHECK(contains(conflict->what(), "rank 0"));
    CHECK(kind_of([&] { first->exchange->wait(in_seconds(60)); }) == ErrorKind::conflict);
    CHECK(first->error_of(0).kind() == ErrorKind::conflict);
    first->exchange->close();  // not its key
    first.reset();
    CHECK(second_is_there());
    const Rank other(shared.store(), 1, 2);
    CHECK(other.meets());
    CHECK(other.meeting->life_of(0) == 2);
    CHECK(second.meets());
}

TEST_CASE("Noise over the own key is another process's, and is not removed", "[exchange]") {
    const Shared shared;
    shared.server->put("job/hello/0", Bytes(10'000'000));  // of before: replaced
    const Rank own(shared.store(), 0, 2);
    own.poll_until([&] { return shared.server->get("job/hello/0")->size() < 1000; });
    shared.server->put("job/hello/0", Bytes(10'000'000));
    const auto deadline = in_seconds(60);
    std::optional<Error> error;
    while (!error.has_value() && steady_clock::now() < deadline) error = error_of([&] { own.exchange->poll(); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::conflict);
    own.exchange->close();
    CHECK(shared.server->get("job/hello/0")->size() == 10'000'000);
}

TEST_CASE("A hello that is still there after many could not be set is this process's own", "[exchange]") {
    const Shared shared;
    const Rank own(shared.store(), 0, 2);
    own.poll_until([&] { return shared.server->get("job/hello/0").has_value(); });
    shared.server->on_call([](const std::string& name, const std::string&) {
        if (name == "set") throw std::runtime_error("disk full");
    });
    int failed = 0;
    std::string seen;
    own.poll_until([&] {
        if (own.exchange->error_of(0).has_value() && own.meeting->own_text() != seen) {
            seen = own.meeting->own_text();
            ++failed;
        }
        return failed == 12;
    });
    shared.server->on_call({});
    const auto before = shared.server->get("job/hello/0");
    own.poll_until([&] { return shared.server->get("job/hello/0") != before; });
}

TEST_CASE("A hello that can't be made is this rank's error and tried again", "[exchange]") {
    const Shared shared;
    const Rank own(shared.store(), 0, 2);
    own.meeting->hello_fails = true;
    own.exchange->wait(soon());
    CHECK(own.error_of(0).kind() == ErrorKind::out_of_memory);
    CHECK(shared.server->size() == 0);
    own.meeting->hello_fails = false;
    own.poll_until([&] { return shared.server->get("job/hello/0").has_value(); });
    own.poll_until([&] { return !own.exchange->error_of(0).has_value(); });
}

TEST_CASE("A store that goes away for good is close's error, and one that comes back is cleaned", "[exchange]") {
    const Shared shared;
    auto options = quick();
    options.store_timeout = milliseconds(40);
    std::optional<Rank> own(std::in_place, shared.store(), 0U, 2U, 1U, options);
    own->poll_until([&] { return shared.server->get("job/hello/0").has_value(); });
    shared.server->on_call([](const std::string&, const std::string&) { throw std::runtime_error("gone"); });
    const auto error = error_of([&] { own->exchange->close(); });
    REQUIRE(error.has_value());
    CHECK((error->kind() == ErrorKind::system || error->kind() == ErrorKind::timed_out));
    own.reset();
    shared.check_unused();

    shared.server->on_call({});
    Rank next(shared.store(), 0, 2, 2);
    next.poll_until([&] { return Hello::from(*shared.server->get("job/hello/0")).life == 2; });
    std::atomic<int> failures{3};
    shared.server->on_call([&](const std::string&, const std::string&) {
        if (failures-- > 0) throw std::runtime_error("for a moment");
    });
    next.exchange->close();
    CHECK(shared.server->size() == 0);
}
