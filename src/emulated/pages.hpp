// SPDX-License-Identifier: Apache-2.0
// The three ways in which the emulator uses mmap on addresses that the user sees. Knows no table.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fabricmem::detail::emulated {

[[nodiscard]] std::size_t page_bytes() noexcept;

/// Address space that nobody may touch, at a multiple of `alignment` (a power of two, at least a page), at `hint` where
/// that is free. 0, with errno, where the system refuses. Neighbours merge in the kernel: thousands cost one mapping.
[[nodiscard]] std::uintptr_t reserve_pages(std::size_t bytes, std::size_t alignment, std::uintptr_t hint) noexcept;
/// False, with errno, where the system refuses: giving back the middle of a merged mapping makes one more of it.
bool free_pages(std::uintptr_t address, std::size_t bytes) noexcept;

/// Shows a file's first bytes at reserved addresses, for reading or for both.
[[nodiscard]] bool show_file(std::uintptr_t address, std::size_t bytes, int descriptor, bool writable) noexcept;
/// Makes the addresses untouchable again, with the flags of reserve_pages so that they merge with their neighbours. At
/// the limit of mappings, where the kernel refuses even to replace one, the file stays behind them until they are given
/// back or used again.
bool hide_pages(std::uintptr_t address, std::size_t bytes) noexcept;

/// Ordinary zeroed memory of whole pages; 0 with errno where the system refuses.
[[nodiscard]] std::uintptr_t allocate_pages(std::size_t bytes) noexcept;

}  // namespace fabricmem::detail::emulated
