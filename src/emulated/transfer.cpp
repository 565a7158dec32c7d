// SPDX-License-Identifier: Apache-2.0
// pread and pwrite for bulk, atomics on the alias for words.
#include "emulated/transfer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <vector>

#include "emulated/numbers.hpp"
#include "emulated/pages.hpp"

namespace fabricmem::detail::emulated {

namespace {

constexpr std::size_t kBounceBytes = std::size_t{1} << 20;

std::byte* host_pointer(std::uint64_t address) noexcept { return reinterpret_cast<std::byte*>(address); }

// Where this process can reach the piece's first byte without a system call; null where it can't.
std::byte* direct(const Piece& piece) noexcept {
    if (!piece.memory) return host_pointer(piece.offset);
    std::byte* const alias = piece.memory->alias_if_made();
    return alias == nullptr ? nullptr : alias + piece.offset;
}

bool is_word(std::uint64_t address, std::size_t bytes) noexcept {
    return (bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8) && address % bytes == 0;
}

template <typename Word>
void store_at(std::byte* address, std::uint64_t value) noexcept {
    std::atomic_ref<Word>(*reinterpret_cast<Word*>(address)).store(static_cast<Word>(value), std::memory_order_release);
}

template <typename Word>
std::uint64_t load_at(std::byte* address) noexcept {
    return std::atomic_ref<Word>(*reinterpret_cast<Word*>(address)).load(std::memory_order_acquire);
}

void store_any(std::byte* address, std::size_t bytes, std::uint64_t value) noexcept {
    if (!is_word(reinterpret_cast<std::uintptr_t>(address), bytes)) {
        for (std::size_t i = 0; i < bytes; ++i) address[i] = static_cast<std::byte>(value >> (8 * i));
        return;
    }
    switch (bytes) {
        case 1: return store_at<std::uint8_t>(address, value);
        case 2: return store_at<std::uint16_t>(address, value);
        case 4: return store_at<std::uint32_t>(address, value);
        default: return store_at<std::uint64_t>(address, value);
    }
}

std::uint64_t load_any(std::byte* address, std::size_t bytes) noexcept {
    if (!is_word(reinterpret_cast<std::uintptr_t>(address), bytes)) {
        std::uint64_t value = 0;
        for (std::size_t i = 0; i < bytes; ++i) value |= std::to_integer<std::uint64_t>(address[i]) << (8 * i);
        return value;
    }
    switch (bytes) {
        case 1: return load_at<std::uint8_t>(address);
        case 2: return load_at<std::uint16_t>(address);
        case 4: return load_at<std::uint32_t>(address);
        default: return load_at<std::uint64_t>(address);
    }
}

// A later word store has release order, but a flag may also be the last bytes of a bulk copy, and Grace reorders plain
// stores. ThreadSanitizer knows no fences, and needs none: it does not see what another process does.
void order_bulk() noexcept {
#if !defined(__SANITIZE_THREAD__)
    std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

CUresult io_failure(const char* call) noexcept {
    // EFAULT: the host side of the copy is not readable or writable memory.
    return errno == EFAULT ? CUDA_ERROR_INVALID_VALUE : out_of_memory(call, errno);
}

CUresult write_file(const Piece& to, std::uint64_t skip, const std::byte* from, std::size_t bytes) noexcept {
    while (bytes != 0) {
        const ssize_t done = ::pwrite(to.memory->descriptor(), from, bytes, static_cast<off_t>(to.offset + skip));
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return io_failure("pwrite");
        from += done;
        skip += static_cast<std::size_t>(done);
        bytes -= static_cast<std::size_t>(done);
    }
    return CUDA_SUCCESS;
}

CUresult read_file(const Piece& from, std::uint64_t skip, std::byte* to, std::size_t bytes) noexcept {
    while (bytes != 0) {
        const ssize_t done = ::pread(from.memory->descriptor(), to, bytes, static_cast<off_t>(from.offset + skip));
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return io_failure("pread");
        to += done;
        skip += static_cast<std::size_t>(done);
        bytes -= static_cast<std::size_t>(done);
    }
    return CUDA_SUCCESS;
}

CUresult copy_through_buffer(const Piece& to, const Piece& from) {
    std::vector<std::byte> buffer(std::min(kBounceBytes, to.bytes));
    for (std::uint64_t done = 0; done < to.bytes;) {
        const std::size_t bytes = std::min<std::uint64_t>(buffer.size(), to.bytes - done);
        CUresult result = read_file(from, done, buffer.data(), bytes);
        if (result == CUDA_SUCCESS) result = write_file(to, done, buffer.data(), bytes);
        if (result != CUDA_SUCCESS) return result;
        done += bytes;
    }
    return CUDA_SUCCESS;
}

// A word's address for atomics; null where there is no alias.
std::byte* word_address(const Piece& piece) noexcept {
    if (!piece.memory) return host_pointer(piece.offset);
    std::byte* const alias = piece.memory->alias();
    return alias == nullptr ? nullptr : alias + piece.offset;
}

CUresult copy_word(const Piece& to, const Piece& from) noexcept {
    std::byte* const target = word_address(to);
    std::byte* const origin = word_address(from);
    if (target == nullptr || origin == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    store_any(target, to.bytes, load_any(origin, from.bytes));
    return CUDA_SUCCESS;
}

// Of equal size.
CUresult copy_one(const Piece& to, const Piece& from) {
    // The side that others watch decides; a misaligned host side is copied byte by byte.
    if ((to.memory || from.memory) && (!to.memory || is_word(to.offset, to.bytes)) &&
        (!from.memory || is_word(from.offset, from.bytes))) {
        return copy_word(to, from);
    }
    std::byte* const target = direct(to);
    const std::byte* const origin = direct(from);
    // invented: bytes that overlap are copied as memmove does where that is cheap; the driver promises nothing.
    if (to.memory && from.memory && target == nullptr && origin == nullptr) return copy_through_buffer(to, from);
    if (to.memory && (target == nullptr || !from.memory)) return write_file(to, 0, origin, to.bytes);
    if (from.memory && (origin == nullptr || !to.memory)) return read_file(from, 0, target, to.bytes);
    std::memmove(target, origin, to.bytes);
    return CUDA_SUCCESS;
}

void fill(std::byte* to, std::size_t bytes, std::uint32_t value, unsigned int width) noexcept {
    if (width == 1) {
        std::memset(to, static_cast<unsigned char>(value), bytes);
        return;
    }
    for (std::size_t i = 0; i < bytes; ++i) to[i] = static_cast<std::byte>(value >> (8 * (i % width)));
}

CUresult set_one(const Piece& to, std::uint32_t value, unsigned int width) {
    if (!to.memory) {
        fill(host_pointer(to.offset), to.bytes, value, width);
        return CUDA_SUCCESS;
    }
    // A single word may be somebody's flag.
    if (width != 1 && to.bytes == width) return store_word(to, width, value);
    std::uint64_t done = 0;
    if (value == 0 && to.bytes >= kGranularity) {
        // Zeros of whole pages are had by giving the pages back: no memory is taken for them.
        const std::size_t page = page_bytes();
        const std::uint64_t begin = (to.offset + page - 1) / page * page;
        const std::uint64_t end = (to.offset + to.bytes) / page * page;
        if (::fallocate(to.memory->descriptor(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin),
                        static_cast<off_t>(end - begin)) == 0) {
            const Piece head{to.memory, nullptr, to.offset, static_cast<std::size_t>(begin - to.offset)};
            const Piece tail{to.memory, nullptr, end, static_cast<std::size_t>(to.offset + to.bytes - end)};
            const CUresult result = head.bytes == 0 ? CUDA_SUCCESS : set_one(head, value, width);
            return result != CUDA_SUCCESS || tail.bytes == 0 ? result : set_one(tail, value, width);
        }
    }
    std::vector<std::byte> buffer(std::min(kBounceBytes, to.bytes));
    fill(buffer.data(), buffer.size(), value, width);
    while (done < to.bytes) {
        const std::size_t bytes = std::min<std::uint64_t>(buffer.size(), to.bytes - done);
        if (const CUresult result = write_file(to, done, buffer.data(), bytes); result != CUDA_SUCCESS) return result;
        done += bytes;
    }
    return CUDA_SUCCESS;
}

}  // namespace

CUresult copy_pieces(const Pieces& destination, const Pieces& source) {
    order_bulk();
    std::size_t to_index = 0;
    std::size_t from_index = 0;
    std::uint64_t to_done = 0;
    std::uint64_t from_done = 0;
    while (to_index < destination.size() && from_index < source.size()) {
        Piece to = destination[to_index];
        Piece from = source[from_index];
        const std::size_t bytes = std::min<std::uint64_t>(to.bytes - to_done, from.bytes - from_done);
        to.offset += to_done;
        from.offset += from_done;
        to.bytes = from.bytes = bytes;
        if (const CUresult result = copy_one(to, from); result != CUDA_SUCCESS) return result;
        to_done += bytes;
        from_done += bytes;
        if (to_done == destination[to_index].bytes) to_done = 0, ++to_index;
        if (from_done == source[from_index].bytes) from_done = 0, ++from_index;
    }
    order_bulk();
    return CUDA_SUCCESS;
}

CUresult set_pieces(const Pieces& destination, std::uint32_t value, unsigned int width) {
    order_bulk();
    for (const Piece& piece : destination) {
        if (const CUresult result = set_one(piece, value, width); result != CUDA_SUCCESS) return result;
    }
    order_bulk();
    return CUDA_SUCCESS;
}

CUresult store_word(const Piece& piece, unsigned int width, std::uint64_t value) noexcept {
    if (piece.bytes != width || piece.offset % width != 0) return CUDA_ERROR_INVALID_VALUE;
    std::byte* const address = word_address(piece);
    if (address == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    store_any(address, width, value);
    return CUDA_SUCCESS;
}

CUresult load_word(const Piece& piece, unsigned int width, std::uint64_t* value) noexcept {
    if (piece.bytes != width || piece.offset % width != 0) return CUDA_ERROR_INVALID_VALUE;
    std::byte* const address = word_address(piece);
    if (address == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    *value = load_any(address, width);
    return CUDA_SUCCESS;
}

}  // namespace fabricmem::detail::emulated
