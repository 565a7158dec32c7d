// SPDX-License-Identifier: Apache-2.0
// The Redis store against a redis-server of its own on the loopback, which is stopped, killed and filled with noise.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include <fabricmem/store.hpp>

#include "support/build.hpp"
#include "support/child_process.hpp"
#include "support/expect_error.hpp"
#include "support/store_conformance.hpp"
#include "support/stores.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;
using std::chrono::milliseconds;

namespace {

// A socket that listens on a free port of the loopback, and that nobody accepts from.
class Listener {
public:
    Listener() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
        REQUIRE(::bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
        REQUIRE(::listen(socket_, 4) == 0);
        socklen_t bytes = sizeof(address);
        REQUIRE(::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &bytes) == 0);
        port_ = ntohs(address.sin_port);
    }
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;
    ~Listener() { ::close(socket_); }

    [[nodiscard]] std::uint16_t port() const { return port_; }
    [[nodiscard]] int accept() const { return ::accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC); }

private:
    int socket_;
    std::uint16_t port_ = 0;
};

bool is_installed(const std::string& program) {
    const char* const path = std::getenv("PATH");
    std::string_view rest = path == nullptr ? "" : path;
    while (!rest.empty()) {
        const std::size_t colon = std::min(rest.find(':'), rest.size());
        if (::access((std::string(rest.substr(0, colon)) + "/" + program).c_str(), X_OK) == 0) return true;
        rest.remove_prefix(std::min(colon + 1, rest.size()));
    }
    return false;
}

// Why these tests can't run here; empty where they can.
std::string hindrance() {
    if (kEmulatedCpu) return "redis-server is not of the processor that is emulated";
    try {
        static_cast<void>(make_redis_store({}));
    } catch (const Error& error) {
        return error.what();
    }
    for (const char* program : {"redis-server", "redis-cli"}) {
        if (!is_installed(program)) return std::string(program) + " is not installed";
    }
    return {};
}

class RedisServer {
public:
    explicit RedisServer(std::uint16_t port = 0, std::string password = {})
        : port_(port != 0 ? port : Listener().port()), password_(std::move(password)) {
        start();
    }

    [[nodiscard]] RedisStoreOptions options() const {
        return {.port = port_, .password = password_, .timeout = std::chrono::seconds(60)};
    }
    [[nodiscard]] std::uint16_t port() const { return port_; }
    void signal(int number) { process_->signal(number); }
    void kill() { process_.reset(); }
    void start() {
        std::vector<std::string> words = {"redis-server", "--port", std::to_string(port_),  "--bind", "127.0.0.1",
                                          "--save",       "",       "--appendonly",         "no",     "--loglevel",
                                          "warning",      "--dir",  folder_.path().string()};
        if (!password_.empty()) words.insert(words.end(), {"--requirepass", password_});
        process_ = std::make_unique<ChildProcess>(words);
        const auto deadline = in_seconds(60);
        for (;;) {  // a server says nowhere that it listens
            const auto error = error_of([&] { static_cast<void>(make_redis_store(options())->try_get("ready")); });
            if (!error.has_value()) return;
            INFO(error->what());
            REQUIRE(std::chrono::steady_clock::now() < deadline);
            std::this_thread::sleep_for(milliseconds(10));
        }
    }
    // As another program would.
    void command(std::vector<std::string> words) const {
        words.insert(words.begin(), {"redis-cli", "-p", std::to_string(port_)});
        ChildProcess client(words);
        REQUIRE(client.wait(in_seconds(60)) == Ended{.exit_code = 0});
    }

private:
    TemporaryFolder folder_;
    std::uint16_t port_;
    std::string password_;
    std::unique_ptr<ChildProcess> process_;
};

}  // namespace

TEST_CASE("A Redis store does what every store does, and leaves no key", "[store][redis]") {
    if (const std::string why = hindrance(); !why.empty()) FABRICMEM_SKIP(why);
    const RedisServer server;
    const auto make = [&] { return make_redis_store(server.options()); };
    const auto store = make();
    check_values(*store);
    check_limits(*store);
    check_waits(*store);
    check_compare_exchange(*store);
    check_nothing_is_seen_in_part(make);
    CHECK_FALSE(store->compare_exchange("k", Bytes{}, bytes_of("x")));  // an empty value is not none
    store->set("k", Bytes{});
    CHECK(store->compare_exchange("k", Bytes{}, bytes_of("x")));
    CHECK(store->remove("k"));
    CHECK_FALSE(store->remove("shared"));
}

TEST_CASE("A Redis store's prefix comes before its keys, from the URL too", "[store][redis]") {
    if (const std::string why = hindrance(); !why.empty()) FABRICMEM_SKIP(why);
    const RedisServer server;
    const auto store = make_store("redis://127.0.0.1:" + std::to_string(server.port()) + "/job/7");
    store->set("key", bytes_of("x"));
    CHECK(text_of(make_redis_store(server.options())->try_get("job/7/key").value()) == "x");
}

