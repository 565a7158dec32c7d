// SPDX-License-Identifier: Apache-2.0
// Lets the ranks of a job find each other through a Store: publishes this rank's hello, looks for the others' and hands
// them to the Handshake. Knows no engine. No CUDA.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>

#include <fabricmem/export.hpp>
#include <fabricmem/store.hpp>

namespace fabricmem {

class Handshake;         // handshake.hpp
struct HandshakeReport;  // handshake.hpp

namespace detail {
class ExchangeCore;
}

struct StoreExchangeOptions {
    /// Of all keys: "<prefix>/hello/<rank>". One job's, and the same for all its ranks. 1 to 180 bytes.
    std::string prefix{};
    /// Pause between two looks for a peer that is not connected: doubled from the first to the last, and short again
    /// when something new was found.
    std::chrono::milliseconds first_pause{10};
    std::chrono::milliseconds last_pause{500};
    /// Pause between two looks for another incarnation of a connected peer.
    std::chrono::milliseconds connected_pause{5'000};
    /// First pause before a fresh hello is published while peers are missing; doubled each time, up to 32 times it.
    std::chrono::milliseconds republish_pause{1'000};
    /// From when on a call of the store that has not returned is said to hang, and how long close() waits for the
    /// store.
    std::chrono::milliseconds store_timeout{10'000};
};

/// Drives a Handshake, whose rank it takes, from a store: for every rank that the handshake expects, and is not removed
/// from it. The store is called by one thread of the exchange's own, one call at a time: a call that hangs holds up the
/// other keys, and neither poll() nor wait(). What fails is tried again, and is the report of the peer that it was
/// about.
///
/// Two processes of one number: the one that came first learns of it and throws Error{conflict} from then on, without
/// touching the key again; the one that came last is met by the others. A key that a killed process left is replaced.
///
/// Threads: all members may be called from many threads; they take turns. The handshake and the store stay alive with
/// the object, the store for longer where a call of it hangs. After fork() the child's copy does nothing, and its calls
/// throw Error{unsupported}.
class FABRICMEM_API StoreExchange {
public:
    /// Begins nothing: poll() and wait() do. Throws Error{bad_argument} for null, a prefix or a pause that can't be.
    StoreExchange(std::shared_ptr<Store> store, std::shared_ptr<Handshake> handshake, StoreExchangeOptions options);
    StoreExchange(const StoreExchange&) = delete;
    StoreExchange& operator=(const StoreExchange&) = delete;
    /// As close(), but logs in place of throwing.
    ~StoreExchange();

    /// Takes what the store has answered, asks it for what is due, polls the handshake. Never waits for the store.
    /// Returns the number of peers that are neither connected nor failed. Go on calling it where peers that come back
    /// are to be found. Throws Error: conflict (another process has published under this rank's key), closed, system
    /// (no thread can be started), and as Handshake::poll().
    std::size_t poll();
    /// Polls until every peer is connected or failed, or the deadline has come. One that failed for what is under its
    /// key (a process that is gone, no hello, another's) is waited for: the next incarnation replaces that. A peer of
    /// which nothing was heard has then an error that says what the store answered, or that it did not. This rank's own
    /// entry has an error where its hello could not be published. Throws as poll().
    HandshakeReport wait(std::chrono::steady_clock::time_point deadline);

    /// Not before all ranks have met where the handshake has ProofPolicy::trust: a peer may not have read the key yet.
    /// Removes this rank's key if it is still this process's, and ends the thread. Leaves the handshake as it is.
    /// Throws Error{timed_out} where the store does not answer within store_timeout: the key is then removed when the
    /// call that hangs returns, if it does; and what the store throws to the last, where the key may be left behind. It
    /// is closed all the same; a second call does nothing. Any other member throws Error{closed} afterwards.
    void close();

private:
    std::unique_ptr<detail::ExchangeCore> core_;
    std::shared_ptr<Handshake> handshake_;
};

}  // namespace fabricmem
