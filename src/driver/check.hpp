// SPDX-License-Identifier: Apache-2.0
// The one way from a CUresult to an Error: call and code, with what the platform knows, become cause and cure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include <fabricmem/driver.hpp>
#include <fabricmem/error.hpp>
#include <fabricmem/handle_blob.hpp>
#include <fabricmem/types.hpp>

namespace fabricmem::detail {

/// What a call was about, for the text of its failure.
struct CallContext {
    std::string_view call;
    std::uint64_t bytes = 0;
    std::optional<Location> location{};
    const HandleBlob*
        imported{};  // set for every call of an import: its failures are explained by both sides' identity
};

[[noreturn]] void raise(CUresult result, Driver& driver, const CallContext& context);

inline void check(CUresult result, Driver& driver, const CallContext& context) {
    if (result != CUDA_SUCCESS) [[unlikely]]
        raise(result, driver, context);
}

/// The same with a context that is only put together for a failure: the calls of a buffer's making come right after one
/// that empties the CPU's caches, where each line of code and data counts.
template <typename MakeContext>
requires std::is_invocable_r_v<CallContext, MakeContext>
void check(CUresult result, Driver& driver, MakeContext&& make_context) {
    if (result != CUDA_SUCCESS) [[unlikely]]
        raise(result, driver, make_context());
}

/// The Error that raise() throws.
[[nodiscard]] Error explain(CUresult result, Driver& driver, const CallContext& context);

/// For destructors: a failed release is logged, not hidden.
void log_failure(std::string_view call, std::uint64_t bytes, CUresult result) noexcept;

/// "host 4f…, boot 7a…, process 123 (namespace 4026531836), device GPU-…, cluster …/clique 1, IMEX channel 0"
[[nodiscard]] std::string describe_exporter(const HandleBlob& blob);
[[nodiscard]] std::string describe_importer(Driver& driver);
/// As far as it is known by now: makes no call of the driver's or the platform's.
[[nodiscard]] std::string describe_known_importer(const Driver& driver);

[[nodiscard]] Location location_of(const CUmemAllocationProp& properties) noexcept;

}  // namespace fabricmem::detail
