// SPDX-License-Identifier: Apache-2.0
// The thread that calls a store, which may hang: whoever asks it never waits for it. Knows what is under a rank's key
// by its bytes alone.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <fabricmem/error.hpp>
#include <fabricmem/store.hpp>

namespace fabricmem::detail {

/// What is asked of the store, and, once it is done, what came of it.
struct StoreTask {
    enum class What : std::uint8_t { look, publish };
    enum class Outcome : std::uint8_t {
        failed,   ///< error, or none where even that could not be had
        absent,   ///< of a look
        found,    ///< of a look: value
        kept,     ///< of a publishing: value is there
        foreign,  ///< of a publishing: another process has published under the key since; it was left alone
        changed,  ///< of a publishing: the key changed under it; again
    };

    What what = What::look;
    std::uint32_t rank = 0;
    std::vector<std::byte> value{};
    Outcome outcome = Outcome::failed;
    std::optional<Error> error{};
};

/// One call at a time, in a thread that ends with end(). The thread owns the worker, and with it the store, for as long
/// as a call hangs. Thread-safe; not for forked children.
class StoreWorker : public std::enable_shared_from_this<StoreWorker> {
public:
    StoreWorker(std::shared_ptr<Store> store, std::string prefix, std::uint32_t rank);
    StoreWorker(const StoreWorker&) = delete;
    StoreWorker& operator=(const StoreWorker&) = delete;
    ~StoreWorker() = default;

    /// Starts the thread with the first task. Throws Error{system} where there is none to be had, and std::bad_alloc;
    /// nothing is asked then. A publishing comes before all looks.
    void ask(StoreTask task);
    [[nodiscard]] std::list<StoreTask> take_done();
    /// False at the time.
    bool wait_for_done(std::chrono::steady_clock::time_point until);

    /// The call that the thread is in.
    struct Call {
        const char* name = nullptr;  ///< null: in none
        std::string key{};
        std::chrono::steady_clock::time_point since{};
    };
    [[nodiscard]] Call current() const;

    /// Drops what was not begun, removes this rank's key if it is ours, tried again until the deadline, and ends the
    /// thread. What came of it: Error{timed_out} where a call has not returned at the deadline (then all that is done
    /// when it does), the store's own error, or none. Once.
    [[nodiscard]] std::optional<Error> end(std::chrono::steady_clock::time_point deadline);

    [[nodiscard]] std::string key_of(std::uint32_t rank) const;

private:
    void work() noexcept;
    void run(StoreTask& task) noexcept;
    void look(StoreTask& task);
    void publish(StoreTask& task);
    bool replace(const std::vector<std::byte>& there, const std::vector<std::byte>& value);
    void withdraw() noexcept;
    void try_to_withdraw();

    [[nodiscard]] bool is_ours(const std::vector<std::byte>& value);
    void remember(const std::vector<std::byte>& value);
    [[nodiscard]] std::optional<std::vector<std::byte>> get(const std::string& key);
    // Every call of the store goes through here. Throws Error alone, and std::bad_alloc.
    template <typename Work>
    auto call(const char* name, const std::string& key, Work&& work);

    const std::string prefix_;
    const std::string own_key_;

    // The thread's alone.
    std::shared_ptr<Store> store_;
    std::deque<std::vector<std::byte>> ours_;  // what may be under our key from us: the last few set or seen there
    bool published_ = false;

    mutable std::mutex mutex_;  // guards all below
    std::condition_variable asked_;
    std::condition_variable done_changed_;
    std::list<StoreTask> queue_;
    std::list<StoreTask> done_;
    Call current_;
    bool started_ = false;
    bool ending_ = false;
    bool ended_ = false;
    bool given_up_ = false;  // by end()
    std::chrono::steady_clock::time_point end_deadline_{};
    std::optional<Error> end_error_;
};

}  // namespace fabricmem::detail
