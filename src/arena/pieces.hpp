// SPDX-License-Identifier: Apache-2.0
// Ranges of units cut into pieces, each free or used. Knows neither bytes nor memory nor threads.
#pragma once

#include <array>
#include <cstdint>

namespace fabricmem::detail {

/// Pages of zeros that the system gives when they are first touched; unmapped at the end.
class ZeroPages {
public:
    /// Throws Error{out_of_memory}.
    explicit ZeroPages(std::uint64_t bytes);
    ZeroPages(const ZeroPages&) = delete;
    ZeroPages& operator=(const ZeroPages&) = delete;
    ~ZeroPages();

    [[nodiscard]] void* address() const noexcept { return address_; }

private:
    std::uint64_t bytes_;
    void* address_;
};

/// Good fit, in constant time: free pieces are listed by size class (32 to each power of two, exact below 32 units),
/// and bitmaps find the first class all of whose pieces are large enough. Only where there is none are pieces looked
/// through one by one, so that no piece that fits is missed. Free neighbours are joined at once: no two free pieces of
/// a range touch.
class Pieces {
public:
    static constexpr std::uint64_t kUnitsMax = std::uint64_t{1} << 41;
    static constexpr std::uint32_t kUsedMax = std::uint32_t{1} << 25;
    static constexpr std::uint32_t kNone = 0;

    struct Taken {
        std::uint32_t piece = kNone;  ///< kNone: no piece fits
        std::uint64_t begin = 0;      ///< in units
    };

    /// Of no range yet. At most `used_max` pieces (1 to kUsedMax) may be used at once, and at most two of its ranges
    /// may be free as a whole, which the caller sees to. Throws Error{out_of_memory}.
    explicit Pieces(std::uint64_t used_max);

    /// A range of 1 to kUnitsMax units, all free. It is joined with no other, also where they touch.
    void add(std::uint64_t begin, std::uint64_t units) noexcept;
    /// Takes out a range that was taken as one piece.
    void remove(std::uint32_t piece) noexcept;

    /// `units` (at least 1) at a multiple of `alignment` (in units, a power of two), both at most kUnitsMax.
    [[nodiscard]] Taken take(std::uint64_t units, std::uint64_t alignment) noexcept;
    /// Frees a piece that was taken. Returns its units.
    std::uint64_t give_back(std::uint32_t piece) noexcept;
    [[nodiscard]] std::uint64_t largest_free() const noexcept;

    // A piece that is used is in no list, so its owner may string it on one, and note a number in it, while other
    // threads work with the pieces.
    void string(std::uint32_t piece, std::uint32_t next, std::uint32_t note) noexcept {
        pieces_[piece].next = next;
        pieces_[piece].previous = note;
    }
    [[nodiscard]] std::uint32_t next_on_string(std::uint32_t piece) const noexcept { return pieces_[piece].next; }
    [[nodiscard]] std::uint32_t note(std::uint32_t piece) const noexcept { return pieces_[piece].previous; }
    /// Has the cache fetch it, for a write.
    void expect(std::uint32_t piece) const noexcept { __builtin_prefetch(&pieces_[piece], 1); }
    /// Whether there is a free piece of so many units, a power of two; where no range has more.
    [[nodiscard]] bool largest_is(std::uint64_t units) const noexcept { return heads_[class_of(units)] != kNone; }

private:
    static constexpr unsigned kClassesLog2 = 5;  // to a power of two
    static constexpr unsigned kClasses = (42 - kClassesLog2 + 1) << kClassesLog2;
    static constexpr unsigned kWords = (kClasses + 63) / 64;

    static constexpr std::uint64_t kFree = std::uint64_t{1} << 63;
    // Numbered; number 0 is both ends of every range and of every list: always used, and written to without need to
    // look.
    struct Piece {
        std::uint64_t begin;
        std::uint64_t units;   // with kFree while it is listed
        std::uint32_t before;  // neighbours in the range
        std::uint32_t after;
        std::uint32_t previous;  // in the list of its class, while it is free
        std::uint32_t next;      // there, or in the list of spare numbers
    };
    static_assert(sizeof(Piece) == 32, "two to a cache line");

    [[nodiscard]] static unsigned class_of(std::uint64_t units) noexcept;
    /// The first class all of whose pieces have at least `units`; may be kClasses or more.
    [[nodiscard]] static unsigned fitting_class(std::uint64_t units) noexcept;
    [[nodiscard]] unsigned first_filled(unsigned at_least) const noexcept;

    [[nodiscard]] bool fits(const Piece& piece, std::uint64_t units, std::uint64_t alignment) const noexcept;
    [[nodiscard]] std::uint32_t find(std::uint64_t units, std::uint64_t alignment) const noexcept;
    [[nodiscard]] std::uint32_t find_one_by_one(std::uint64_t units, std::uint64_t alignment) const noexcept;

    [[nodiscard]] std::uint32_t new_number() noexcept;
    void spare(std::uint32_t number) noexcept;
    void list(std::uint32_t number) noexcept;
    void unlist(std::uint32_t number) noexcept;
    /// Cuts the first `units` off a piece that is not listed, as a piece before it; listed by neither.
    std::uint32_t cut_front(std::uint32_t number, std::uint64_t units) noexcept;
    /// Joins a piece with the one after it; neither is listed.
    void join_after(std::uint32_t number) noexcept;

    ZeroPages pages_;
    Piece* pieces_;
    std::uint32_t spare_ = kNone;  // numbers that were used before
    std::uint32_t fresh_ = 1;      // the first that never was
    std::uint64_t filled_words_ = 0;
    std::array<std::uint64_t, kWords> filled_{};
    std::array<std::uint32_t, kClasses> heads_{};
};

}  // namespace fabricmem::detail
