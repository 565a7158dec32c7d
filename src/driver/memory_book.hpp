// SPDX-License-Identifier: Apache-2.0
// Which buffers of a driver are open, and what became of those that could not be taken down. Makes no driver call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include <fabricmem/handle_blob.hpp>
#include <fabricmem/memory_report.hpp>
#include <fabricmem/types.hpp>

namespace fabricmem::detail {

enum class BufferOrigin : std::uint8_t { own, imported };

/// A buffer's place in the book: part of the buffer, so that entering it takes no memory and can't fail.
struct BookEntry {
    BookEntry() = default;
    BookEntry(const BookEntry&) = delete;
    BookEntry& operator=(const BookEntry&) = delete;

    // Set before it is entered, and not changed while it is.
    BufferOrigin origin = BufferOrigin::own;
    std::uintptr_t base = 0;
    Location location = Location::device(0);
    HandleKinds kinds;
    const HandleBlob* blob = nullptr;  // the buffer's

    // The book's.
    bool entered = false;
    BookEntry* previous = nullptr;
    BookEntry* next = nullptr;
};

/// What is counted whether somebody asks or not.
struct BookTotals {
    struct Side {
        std::uint64_t made = 0;  // since the driver was made
        std::uint64_t live = 0;
        std::uint64_t bytes = 0;
        std::uint64_t peak_bytes = 0;
    };
    Side own;
    Side imported;
    std::uint64_t given_up = 0;
    std::uint64_t given_up_bytes = 0;
    std::uint64_t failed_tear_downs = 0;
    std::uint64_t failed_tear_down_bytes = 0;
};

/// A memory that an address is in, as its buffer tells it.
struct BookAnswer {
    BufferOrigin origin;
    LiveMemory memory;
};

/// Thread-safe. Not for forked children, where the lock may be held by a thread that there is not.
class MemoryBook {
public:
    MemoryBook() = default;
    MemoryBook(const MemoryBook&) = delete;
    MemoryBook& operator=(const MemoryBook&) = delete;

    void enter(BookEntry& entry) noexcept;
    /// Nothing where it is not entered.
    void leave(BookEntry& entry) noexcept;
    void add_given_up(std::uint64_t bytes) noexcept;
    void add_failed_tear_down(std::uint64_t bytes) noexcept;

    /// The open buffer that the address is in; goes through all of them.
    [[nodiscard]] std::optional<BookAnswer> find(std::uintptr_t address) const;
    /// The id of the open buffer of this process's own whose handle that is: the same memory, mapped elsewhere.
    [[nodiscard]] std::optional<Id128> own_id_of(std::span<const std::uint8_t, HandleBlob::kHandleBytes> handle) const;
    [[nodiscard]] BookTotals totals() const;
    /// Fills in all but what the book does not know.
    void fill(MemoryReport& report) const;

private:
    [[nodiscard]] BookTotals::Side& side(BufferOrigin origin) noexcept {
        return origin == BufferOrigin::own ? totals_.own : totals_.imported;
    }

    mutable std::mutex mutex_;  // guards all below
    BookEntry* first_ = nullptr;
    BookEntry* last_ = nullptr;
    BookTotals totals_;
};

}  // namespace fabricmem::detail