TEST_CASE("A Redis server that hangs is given up in time, and asked again when it goes on", "[store][redis]") {
    if (const std::string why = hindrance(); !why.empty()) FABRICMEM_SKIP(why);
    RedisServer server;
    auto options = server.options();
    options.timeout = milliseconds(50);
    const auto store = make_redis_store(options);
    server.signal(SIGSTOP);
    const auto error = error_of([&] { static_cast<void>(store->try_get("key")); });
    REQUIRE(error.has_value());
    CHECK(error->kind() == ErrorKind::timed_out);
    CHECK(contains(error->what(), "50 ms"));
    server.signal(SIGCONT);
    const auto deadline = in_seconds(60);
    while (error_of([&] { store->set("key", bytes_of("x")); }).has_value()) {
        REQUIRE(std::chrono::steady_clock::now() < deadline);
    }
    CHECK(make_redis_store(server.options())->remove("key"));
}

TEST_CASE("A Redis server that dies is an error and no signal, and its successor is found", "[store][redis]") {
    if (const std::string why = hindrance(); !why.empty()) FABRICMEM_SKIP(why);
    RedisServer server;
    const auto store = make_redis_store(server.options());
    store->set("key", bytes_of("x"));
    server.kill();
    for (int i = 0; i < 3; ++i) {
        CHECK(kind_of([&] { store->set("key", Bytes(Store::kValueBytesMax)); }) == ErrorKind::system);
    }
    sigset_t pending;
    REQUIRE(::sigpending(&pending) == 0);
    CHECK(::sigismember(&pending, SIGPIPE) == 0);
    server.start();
    CHECK_FALSE(store->try_get("key").has_value());
    store->set("key", bytes_of("y"));
    CHECK(text_of(store->try_get("key").value()) == "y");
}

TEST_CASE("A Redis store refuses what is no value of its own: too large, another type", "[store][redis]") {
    if (const std::string why = hindrance(); !why.empty()) FABRICMEM_SKIP(why);
    const RedisServer server;
    const auto store = make_redis_store(server.options());
    server.command({"SETRANGE", "noise", "10000000", "x"});
    server.command({"LPUSH", "list", "x"});
    for (const char* key : {"noise", "list"}) {
        CHECK(kind_of([&] { static_cast<void>(store->try_get(key)); }) == ErrorKind::bad_blob);
    }
    store->set("noise", bytes_of("a value again"));
    CHECK(text_of(store->try_get("noise").value()) == "a value again");
}

TEST_CASE("A Redis server wants its password", "[store][redis]") {
    if (const std::string why = hindrance(); !why.empty()) FABRICMEM_SKIP(why);
    const RedisServer server(0, "open sesame");
    make_redis_store(server.options())->set("key", bytes_of("x"));
    auto options = server.options();
    for (const char* password : {"", "wrong"}) {
        options.password = password;
        const auto store = make_redis_store(options);
        for (int i = 0; i < 2; ++i) {
            CHECK(kind_of([&] { store->set("key", bytes_of("y")); }) == ErrorKind::not_permitted);
        }
    }
}

TEST_CASE("What speaks no Redis, says nothing, or is not there, is a Redis server's error", "[store][redis]") {
    if (kEmulatedCpu) FABRICMEM_SKIP("not for an emulated processor");
    try {
        static_cast<void>(make_redis_store({}));
    } catch (const Error& error) {
        FABRICMEM_SKIP(error.what());
    }
    RedisStoreOptions options{.timeout = milliseconds(50)};
    {
        const Listener silent;
        options.port = silent.port();
        CHECK(kind_of([&] { make_redis_store(options)->set("key", bytes_of("x")); }) == ErrorKind::timed_out);
    }
    CHECK(kind_of([&] { make_redis_store(options)->set("key", bytes_of("x")); }) == ErrorKind::system);
    for (const std::string answer :
         {"HTTP/1.1 400 Bad Request\r\n\r\n", ":7\r\n", "$-5\r\n", "*1\r\n$1\r\nx\r\n", ""}) {
        CAPTURE(answer);
        const Listener liar;
        options.port = liar.port();
        options.timeout = std::chrono::seconds(60);
        std::thread lying([&] {
            const int connection = liar.accept();
            char request[256];
            static_cast<void>(!::recv(connection, request, sizeof(request), 0));
            static_cast<void>(!::send(connection, answer.data(), answer.size(), MSG_NOSIGNAL));
            ::close(connection);
        });
        const ErrorKind kind = kind_of([&] { static_cast<void>(make_redis_store(options)->try_get("key")); });
        lying.join();
        CHECK((kind == ErrorKind::bad_blob || kind == ErrorKind::system));
    }
}

TEST_CASE("A Redis store without a host or a time is refused; a build without hiredis says so", "[store][redis]") {
    const auto error = error_of([] { static_cast<void>(make_redis_store({.host = ""})); });
    REQUIRE(error.has_value());
    if (error->kind() == ErrorKind::unsupported) {
        CHECK(contains(error->what(), "FABRICMEM_WITH_REDIS"));
        return;
    }
    CHECK(error->kind() == ErrorKind::bad_argument);
    CHECK(kind_of([] { static_cast<void>(make_redis_store({.timeout = milliseconds(0)})); }) ==
          ErrorKind::bad_argument);
}
