// SPDX-License-Identifier: Apache-2.0
// For the start of a thread of the library's own: the application's signals are not for it. Knows no CUDA.
#pragma once

#include <pthread.h>
#include <signal.h>

namespace fabricmem::detail {

/// Blocks all signals of the calling thread for the scope: a thread that is started meanwhile has them blocked for
/// life.
class SignalsBlocked {
public:
    SignalsBlocked() noexcept {
        sigset_t all;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;
    ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

private:
    sigset_t before_{};
};

}  // namespace fabricmem::detail
