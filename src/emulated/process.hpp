// SPDX-License-Identifier: Apache-2.0
// What /proc tells of a process, and an owned descriptor. Knows no CUDA.
#pragma once

#include <cstdint>
#include <utility>

namespace fabricmem::detail::emulated {

class FileDescriptor {
public:
    FileDescriptor() noexcept = default;
    explicit FileDescriptor(int number) noexcept : number_(number) {}
    FileDescriptor(FileDescriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
    FileDescriptor& operator=(FileDescriptor&& other) noexcept {
        std::swap(number_, other.number_);
        return *this;
    }
    ~FileDescriptor();

    [[nodiscard]] int get() const noexcept { return number_; }
    [[nodiscard]] bool valid() const noexcept { return number_ >= 0; }
    [[nodiscard]] int release() noexcept { return std::exchange(number_, -1); }

private:
    int number_ = -1;
};

struct ProcessStat {
    enum class Found : std::uint8_t { yes, no, unknown };
    Found found = Found::unknown;
    bool ended = false;       ///< a zombie, or about to be one: it runs no more of its program
    std::uint64_t start = 0;  ///< clock ticks since boot
    int error = 0;            ///< errno, where it could not be read
};

[[nodiscard]] ProcessStat read_process_stat(std::uint32_t process_id) noexcept;

}  // namespace fabricmem::detail::emulated
