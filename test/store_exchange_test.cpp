// SPDX-License-Identifier: Apache-2.0
// How ranks meet through a store that works: who publishes, looks and removes what when.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "support/exchange_kit.hpp"
#include "support/expect_error.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;
using fabricmem::detail::PeerStanding;
using std::chrono::milliseconds;

TEST_CASE("Ranks meet through a store, and leave no key in it", "[exchange]") {
    const TemporaryFolder folder;
    constexpr unsigned kWorld = 6;
    std::atomic<unsigned> met{0};
    std::vector<std::thread> ranks;
    for (unsigned rank = 0; rank < kWorld; ++rank) {
        ranks.emplace_back([&, rank] {
            const Rank own(make_store("dir:" + folder.path().string()), rank, kWorld);
            own.exchange->wait(in_seconds(60));
            ++met;
            // Others look for this one's key until all have met.
            while (met != kWorld) own.exchange->poll();
            if (own.exchange->poll() != 0) met = 1000;
        });
    }
    for (std::thread& rank : ranks) rank.join();
    CHECK(met == kWorld);
    CHECK(folder.files() == 0);
}

TEST_CASE("A peer that has published nothing is missing by name at the deadline", "[exchange]") {
    const Shared shared;
    {
        const Rank own(shared.store(), 0, 3);
        const Rank other(shared.store(), 1, 3);
        other.exchange->wait(soon());
        own.poll_until([&] { return own.meeting->connected(1) && !own.exchange->error_of(0).has_value(); });
        own.exchange->wait(soon());
        own.poll_until([&] { return contains(own.error_of(2).what(), "has not published"); });
        const Error error = own.error_of(2);
        CHECK(error.kind() == ErrorKind::timed_out);
        CHECK(contains(error.what(), "rank 2 has not published"));
        CHECK(contains(error.what(), "job/hello/2"));
        CHECK_FALSE(own.exchange->error_of(1).has_value());
        CHECK_FALSE(own.exchange->error_of(0).has_value());
        CHECK_FALSE(own.exchange->error_of(99).has_value());
    }
    CHECK(shared.server->size() == 0);
    shared.check_unused();
}

TEST_CASE("A killed process's key is replaced, and its peers go over to the next incarnation", "[exchange]") {
    const Shared shared;
    const Rank other(shared.store(), 1, 2);
    other.meeting->dead_life = 1;
    shared.server->put("job/hello/0", bytes_of(Hello{7, 0, 2, 1, 5}.text()));  // of a process that is gone
    other.poll_until([&] { return other.meeting->life_of(0) == 1; });
    CHECK_FALSE(other.meets(soon()));  // what failed for a stale key is waited for
    const Rank own(shared.store(), 0, 2, 2);
    own.poll_until([&] { return own.meeting->connected(1); });
    CHECK(other.meets());
    CHECK(other.meeting->life_of(0) == 2);
    own.poll_until([&] { return !own.exchange->error_of(0).has_value(); });
}

TEST_CASE("A peer that comes back when all are connected is found", "[exchange]") {
    const Shared shared;
    const Rank other(shared.store(), 1, 2);
    {
        const Rank own(shared.store(), 0, 2, 1);
        own.exchange->poll();
        CHECK(other.meets());
    }
    CHECK(other.exchange->poll() == 0);
    const Rank own(shared.store(), 0, 2, 2);
    own.exchange->poll();
    other.poll_until([&] { return other.meeting->life_of(0) == 2; });
    CHECK(own.meets());
}

TEST_CASE("A key that somebody removed is published again", "[exchange]") {
    const Shared shared;
    const Rank own(shared.store(), 0, 2);
    for (int i = 0; i < 3; ++i) {
        own.poll_until([&] { return shared.server->get("job/hello/0").has_value(); });
        shared.server->remove("job/hello/0");
    }
    shared.server->put("job/hello/1", bytes_of(Hello{7, 1, 2, 1, 1}.text()));
    CHECK(own.meets());
    shared.server->remove("job/hello/0");
    own.poll_until([&] { return shared.server->get("job/hello/0").has_value(); });
}

TEST_CASE("A fresh hello is published while peers are missing, and none once all are connected", "[exchange]") {
    const bool comparing = GENERATE(false, true);
    const Shared shared;
    const auto store = comparing ? std::make_shared<ComparingMemoryStore>(shared.server) : shared.store();
    const Rank own(store, 0, 2);
    const auto number = [&] {
        const auto there = shared.server->get("job/hello/0");
        return there.has_value() ? Hello::from(*there).number : 0;
    };
    own.poll_until([&] { return number() >= 3; });
    shared.server->put("job/hello/1", bytes_of(Hello{7, 1, 2, 1, 1}.text()));
    CHECK(own.meets());
    const std::string before = own.meeting->own_text();
    for (int i = 0; i < 3; ++i) {  // the key is looked after all the same
        shared.server->remove("job/hello/0");
        own.poll_until([&] { return shared.server->get("job/hello/0").has_value(); });
    }
    CHECK(own.meeting->own_text() == before);
    own.meeting->lose(1);
    own.poll_until([&] { return own.meeting->own_text() != before; });
}

