// SPDX-License-Identifier: Apache-2.0
// The library's one exception: what the caller can do, the driver's code, the likely cause and the cure. No CUDA.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include <fabricmem/export.hpp>

namespace fabricmem {

/// What the caller can do. Kinds may be added in any version: keep a `default`.
enum class ErrorKind : std::uint8_t {
    unsupported,     ///< not to be had on this machine or by this process as it is: use other memory
    not_permitted,   ///< the machine could, this process may not: the text says what the administrator has to change
    out_of_memory,   ///< free something and try again; never a reason to use another handle kind
    peer_gone,       ///< the exporter released the memory or is gone: ask it for a new blob
    foreign_domain,  ///< exporter and importer are in different NVLink or IMEX domains: no retry helps
    bad_blob,        ///< the bytes are not a handle blob, or not one that can be imported
    bad_argument,    ///< a mistake of the caller's
    timed_out,       ///< a deadline passed
    system,          ///< the operating system or a service of the machine (the IMEX daemon) has to be mended first
    conflict,        ///< the state of something else forbids it
    closed,          ///< the object was closed or moved from
    driver,          ///< any other failure of a driver call: look at code()
};

/// "not_permitted": the enumerator's name.
[[nodiscard]] FABRICMEM_API std::string_view to_string(ErrorKind kind) noexcept;

/// What an Error is made of. Empty strings and zeros mean "none".
struct ErrorDetails {
    ErrorKind kind = ErrorKind::driver;
    int code = 0;             ///< the driver's CUresult
    std::string call{};       ///< the driver's or the system's call that failed, as "cuMemCreate"
    std::uint64_t bytes = 0;  ///< the size that the call was about
    std::string subject{};    ///< what the call was about, as "device 0"; or, without a call, the whole statement
    std::string cause{};      ///< the likely cause
    std::string cure{};       ///< what to do about it
    std::string identity{};   ///< for imports: who exported and who imports
    std::string check{};      ///< the id of the check that failed, as "FM-CHANNEL-001" (checks.hpp)
};

/// Thrown by everything above the Driver seam, and the only thing thrown there besides std::bad_alloc and what a
/// callback of the caller's throws. Copies are
/// cheap and do not throw.
class FABRICMEM_API Error : public std::runtime_error {
public:
    explicit Error(ErrorDetails details);
    Error(const Error&) noexcept;
    Error& operator=(const Error&) noexcept;
    ~Error() override;

    [[nodiscard]] ErrorKind kind() const noexcept { return details_->kind; }
    /// The driver's CUresult as a number; 0 where no driver call failed.
    [[nodiscard]] int code() const noexcept { return details_->code; }
    [[nodiscard]] const ErrorDetails& details() const noexcept { return *details_; }

private:
    std::shared_ptr<const ErrorDetails> details_;
};

}  // namespace fabricmem
