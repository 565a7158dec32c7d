// SPDX-License-Identifier: Apache-2.0
// What stands in the files of /proc and in ids, read from their text. Nothing of it is trusted: what is cut short or
// nonsense is nullopt. Opens no file.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <fabricmem/types.hpp>

namespace fabricmem::detail {

/// A decimal number that is the whole of `text`.
template <typename Number>
[[nodiscard]] std::optional<Number> parse_number(std::string_view text) {
    Number number{};
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{} || stop != end) return std::nullopt;
    return number;
}

/// 32 hexadecimal digits, or a UUID of 8-4-4-4-12, and at most a line end after it. All zeros name nothing.
[[nodiscard]] std::optional<Id128> parse_id(std::string_view text);

/// What is read of /proc/PID/stat.
struct ProcessStat {
    char state = 0;
    std::uint64_t threads = 0;
    std::uint64_t start = 0;
};
[[nodiscard]] std::optional<ProcessStat> parse_stat(std::string_view text);

/// The number of the file "channelN"; nullopt for any other name.
[[nodiscard]] std::optional<int> parse_channel_name(std::string_view name);

/// The major number in a line "NNN nvidia-caps-imex-channels" of /proc/devices.
[[nodiscard]] std::optional<unsigned int> parse_channel_major(std::string_view devices);

/// The version in /proc/driver/nvidia/version, of either kernel module: "580.159.04"; empty: not known.
[[nodiscard]] std::string parse_module_version(std::string_view version);

/// The number in a line "NAME: NNN" of /proc/driver/nvidia/params.
[[nodiscard]] std::optional<std::uint32_t> parse_module_parameter(std::string_view params, std::string_view name);

}  // namespace fabricmem::detail
