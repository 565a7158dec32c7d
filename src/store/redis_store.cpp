// SPDX-License-Identifier: Apache-2.0
// Redis by hiredis. The only file that knows it; compiled where it was found (FABRICMEM_WITH_REDIS).
#include <hiredis/hiredis.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <initializer_list>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>

#include <fabricmem/error.hpp>
#include <fabricmem/store.hpp>

#include "error/refuse.hpp"
#include "platform/fork_epoch.hpp"
#include "store/back_off.hpp"
#include "text/text.hpp"

namespace fabricmem {
namespace detail {
namespace {

struct FreeContext {
    void operator()(redisContext* context) const noexcept { ::redisFree(context); }
};
struct FreeReply {
    void operator()(redisReply* reply) const noexcept { ::freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

// hiredis writes to a socket whose server may be gone, and asks for no MSG_NOSIGNAL.
class BrokenPipeHeld {
public:
    BrokenPipeHeld() noexcept {
        sigset_t pending;
        ::sigemptyset(&set_);
        ::sigaddset(&set_, SIGPIPE);
        ::sigpending(&pending);
        was_pending_ = ::sigismember(&pending, SIGPIPE) == 1;
        ::pthread_sigmask(SIG_BLOCK, &set_, &before_);
    }
    BrokenPipeHeld(const BrokenPipeHeld&) = delete;
    BrokenPipeHeld& operator=(const BrokenPipeHeld&) = delete;
    ~BrokenPipeHeld() {
        const int error = errno;
        const timespec now{};
        while (!was_pending_ && ::sigtimedwait(&set_, nullptr, &now) < 0 && errno == EINTR) {
        }
        ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
        errno = error;
    }

private:
    sigset_t set_{};
    sigset_t before_{};
    bool was_pending_ = false;
};

// KEYS[1]; ARGV: whether something is expected, what, what is desired. Redis runs a script as one step.
constexpr std::string_view kCompareExchange =
    "local v = redis.call('GET', KEYS[1]) "
    "if v == ARGV[3] then return 1 end "
    "if ARGV[1] == '0' then if v then return 0 end elseif v ~= ARGV[2] then return 0 end "
    "redis.call('SET', KEYS[1], ARGV[3]) return 1";

std::string_view text_of(std::span<const std::byte> bytes) noexcept {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class RedisStore final : public Store {
public:
    explicit RedisStore(RedisStoreOptions options) : options_(std::move(options)) {
        if (options_.host.empty() || options_.host.find('\0') != std::string::npos)
            refuse("a Redis server without a host");
        if (options_.timeout.count() <= 0) {
            refuse(formatted("a Redis server's timeout of {} ms", options_.timeout.count()));
        }
        options_.timeout = std::min(options_.timeout, std::chrono::milliseconds(std::chrono::hours(24)));
    }
    ~RedisStore() override {
        // The parent may have been in the middle of a call.
        if (epoch_ != fork_epoch() && context_ != nullptr) leave_to_parent(context_.release());
    }

    void set(const std::string& key, std::span<const std::byte> value) override {
        check_store_key(key);
        check_store_value(key, value.size());
        const Reply reply = ask(key, {"SET", name_of(key), text_of(value)});
        expect(*reply, REDIS_REPLY_STATUS, "SET", key);
    }

    std::optional<std::vector<std::byte>> try_get(const std::string& key) override {
        check_store_key(key);
        Reply reply = get(key);
        if (reply->len == 0) {
            // No key, or an empty value. One that was set after the first look is looked at again.
            if (!is_there(key)) return std::nullopt;
            reply = get(key);
            if (reply->len == 0 && !is_there(key)) return std::nullopt;
        }
        const auto value = std::as_bytes(std::span(reply->str, reply->len));
        return std::vector<std::byte>(value.begin(), value.end());
    }

    bool wait(const std::string& key, std::chrono::steady_clock::time_point deadline) override {
        check_store_key(key);
        BackOff pause(kFirstLook, kLastLook);
        for (;;) {
            if (is_there(key)) return true;
            const auto left = deadline - std::chrono::steady_clock::now();
            if (left <= left.zero()) return false;
            std::this_thread::sleep_for(std::min<std::chrono::steady_clock::duration>(left, pause.next()));
        }
    }

    bool remove(const std::string& key) override {
        check_store_key(key);
        const Reply reply = ask(key, {"DEL", name_of(key)});
        expect(*reply, REDIS_REPLY_INTEGER, "DEL", key);
        return reply->integer != 0;
    }

    [[nodiscard]] bool can_compare_exchange() const noexcept override { return true; }

    bool compare_exchange(const std::string& key, std::optional<std::span<const std::byte>> expected,
                          std::span<const std::byte> desired) override {
        check_store_key(key);
        check_store_value(key, desired.size());
        const std::string_view before = expected.has_value() ? text_of(*expected) : std::string_view();
        const Reply reply = ask(key, {"EVAL", kCompareExchange, "1", name_of(key), expected.has_value() ? "1" : "0",
                                      before, text_of(desired)});
        expect(*reply, REDIS_REPLY_INTEGER, "EVAL", key);
        return reply->integer != 0;
    }

private:
    [[nodiscard]] std::string name_of(const std::string& key) const {
        return options_.prefix.empty() ? key : options_.prefix + "/" + key;
    }

    Reply get(const std::string& key) {
        // No more than one byte beyond what can be a value, whatever is stored there.
        Reply reply = ask(key, {"GETRANGE", name_of(key), "0", formatted("{}", kValueBytesMax)});
        expect(*reply, REDIS_REPLY_STRING, "GETRANGE", key);
        check_stored_value(key, reply->len);
        return reply;
    }

    bool is_there(const std::string& key) {
        const Reply reply = ask(key, {"EXISTS", name_of(key)});
        expect(*reply, REDIS_REPLY_INTEGER, "EXISTS", key);
        return reply->integer != 0;
    }

    [[nodiscard]] std::string place() const { return formatted("Redis at {}:{}", options_.host, options_.port); }

    Reply ask(const std::string& key, std::initializer_list<std::string_view> words) {
        if (epoch_ != fork_epoch()) {
            throw Error({.kind = ErrorKind::unsupported,
                         .subject = "a Redis store of the parent's in a forked child",
                         .cure = "make a store in the child"});
        }
        const std::lock_guard lock(mutex_);
        const BrokenPipeHeld held;
        if (context_ == nullptr) connect();
        return send(key, words);
    }

    void connect() {
        const timeval timeout{.tv_sec = options_.timeout.count() / 1000,
                              .tv_usec = (options_.timeout.count() % 1000) * 1000};
        std::unique_ptr<redisContext, FreeContext> made(
            ::redisConnectWithTimeout(options_.host.c_str(), options_.port, timeout));
        if (made == nullptr) throw std::bad_alloc();
        if (made->err != 0) throw failure(*made, "connect");
        if (::redisSetTimeout(made.get(), timeout) != REDIS_OK) throw failure(*made, "setsockopt");
        context_ = std::move(made);
        if (options_.password.empty()) return;
        const Reply reply = send("AUTH", {"AUTH", options_.password});
        try {
            expect(*reply, REDIS_REPLY_STATUS, "AUTH", {});
        } catch (...) {
            context_.reset();
            throw;
        }
    }

    Reply send(const std::string& key, std::initializer_list<std::string_view> words) {
        std::vector<const char*> starts;
        std::vector<std::size_t> lengths;
        for (const std::string_view word : words) {
            starts.push_back(word.data() == nullptr ? "" : word.data());
            lengths.push_back(word.size());
        }
        errno = 0;
        Reply reply(static_cast<redisReply*>(
            ::redisCommandArgv(context_.get(), static_cast<int>(starts.size()), starts.data(), lengths.data())));
        if (reply != nullptr) return reply;
        // An answer that came late would be taken for the next call's: never again on this connection.
        const auto broken = std::move(context_);
        throw failure(*broken, key);
    }

    [[nodiscard]] Error failure(const redisContext& context, std::string_view what) const {
        const int code = errno;
        bool late = context.err == REDIS_ERR_IO && (code == EAGAIN || code == ETIMEDOUT || code == EINPROGRESS);
#ifdef REDIS_ERR_TIMEOUT  // hiredis 1.0
        late = late || context.err == REDIS_ERR_TIMEOUT;
#endif
        const bool protocol = context.err == REDIS_ERR_PROTOCOL;
        const ErrorKind kind = late ? ErrorKind::timed_out : (protocol ? ErrorKind::bad_blob : ErrorKind::system);
        return Error({.kind = kind,
                      .call = "redis",
                      .subject = formatted("{}: {}", place(), what),
                      .cause = late ? formatted("no answer within {} ms", options_.timeout.count())
                                    : std::string(static_cast<const char*>(context.errstr)),
                      .cure = "look whether the server runs and can be reached from here"});
    }

    void expect(const redisReply& reply, int type, const char* command, std::string_view key) const {
        if (reply.type == type) return;
        const std::string_view said =
            reply.type == REDIS_REPLY_ERROR ? std::string_view(reply.str, reply.len) : "an answer of another type";
        const auto says = [&](std::string_view word) { return said.starts_with(word); };
        ErrorKind kind = ErrorKind::system;
        if (reply.type != REDIS_REPLY_ERROR || says("WRONGTYPE")) kind = ErrorKind::bad_blob;
        if (says("NOAUTH") || says("WRONGPASS") || says("NOPERM") || says("READONLY")) kind = ErrorKind::not_permitted;
        throw Error({.kind = kind,
                     .call = std::string("redis ") + command,
                     .subject = formatted("{}: {}", place(), key),
                     .cause = std::string(said)});
    }

    RedisStoreOptions options_;
    std::uint64_t epoch_ = fork_epoch();
    std::mutex mutex_;
    std::unique_ptr<redisContext, FreeContext> context_;  // guarded by it
};

}  // namespace
}  // namespace detail

std::shared_ptr<Store> make_redis_store(RedisStoreOptions options) {
    return std::make_shared<detail::RedisStore>(std::move(options));
}

}  // namespace fabricmem
