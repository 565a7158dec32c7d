// SPDX-License-Identifier: Apache-2.0
#include "warmup/rank.hpp"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <exception>
#include <filesystem>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <fabricmem/emulated_driver.hpp>
#include <fabricmem/fabricmem.hpp>
#include <fabricmem/store_exchange.hpp>
#include <nlohmann/json.hpp>

#include "common/driver_choice.hpp"
#include "warmup/keys.hpp"

namespace warmup {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;
using fabricmem::HandshakeReport;
using fabricmem::PathReport;
using fabricmem::PeerReport;

// The process that started this one allows for both, and some more.
constexpr std::chrono::milliseconds kStoreTimeout{5'000};
constexpr std::chrono::milliseconds kCloseTimeout{5'000};
constexpr std::chrono::milliseconds kLongestImport{10'000};

// ThreadSanitizer starts a thread of its own with the first that is made.
#if defined(__SANITIZE_THREAD__)
constexpr std::size_t kSanitizerThreads = 1;
#elif defined(__has_feature)
constexpr std::size_t kSanitizerThreads = __has_feature(thread_sanitizer) ? 1 : 0;
#else
constexpr std::size_t kSanitizerThreads = 0;
#endif

/// Lines on stdout, whole ones, of any thread.
class Speaker {
public:
    void say(const Json& what) {
        // What comes from outside may not be UTF-8.
        const std::string line = what.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
        const std::lock_guard lock(mutex_);
        for (std::string_view left = line; !left.empty();) {
            const ssize_t written = ::write(STDOUT_FILENO, left.data(), left.size());
            if (written < 0 && errno == EINTR) continue;
            if (written <= 0) return;  // nobody listens any more
            left.remove_prefix(static_cast<std::size_t>(written));
        }
    }

private:
    std::mutex mutex_;
};

std::int64_t ns_of(Clock::time_point time) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

double ms_of(std::chrono::microseconds time) { return std::chrono::duration<double, std::milli>(time).count(); }

Json to_json(const fabricmem::Error& error) {
    return {{"kind", fabricmem::to_string(error.kind())},
            {"code", error.code()},
            {"text", error.what()},
            {"identity", error.details().identity}};
}

Json to_json(const PathReport& path) {
    Json json{{"state", fabricmem::to_string(path.state)}};
    if (path.from_device >= 0) json["from_device"] = path.from_device;
    if (!path.reason.empty()) json["reason"] = path.reason;
    if (path.error) json["error"] = to_json(*path.error);
    return json;
}

Json to_json(const PeerReport& peer) {
    Json json{{"rank", peer.rank}, {"stage", fabricmem::to_string(peer.stage)}};
    if (peer.stage != fabricmem::PeerStage::self) {
        json["device"] = to_json(peer.device);
        json["host"] = to_json(peer.host);
        json["slots"] = peer.slots == fabricmem::LocationKind::device ? "device" : "host";
        json["slots_reason"] = peer.slots_reason;
        json["ms"] = {{"no_hello", ms_of(peer.in_no_hello)},
                      {"importing", ms_of(peer.in_importing)},
                      {"proving", ms_of(peer.in_proving)}};
        json["imports_tried"] = peer.imports_tried;
    }
    if (peer.error) json["error"] = to_json(*peer.error);
    return json;
}

Json to_json(const HandshakeReport& report) {
    Json peers = Json::array();
    for (const PeerReport& peer : report.peers) peers.push_back(to_json(peer));
    return {{"connected", report.connected},
            {"failed", report.failed},
            {"pending", report.pending},
            {"peers", std::move(peers)}};
}

std::size_t count_threads() {
    const std::filesystem::directory_iterator threads("/proc/self/task");
    return static_cast<std::size_t>(std::distance(begin(threads), end(threads)));
}

/// The kernel lists a thread for a moment after it was joined, and tells nobody when it stops.
std::size_t count_threads_down_to(std::size_t expected) {
    const Clock::time_point deadline = Clock::now() + std::chrono::seconds(2);
    for (;;) {
        const std::size_t count = count_threads();
        if (count <= expected || Clock::now() >= deadline) return count;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

/// Things of the emulated driver's that are not given back; nullopt where that can't be told.
std::optional<std::size_t> count_left(const fabricmem::Driver& driver) {
    try {
        const fabricmem::EmulatedCounts counts = fabricmem::emulated_counts(driver);
        return counts.allocations + counts.handles + counts.ranges + counts.mappings + counts.descriptors +
               counts.aliases + counts.streams + counts.primary_contexts;
    } catch (const fabricmem::Error&) {
        return std::nullopt;  // the real driver, or one that FABRICMEM_FAULTS stands before
    }
}

/// Ends when the starter closes this process's stdin. It kills who does not end then, and ends with it.
void wait_for_end_of_input() {
    std::array<char, 64> ignored{};
    for (;;) {
        const ssize_t got = ::read(STDIN_FILENO, ignored.data(), ignored.size());
        if (got == 0 || (got < 0 && errno != EINTR)) return;
    }
}

bool input_has_ended() {
    pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    return ::poll(&input, 1, 0) > 0;
}

fabricmem::HandshakeOptions handshake_options(const Options& options) {
    fabricmem::HandshakeOptions wanted;
    wanted.rank = options.task->rank;
    wanted.world_size = options.ranks;
    wanted.max_ranks = options.ranks;
    wanted.group = options.task->job;
    wanted.policy = options.policy;
    wanted.placement = options.placement;
    wanted.device = options.task->device;
    // One that hangs is given up while there is time to try again and to say so.
    wanted.import_timeout = std::min<std::chrono::milliseconds>(kLongestImport, options.deadline) / 3;
    return wanted;
}

void meet(const Options& options, const std::shared_ptr<fabricmem::Driver>& driver, Speaker& speaker) {
    const RankTask& task = *options.task;
    const auto store = std::make_shared<WatchedStore>(
        fabricmem::make_store(options.store), hello_key(task.job, task.rank), [&speaker] {
            speaker.say({{"is", "hello"}, {"at_ns", ns_of(Clock::now())}});
        });
    const auto handshake = std::make_shared<fabricmem::Handshake>(driver, handshake_options(options));
    const Clock::time_point made = Clock::now();  // from when on it counts the times of its peers
    fabricmem::StoreExchange exchange(store, handshake,
                                      {.prefix = prefix_of(task.job), .store_timeout = kStoreTimeout});
    const HandshakeReport report = exchange.wait(task.until);
    Json said{{"is", "report"}, {"made_ns", ns_of(made)}, {"at_ns", ns_of(Clock::now())}};
    said.update(to_json(report));
    speaker.say(said);
    wait_for_end_of_input();
    exchange.close();
    handshake->close(Clock::now() + kCloseTimeout);
}

int run(const Options& options, Speaker& speaker) {
    const std::size_t threads_before = count_threads() + kSanitizerThreads;
    const auto driver =
        examples::choose_driver(options.driver, fabricmem::Location::device(options.task->device)).driver;
    meet(options, driver, speaker);
    const std::size_t stuck = fabricmem::stuck_calls(*driver);
    const std::size_t expected = threads_before + stuck;
    Json said{{"is", "closed"}, {"stuck_calls", stuck}, {"threads_before", threads_before}};
    // The real driver keeps threads of its own for as long as the process lives.
    said["threads"] = driver->name() == "emulated" ? count_threads_down_to(expected) : count_threads();
    const auto left = count_left(*driver);
    said["left"] = left ? Json(*left) : Json();
    speaker.say(said);
    return 0;
}

}  // namespace

int run_rank(const Options& options) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (input_has_ended()) return 1;  // whoever started this ended before that call
    // The store's thread may use it for as long as a call of the store hangs.
    static Speaker& speaker = *new Speaker;
    const auto fail = [&](const Json& error) {
        speaker.say({{"is", "failed"}, {"error", error}});
        return 1;
    };
    try {
        return run(options, speaker);
    } catch (const fabricmem::Error& error) {
        return fail(to_json(error));
    } catch (const std::exception& error) {
        return fail({{"kind", "other"}, {"code", 0}, {"text", error.what()}, {"identity", ""}});
    }
}

}  // namespace warmup
