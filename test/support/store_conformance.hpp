// SPDX-License-Identifier: Apache-2.0
// What every engine has to do, for its test to call. Threads that use one store at once, too.
#pragma once

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include <fabricmem/error.hpp>
#include <fabricmem/store.hpp>

#include "support/child_process.hpp"
#include "support/expect_error.hpp"
#include "support/stores.hpp"

namespace fabricmem::test {

inline void check_values(Store& store) {
    const auto value = [&](const std::string& key) -> std::optional<std::string> {
        const auto bytes = store.try_get(key);
        return bytes.has_value() ? std::optional(text_of(*bytes)) : std::nullopt;
    };
    CHECK_FALSE(value("job/hello/1").has_value());
    CHECK_FALSE(store.remove("job/hello/1"));
    store.set("job/hello/1", bytes_of("one"));
    store.set("job/hello/2", bytes_of("two"));
    CHECK(value("job/hello/1") == "one");
    store.set("job/hello/1", bytes_of("another, longer"));
    CHECK(value("job/hello/1") == "another, longer");
    store.set("job/hello/1", bytes_of("x"));
    CHECK(value("job/hello/1") == "x");
    CHECK(value("job/hello/2") == "two");
    CHECK(store.remove("job/hello/1"));
    CHECK_FALSE(store.remove("job/hello/1"));
    CHECK_FALSE(value("job/hello/1").has_value());

    Bytes all(256);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::byte>(i);
    for (const Bytes& some : {all, Bytes{}, Bytes(Store::kValueBytesMax, std::byte{7})}) {
        store.set("bytes", some);
        CHECK((store.try_get("bytes") == some));
    }
    CHECK(store.remove("bytes"));

    // No two of these are one key.
    const std::vector<std::string> keys = {
        "a", "A", "a.", ".a", "..", "a/b", "a%2Fb", "%", "a ", "a~b", "*", "é", std::string("n\0l", 3)};
    for (const std::string& key : keys) store.set(key, bytes_of("of " + key));
    for (const std::string& key : keys) {
        CAPTURE(key);
        CHECK(value(key) == "of " + key);
        CHECK(store.remove(key));
    }
    CHECK(store.remove("job/hello/2"));
}

inline void check_limits(Store& store) {
    const Bytes one(1);
    for (const std::string& key : {std::string(), std::string(Store::kKeyBytesMax + 1, 'k')}) {
        CHECK(kind_of([&] { store.set(key, one); }) == ErrorKind::bad_argument);
        CHECK(kind_of([&] { static_cast<void>(store.try_get(key)); }) == ErrorKind::bad_argument);
        CHECK(kind_of([&] { static_cast<void>(store.wait(key, in_seconds(60))); }) == ErrorKind::bad_argument);
        CHECK(kind_of([&] { store.remove(key); }) == ErrorKind::bad_argument);
    }
    CHECK(kind_of([&] { store.set("k", Bytes(Store::kValueBytesMax + 1)); }) == ErrorKind::bad_argument);
    CHECK_FALSE(store.try_get("k").has_value());
    const std::string longest(Store::kKeyBytesMax, 'k');
    store.set(longest, one);
    CHECK(store.remove(longest));
}

inline void check_waits(Store& store) {
    CHECK_FALSE(store.wait("late", std::chrono::steady_clock::now()));
    CHECK_FALSE(store.wait("late", std::chrono::steady_clock::now() + std::chrono::milliseconds(30)));
    std::thread setter([&] { store.set("late", bytes_of("now")); });
    CHECK(store.wait("late", in_seconds(60)));
    setter.join();
    CHECK(store.wait("late", std::chrono::steady_clock::now()));
    CHECK(store.remove("late"));
}

/// `make` opens the same store once more.
template <typename Make>
void check_nothing_is_seen_in_part(Make&& make) {
    constexpr int kWriters = 3;
    constexpr int kRounds = 100;
    std::atomic<int> at_work{kWriters};
    std::vector<std::thread> writers;
    for (int i = 0; i < kWriters; ++i) {
        writers.emplace_back([&, i] {
            const std::shared_ptr<Store> store = make();
            for (int round = 0; round < kRounds; ++round) {
                store->set("shared", Bytes(static_cast<std::size_t>(5000 * (i + 1)), static_cast<std::byte>(i + 1)));
            }
            --at_work;
        });
    }
    const std::shared_ptr<Store> store = make();
    std::size_t torn = 0;
    while (at_work != 0) {
        const auto value = store->try_get("shared");
        if (!value.has_value()) continue;
        const bool whole = !value->empty() && value->front() == value->back() &&
                           value->size() == 5000 * std::to_integer<std::size_t>(value->front());
        if (!whole) ++torn;
    }
    for (std::thread& writer : writers) writer.join();
    CHECK(torn == 0);
    CHECK(store->remove("shared"));
}

inline void check_compare_exchange(Store& store) {
    REQUIRE(store.can_compare_exchange());
    const Bytes a = bytes_of("a");
    const Bytes b = bytes_of("b");
    CHECK_FALSE(store.compare_exchange("cas", a, b));
    CHECK_FALSE(store.try_get("cas").has_value());
    CHECK(store.compare_exchange("cas", std::nullopt, a));
    CHECK_FALSE(store.compare_exchange("cas", std::nullopt, b));
    CHECK_FALSE(store.compare_exchange("cas", b, bytes_of("c")));
    CHECK((store.try_get("cas") == a));
    CHECK(store.compare_exchange("cas", a, b));
    CHECK((store.try_get("cas") == b));
    CHECK(store.compare_exchange("cas", a, b));  // it is there
    CHECK(store.remove("cas"));
    CHECK_FALSE(store.compare_exchange("cas", a, a));
    CHECK_FALSE(store.try_get("cas").has_value());
}

}  // namespace fabricmem::test