TEST_CASE("A peer's hello is taken once, its next one too, and a dropped peer is not looked for", "[exchange]") {
    const Shared shared;
    std::atomic<int> asked{0};
    shared.server->on_call([&](const std::string&, const std::string& key) {
        if (key == "job/hello/2") ++asked;
    });
    const Rank own(shared.store(), 0, 3);
    own.poll_until([&] { return asked > 0; });
    own.meeting->drop(2);
    own.meeting->when_heard = PeerStanding::missing;
    const auto take = [&](unsigned number) {
        shared.server->put("job/hello/1", bytes_of(Hello{7, 1, 3, 1, number}.text()));
        own.poll_until([&] { return own.meeting->number_of(1) == number; });
    };
    take(1);
    take(2);  // what was asked before the first is answered by now
    const int before = asked;
    own.exchange->wait(soon());
    CHECK(own.meeting->added == 2);
    own.meeting->when_heard = PeerStanding::connected;
    take(3);
    CHECK(own.meets());
    CHECK(own.meeting->added == 3);
    CHECK(asked == before);
}

TEST_CASE("A peer that failed for good ends the wait", "[exchange]") {
    const Shared shared;
    const Rank own(shared.store(), 0, 2);
    own.meeting->when_heard = PeerStanding::failed;
    shared.server->put("job/hello/1", bytes_of(Hello{7, 1, 2, 1, 1}.text()));
    CHECK(own.meets());
    CHECK_FALSE(own.meeting->connected(1));
}

TEST_CASE("Exchanges of two prefixes share a store and do not meet", "[exchange]") {
    const Shared shared;
    const Rank own(shared.store(), 0, 2, 1, quick("one"));
    const Rank other(shared.store(), 1, 2, 1, quick("two"));
    other.exchange->wait(soon());
    CHECK_FALSE(own.meets(soon()));
    CHECK(shared.server->get("two/hello/1").has_value());
}

TEST_CASE("An exchange that never polled touches no store", "[exchange]") {
    const Shared shared;
    shared.server->on_call([](const std::string&, const std::string&) { FAIL("a call"); });
    { const Rank own(shared.store(), 0, 2); }
    shared.check_unused();
}

TEST_CASE("Many threads may poll, wait and close one exchange", "[exchange]") {
    const Shared shared;
    const Rank own(shared.store(), 0, 2);
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&, i] {
            const auto error = error_of([&] {
                for (;;) i % 2 == 0 ? own.exchange->wait(in_seconds(60)) : static_cast<void>(own.exchange->poll());
            });
            static_cast<void>(own.exchange->error_of(1));
            if (!error.has_value() || error->kind() != ErrorKind::closed) std::abort();
        });
    }
    own.poll_until([&] { return shared.server->get("job/hello/0").has_value(); });
    own.exchange->close();
    for (std::thread& thread : threads) thread.join();
    CHECK(shared.server->size() == 0);
}

TEST_CASE("A forked child's copy of an exchange refuses, and leaves the parent's key", "[exchange][fork]") {
    const Shared shared;
    const Rank own(shared.store(), 0, 2);
    own.poll_until([&] { return shared.server->get("job/hello/0").has_value(); });
    const pid_t child = ::fork();
    if (child == 0) {
        const auto error = error_of([&] { own.exchange->poll(); });
        const bool refused = error.has_value() && error->kind() == ErrorKind::unsupported;
        own.exchange->close();
        ::_exit(refused && own.exchange->in_forked_child() ? 0 : 1);
    }
    REQUIRE(child > 0);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    CHECK_FALSE(own.exchange->in_forked_child());
    own.exchange->poll();
    CHECK(shared.server->get("job/hello/0").has_value());
}

TEST_CASE("An exchange refuses options that can't be", "[exchange]") {
    const Shared shared;
    const auto with = [&](auto&& change) {
        StoreExchangeOptions options = quick();
        change(options);
        return kind_of([&] { Rank(shared.store(), 0, 2, 1, options); });
    };
    CHECK(with([](auto& o) { o.prefix = ""; }) == ErrorKind::bad_argument);
    CHECK(with([](auto& o) { o.prefix = std::string(181, 'p'); }) == ErrorKind::bad_argument);
    CHECK(with([](auto& o) { o.first_pause = milliseconds(0); }) == ErrorKind::bad_argument);
    CHECK(with([](auto& o) { o.last_pause = milliseconds(-1); }) == ErrorKind::bad_argument);
    CHECK(with([](auto& o) { o.connected_pause = milliseconds(0); }) == ErrorKind::bad_argument);
    CHECK(with([](auto& o) { o.republish_pause = milliseconds(0); }) == ErrorKind::bad_argument);
    CHECK(with([](auto& o) { o.store_timeout = milliseconds::max(); }) == ErrorKind::bad_argument);
    CHECK(kind_of([] { Rank(nullptr, 0, 2); }) == ErrorKind::bad_argument);
    CHECK(kind_of([&] { detail::ExchangeCore(shared.store(), nullptr, quick()); }) == ErrorKind::bad_argument);
}
