// SPDX-License-Identifier: Apache-2.0
// The adapter for c10d's stores, over fakes with c10d's signatures, whose get() waits for a key as c10d's does. Against
// PyTorch's own: torch_store_test.cpp.
#include <fabricmem/c10d_store.hpp>

#include <condition_variable>
#include <map>
#include <mutex>
#include <stdexcept>

#include "support/expect_error.hpp"
#include "support/store_conformance.hpp"
#include "support/stores.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

using Value = std::vector<std::uint8_t>;

// PyTorch's c10d::Store: set() has an overload, and what it throws is a std::exception with a text.
class FakeC10dStore {
public:
    explicit FakeC10dStore(std::chrono::milliseconds timeout = std::chrono::minutes(5)) : timeout_(timeout) {}
    virtual ~FakeC10dStore() = default;

    void set(const std::string& key, const std::string& value) { set(key, Value(value.begin(), value.end())); }
    virtual void set(const std::string& key, const Value& value) {
        const std::lock_guard lock(mutex_);
        values_[key] = value;
        changed_.notify_all();
    }
    virtual Value get(const std::string& key) {
        wait({key}, timeout_);
        const std::lock_guard lock(mutex_);
        return values_.at(key);
    }
    virtual bool check(const std::vector<std::string>& keys) {
        const std::lock_guard lock(mutex_);
        return has(keys);
    }
    virtual bool deleteKey(const std::string& key) {  // NOLINT(readability-identifier-naming)
        const std::lock_guard lock(mutex_);
        return values_.erase(key) != 0;
    }
    virtual void wait(const std::vector<std::string>& keys) { wait(keys, timeout_); }
    virtual void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) {
        std::unique_lock lock(mutex_);
        if (!changed_.wait_for(lock, timeout, [&] { return has(keys); })) throw std::runtime_error("Socket Timeout");
    }

protected:
    [[nodiscard]] bool has(const std::vector<std::string>& keys) const {
        for (const std::string& key : keys) {
            if (values_.count(key) == 0) return false;
        }
        return true;
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::string, Value> values_;
    std::chrono::milliseconds timeout_;
};

// As TCPStore: nothing there and nothing expected are an empty value, and it answers with what was expected where
// nothing is there.
class FakeComparingStore final : public FakeC10dStore {
public:
    Value compareSet(const std::string& key, const Value& expected,  // NOLINT(readability-identifier-naming)
                     const Value& desired) {
        const std::lock_guard lock(mutex_);
        const auto place = values_.find(key);
        if (place == values_.end()) {
            if (!expected.empty()) return expected;
            values_[key] = desired;
            return desired;
        }
        if (place->second == expected) place->second = desired;
        return place->second;
    }
};

class FailingStore final : public FakeC10dStore {
public:
    void set(const std::string&, const Value&) override { fail(); }
    Value get(const std::string&) override { return fail(), Value(); }
    bool check(const std::vector<std::string>&) override { return fail(), false; }
    bool deleteKey(const std::string&) override { return fail(), false; }
    [[noreturn]] static void fail() { throw std::runtime_error("Connection reset by peer"); }
};

class LosesItsServer final : public FakeC10dStore {
public:
    bool check(const std::vector<std::string>&) override {
        if (asked_++ > 0) FailingStore::fail();
        return false;
    }

private:
    int asked_ = 0;
};

// As TCPStore's client: one call at a time, and the others wait for as long as it takes.
class OneCallAtATime final : public FakeC10dStore {
public:
    using FakeC10dStore::set;
    void set(const std::string& key, const Value& value) override {
        const std::lock_guard call(call_);
        FakeC10dStore::set(key, value);
    }
    Value get(const std::string& key) override {
        const std::lock_guard call(call_);
        return FakeC10dStore::get(key);
    }
    bool check(const std::vector<std::string>& keys) override {
        const std::lock_guard call(call_);
        return FakeC10dStore::check(keys);
    }
    bool deleteKey(const std::string& key) override {
        const std::lock_guard call(call_);
        return FakeC10dStore::deleteKey(key);
    }
    using FakeC10dStore::wait;
    void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) override {
        const std::lock_guard call(call_);
        FakeC10dStore::wait(keys, timeout);
    }

private:
    std::recursive_mutex call_;
};

}  // namespace

TEST_CASE("A c10d store keeps values, and is not asked to get what is not there", "[store]") {
    const auto store = adapt_c10d_store(std::make_shared<FakeC10dStore>());  // its get() would wait for minutes
    check_values(*store);
    check_limits(*store);
    check_waits(*store);
}

TEST_CASE("A c10d store compares and exchanges where its type does, and not where not", "[store]") {
    check_compare_exchange(*adapt_c10d_store(std::make_shared<FakeComparingStore>()));
    const auto without = adapt_c10d_store(std::make_shared<FakeC10dStore>());
    CHECK_FALSE(without->can_compare_exchange());
    CHECK(kind_of([&] { static_cast<void>(without->compare_exchange("k", std::nullopt, bytes_of("x"))); }) ==
          ErrorKind::unsupported);
}

TEST_CASE("A c10d store refuses to compare empty values, which it takes for none", "[store]") {
    const auto store = adapt_c10d_store(std::make_shared<FakeComparingStore>());
    store->set("k", Bytes{});
    CHECK(kind_of([&] { static_cast<void>(store->compare_exchange("k", Bytes{}, bytes_of("x"))); }) ==
          ErrorKind::unsupported);
    CHECK(kind_of([&] { static_cast<void>(store->compare_exchange("k", std::nullopt, Bytes{})); }) ==
          ErrorKind::unsupported);
    CHECK(store->try_get("k")->empty());
}

TEST_CASE("What a c10d store throws is an Error that has its text and names call and key", "[store]") {
    const auto store = adapt_c10d_store(std::make_shared<FailingStore>());
    const std::vector<std::pair<std::string, std::function<void()>>> calls = {
        {"c10d set", [&] { store->set("the-key", bytes_of("x")); }},
        {"c10d check", [&] { static_cast<void>(store->try_get("the-key")); }},
        {"c10d check", [&] { static_cast<void>(store->wait("the-key", in_seconds(60))); }},
        {"c10d deleteKey", [&] { store->remove("the-key"); }}};
    for (const auto& [name, call] : calls) {
        const auto error = error_of(call);
        REQUIRE(error.has_value());
        CHECK(error->kind() == ErrorKind::system);
        CHECK(error->details().call == name);
        CHECK(contains(error->what(), "the-key"));
        CHECK(contains(error->what(), "Connection reset by peer"));
    }
}

TEST_CASE("A c10d store that loses its server in a wait says so before the deadline", "[store]") {
    const auto store = adapt_c10d_store(std::make_shared<LosesItsServer>());
    CHECK(kind_of([&] { static_cast<void>(store->wait("k", in_seconds(600))); }) == ErrorKind::system);
}

TEST_CASE("A wait keeps no other thread from a c10d store that serves one call at a time", "[store]") {
    check_waits(*adapt_c10d_store(std::make_shared<OneCallAtATime>()));
}

TEST_CASE("A c10d store's value of ten megabytes is no value, and no store is no c10d store", "[store]") {
    const auto c10d = std::make_shared<FakeC10dStore>();
    c10d->set("noise", std::string(10'000'000, 'n'));
    const auto store = adapt_c10d_store(c10d);
    CHECK(kind_of([&] { static_cast<void>(store->try_get("noise")); }) == ErrorKind::bad_blob);
    CHECK(kind_of([] { static_cast<void>(adapt_c10d_store(std::shared_ptr<FakeC10dStore>())); }) ==
          ErrorKind::bad_argument);
}
