// SPDX-License-Identifier: Apache-2.0
// Composes the text of an Error. Knows the names of CUresult values by number, not CUDA.
#include <fabricmem/error.hpp>

#include <utility>

#include "error/result_name.hpp"
#include "text/text.hpp"

namespace fabricmem {
namespace {

std::string compose(const ErrorDetails& details) {
    std::string text;
    if (details.call.empty()) {
        text = details.subject;
    } else {
        text = details.call;
        if (details.bytes != 0) text += detail::formatted(" of {} bytes", details.bytes);
        if (!details.subject.empty()) text += detail::formatted(" ({})", details.subject);
        text += " failed";
        if (details.code != 0) text += detail::formatted(": {} ({})", detail::result_name(details.code), details.code);
    }
    if (!details.cause.empty()) text += detail::formatted(". Cause: {}", details.cause);
    if (!details.cure.empty()) text += detail::formatted(". Cure: {}", details.cure);
    if (!details.check.empty()) text += detail::formatted(". Check: {}", details.check);
    if (!details.identity.empty()) text += detail::formatted(". {}", details.identity);
    return text;
}

}  // namespace

std::string_view to_string(ErrorKind kind) noexcept {
    switch (kind) {
        case ErrorKind::unsupported: return "unsupported";
        case ErrorKind::not_permitted: return "not_permitted";
        case ErrorKind::out_of_memory: return "out_of_memory";
        case ErrorKind::peer_gone: return "peer_gone";
        case ErrorKind::foreign_domain: return "foreign_domain";
        case ErrorKind::bad_blob: return "bad_blob";
        case ErrorKind::bad_argument: return "bad_argument";
        case ErrorKind::timed_out: return "timed_out";
        case ErrorKind::system: return "system";
        case ErrorKind::conflict: return "conflict";
        case ErrorKind::closed: return "closed";
        case ErrorKind::driver: return "driver";
    }
    return "unknown";
}

Error::Error(ErrorDetails details)
    : std::runtime_error(compose(details)), details_(std::make_shared<const ErrorDetails>(std::move(details))) {}
Error::Error(const Error&) noexcept = default;
Error& Error::operator=(const Error&) noexcept = default;
Error::~Error() = default;

}  // namespace fabricmem
