// SPDX-License-Identifier: Apache-2.0
#include "arena/pieces.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include <fabricmem/error.hpp>

namespace fabricmem::detail {
namespace {

void* map_zero_pages(std::uint64_t bytes) {
    void* const address =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address != MAP_FAILED) return address;
    throw Error({.kind = ErrorKind::out_of_memory,
                 .call = "mmap",
                 .bytes = bytes,
                 .subject = "the bookkeeping of an arena",
                 .cause = std::strerror(errno),
                 .cure = "make the arena with a smaller ArenaOptions::max_blocks"});
}

std::uint64_t rounded_up(std::uint64_t value, std::uint64_t power_of_two) noexcept {
    return (value + power_of_two - 1) & ~(power_of_two - 1);
}

}  // namespace

ZeroPages::ZeroPages(std::uint64_t bytes) : bytes_(bytes), address_(map_zero_pages(bytes)) {}
ZeroPages::~ZeroPages() { ::munmap(address_, bytes_); }

// Between two free pieces of a range there is a used one: that is one free piece more than used ones at most in each of
// the ranges, of which there are two more than used pieces at most. And number 0.
Pieces::Pieces(std::uint64_t used_max)
    : pages_((3 * used_max + 5) * sizeof(Piece)), pieces_(static_cast<Piece*>(pages_.address())) {}

void Pieces::add(std::uint64_t begin, std::uint64_t units) noexcept {
    const std::uint32_t whole = new_number();
    pieces_[whole] = {
        .begin = begin, .units = units, .before = kNone, .after = kNone, .previous = kNone, .next = kNone};
    list(whole);
}

void Pieces::remove(std::uint32_t piece) noexcept { spare(piece); }

unsigned Pieces::class_of(std::uint64_t units) noexcept {
    if (units < (1U << kClassesLog2)) return static_cast<unsigned>(units);
    const auto log2 = static_cast<unsigned>(std::bit_width(units)) - 1;
    const auto within = static_cast<unsigned>(units >> (log2 - kClassesLog2)) & ((1U << kClassesLog2) - 1);
    return ((log2 - kClassesLog2 + 1) << kClassesLog2) + within;
}

unsigned Pieces::fitting_class(std::uint64_t units) noexcept {
    if (units < (1U << kClassesLog2)) return static_cast<unsigned>(units);
    const auto log2 = static_cast<unsigned>(std::bit_width(units)) - 1;
    return class_of(units + (std::uint64_t{1} << (log2 - kClassesLog2)) - 1);
}

unsigned Pieces::first_filled(unsigned at_least) const noexcept {
    if (at_least >= kClasses) return kClasses;
    const unsigned word = at_least / 64;
    if (const std::uint64_t here = filled_[word] & (~std::uint64_t{0} << (at_least % 64)); here != 0)
        return word * 64 + static_cast<unsigned>(std::countr_zero(here));
    const std::uint64_t later = filled_words_ & (~std::uint64_t{1} << word);
    if (later == 0) return kClasses;
    const auto next = static_cast<unsigned>(std::countr_zero(later));
    return next * 64 + static_cast<unsigned>(std::countr_zero(filled_[next]));
}

bool Pieces::fits(const Piece& piece, std::uint64_t units, std::uint64_t alignment) const noexcept {
    return rounded_up(piece.begin, alignment) + units <= piece.begin + (piece.units & ~kFree);
}

std::uint32_t Pieces::find(std::uint64_t units, std::uint64_t alignment) const noexcept {
    // The best class first: what is aligned by chance needs no room to move.
    if (const unsigned found = first_filled(fitting_class(units)); found < kClasses) {
        if (fits(pieces_[heads_[found]], units, alignment)) return heads_[found];
        const unsigned roomy = first_filled(fitting_class(units + alignment - 1));
        if (roomy < kClasses) return heads_[roomy];
    }
    return find_one_by_one(units, alignment);
}

std::uint32_t Pieces::find_one_by_one(std::uint64_t units, std::uint64_t alignment) const noexcept {
    for (unsigned found = first_filled(class_of(units)); found < kClasses; found = first_filled(found + 1)) {
        for (std::uint32_t number = heads_[found]; number != kNone; number = pieces_[number].next)
            if (fits(pieces_[number], units, alignment)) return number;
    }
    return kNone;
}

