// SPDX-License-Identifier: Apache-2.0
// mmap and munmap.
#include "emulated/pages.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

namespace fabricmem::detail::emulated {

namespace {

constexpr int kReserveFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

void* as_pointer(std::uintptr_t address) noexcept { return reinterpret_cast<void*>(address); }

std::uintptr_t map_untouchable(std::uintptr_t hint, std::size_t bytes) noexcept {
    void* const made = ::mmap(as_pointer(hint), bytes, PROT_NONE, kReserveFlags, -1, 0);
    return made == MAP_FAILED ? 0 : reinterpret_cast<std::uintptr_t>(made);
}

}  // namespace

std::size_t page_bytes() noexcept {
    static const auto bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return bytes;
}

std::uintptr_t reserve_pages(std::size_t bytes, std::size_t alignment, std::uintptr_t hint) noexcept {
    const std::uintptr_t first = map_untouchable(hint % alignment == 0 ? hint : 0, bytes);
    if (first == 0) return 0;
    if (first % alignment == 0) return first;  // also where another place than the hint was given: a hint is no more
    free_pages(first, bytes);
    const std::size_t total = bytes + alignment;
    const std::uintptr_t begin = map_untouchable(0, total);
    if (begin == 0) return 0;
    const std::uintptr_t address = (begin + alignment - 1) / alignment * alignment;
    if (address != begin) free_pages(begin, address - begin);
    if (const std::size_t tail = begin + total - (address + bytes); tail != 0) free_pages(address + bytes, tail);
    return address;
}

bool free_pages(std::uintptr_t address, std::size_t bytes) noexcept {
    return ::munmap(as_pointer(address), bytes) == 0;
}

bool show_file(std::uintptr_t address, std::size_t bytes, int descriptor, bool writable) noexcept {
    const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    return ::mmap(as_pointer(address), bytes, protection, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, descriptor, 0) !=
           MAP_FAILED;
}

bool hide_pages(std::uintptr_t address, std::size_t bytes) noexcept {
    if (::mmap(as_pointer(address), bytes, PROT_NONE, kReserveFlags | MAP_FIXED, -1, 0) != MAP_FAILED) return true;
    return errno == ENOMEM && ::mprotect(as_pointer(address), bytes, PROT_NONE) == 0;
}

std::uintptr_t allocate_pages(std::size_t bytes) noexcept {
    void* const made = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return made == MAP_FAILED ? 0 : reinterpret_cast<std::uintptr_t>(made);
}

}  // namespace fabricmem::detail::emulated