Pieces::Taken Pieces::take(std::uint64_t units, std::uint64_t alignment) noexcept {
    std::uint32_t number = find(units, alignment);
    if (number == kNone) return {};
    unlist(number);
    const std::uint64_t begin = rounded_up(pieces_[number].begin, alignment);
    if (begin != pieces_[number].begin) list(cut_front(number, begin - pieces_[number].begin));
    if (pieces_[number].units != units) {
        const std::uint32_t rest = number;
        number = cut_front(rest, units);
        list(rest);
    }
    return {number, begin};
}

std::uint64_t Pieces::give_back(std::uint32_t piece) noexcept {
    const std::uint64_t units = pieces_[piece].units;
    const std::uint32_t before = pieces_[piece].before;
    const std::uint32_t after = pieces_[piece].after;
    if ((pieces_[after].units & kFree) != 0) {
        unlist(after);
        join_after(piece);
    }
    if ((pieces_[before].units & kFree) != 0) {
        unlist(before);
        join_after(before);
        piece = before;
    }
    list(piece);
    return units;
}

std::uint64_t Pieces::largest_free() const noexcept {
    if (filled_words_ == 0) return 0;
    const auto word = static_cast<unsigned>(std::bit_width(filled_words_)) - 1;
    const unsigned last = word * 64 + static_cast<unsigned>(std::bit_width(filled_[word])) - 1;
    if (last < (1U << kClassesLog2)) return last;  // all are of one size there
    std::uint64_t largest = 0;
    for (std::uint32_t number = heads_[last]; number != kNone; number = pieces_[number].next)
        largest = std::max(largest, pieces_[number].units & ~kFree);
    return largest;
}

std::uint32_t Pieces::new_number() noexcept {
    if (spare_ == kNone) return fresh_++;
    const std::uint32_t number = spare_;
    spare_ = pieces_[number].next;
    return number;
}

void Pieces::spare(std::uint32_t number) noexcept {
    pieces_[number].next = spare_;
    spare_ = number;
}

void Pieces::list(std::uint32_t number) noexcept {
    Piece& piece = pieces_[number];
    const unsigned where = class_of(piece.units);
    const std::uint32_t head = heads_[where];
    piece.units |= kFree;
    piece.previous = kNone;
    piece.next = head;
    pieces_[head].previous = number;
    heads_[where] = number;
    filled_[where / 64] |= std::uint64_t{1} << (where % 64);
    filled_words_ |= std::uint64_t{1} << (where / 64);
}

void Pieces::unlist(std::uint32_t number) noexcept {
    Piece& piece = pieces_[number];
    piece.units &= ~kFree;
    pieces_[piece.next].previous = piece.previous;
    if (piece.previous != kNone) {
        pieces_[piece.previous].next = piece.next;
        return;
    }
    const unsigned where = class_of(piece.units);
    heads_[where] = piece.next;
    if (piece.next != kNone) return;
    filled_[where / 64] &= ~(std::uint64_t{1} << (where % 64));
    if (filled_[where / 64] == 0) filled_words_ &= ~(std::uint64_t{1} << (where / 64));
}

std::uint32_t Pieces::cut_front(std::uint32_t number, std::uint64_t units) noexcept {
    const std::uint32_t front = new_number();
    Piece& piece = pieces_[number];
    pieces_[front].begin = piece.begin;
    pieces_[front].units = units;
    pieces_[front].before = piece.before;
    pieces_[front].after = number;
    pieces_[piece.before].after = front;
    piece.before = front;
    piece.begin += units;
    piece.units -= units;
    return front;
}

void Pieces::join_after(std::uint32_t number) noexcept {
    Piece& piece = pieces_[number];
    const std::uint32_t after = piece.after;
    piece.units += pieces_[after].units;
    piece.after = pieces_[after].after;
    pieces_[piece.after].before = number;
    spare(after);
}

}  // namespace fabricmem::detail
