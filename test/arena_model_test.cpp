// SPDX-License-Identifier: Apache-2.0
// Random blocks of an arena beside a slow and plain model of it.
#include <fabricmem/arena.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include <fabricmem/emulated_driver.hpp>

#include "support/buffers.hpp"
#include "support/build.hpp"
#include "support/test.hpp"

using namespace fabricmem;
using namespace fabricmem::test;

namespace {

constexpr std::uint64_t kUnit = 64;

std::uint64_t rounded_up(std::uint64_t value, std::uint64_t to) { return (value + to - 1) / to * to; }

// What is taken, as begin and end of ranges rounded to units; slow and plain.
class Model {
public:
    explicit Model(std::uint64_t capacity) : capacity_(capacity) {}

    // False where it touches what is taken already, or leaves the arena.
    bool take(std::uint64_t offset, std::uint64_t bytes) {
        const std::uint64_t end = offset + rounded_up(bytes, kUnit);
        const auto after = taken_.lower_bound(offset);
        if (end > capacity_ || (after != taken_.end() && after->first < end)) return false;
        if (after != taken_.begin() && std::prev(after)->second.end > offset) return false;
        taken_[offset] = {end, bytes};
        return true;
    }
    void give_back(std::uint64_t offset) { taken_.erase(offset); }

    [[nodiscard]] bool has_room(std::uint64_t bytes, std::uint64_t alignment) const {
        for (const auto& [begin, end] : gaps())
            if (rounded_up(begin, alignment) + bytes <= end) return true;
        return false;
    }

    [[nodiscard]] ArenaStatistics statistics() const {
        ArenaStatistics now;
        now.capacity_bytes = capacity_;
        now.live_blocks = taken_.size();
        for (const auto& [begin, range] : taken_) {
            now.asked_bytes += range.asked;
            now.reserved_bytes += range.end - begin;
        }
        now.free_bytes = capacity_ - now.reserved_bytes;
        for (const auto& [begin, end] : gaps()) now.largest_free_bytes = std::max(now.largest_free_bytes, end - begin);
        return now;
    }

private:
    struct Range {
        std::uint64_t end;
        std::uint64_t asked;
    };

    [[nodiscard]] std::vector<std::pair<std::uint64_t, std::uint64_t>> gaps() const {
        std::vector<std::pair<std::uint64_t, std::uint64_t>> gaps;
        std::uint64_t at = 0;
        for (const auto& [begin, range] : taken_) {
            if (begin > at) gaps.emplace_back(at, begin);
            at = range.end;
        }
        if (at < capacity_) gaps.emplace_back(at, capacity_);
        return gaps;
    }

    std::uint64_t capacity_;
    std::map<std::uint64_t, Range> taken_;
};

// Blocks of random sizes and alignments, in an arena and in its model at once.
class Trial {
public:
    Trial(std::uint64_t capacity, std::uint64_t largest, std::uint64_t seed)
        : arena_(make_emulated_driver(), capacity),
          model_(capacity),
          largest_log2_(std::log2(largest)),
          random_(seed) {}

    void step(std::size_t wanted_live) {
        if (blocks_.size() < wanted_live && random_() % 3 != 0) {
            allocate();
        } else if (!blocks_.empty()) {
            free_one();
        }
    }
    void free_all() {
        while (!blocks_.empty()) free_one();
    }
    void check() const {
        const ArenaStatistics now = arena_.statistics();
        REQUIRE(now == model_.statistics());
    }
    [[nodiscard]] const Arena& arena() const { return arena_; }
    [[nodiscard]] std::size_t refused() const { return refused_; }

private:
    void allocate() {
        const double magnitude = std::uniform_real_distribution<double>(0, largest_log2_)(random_);
        const auto bytes = static_cast<std::uint64_t>(std::exp2(magnitude));
        const std::uint64_t alignment = random_() % 2 == 0 ? 64 : std::uint64_t{1} << (random_() % 22);
        std::optional<Block> block = arena_.try_allocate(bytes, alignment);
        if (!block.has_value()) {
            ++refused_;
            REQUIRE_FALSE(model_.has_room(bytes, std::max<std::uint64_t>(alignment, kUnit)));
            return;
        }
        REQUIRE(block->bytes() == bytes);
        REQUIRE(pointer(block->address()) % std::max<std::uint64_t>(alignment, kUnit) == 0);
        REQUIRE(pointer(block->address()) == pointer(arena_.address()) + block->offset());
        REQUIRE(model_.take(block->offset(), bytes));
        blocks_.push_back(std::move(*block));
    }
    void free_one() {
        std::swap(blocks_[random_() % blocks_.size()], blocks_.back());
        model_.give_back(blocks_.back().offset());
        blocks_.back().free();
        blocks_.pop_back();
    }

    Arena arena_;
    Model model_;
    double largest_log2_;
    std::mt19937_64 random_;
    std::vector<Block> blocks_;
    std::size_t refused_ = 0;
};

}  // namespace

TEST_CASE("Blocks never overlap, are refused only where none fits, and leave one piece", "[arena]") {
    struct Shape {
        std::uint64_t capacity;
        std::uint64_t largest;
        std::size_t live;
    };
    for (const Shape& shape : {Shape{2 * kMiB, 4096, 600}, Shape{2 * kMiB, 2 * kMiB, 40}, Shape{62 * kMiB, kMiB, 1500},
                               Shape{64 * kMiB, kMiB, 1500}, Shape{66 * kMiB, 128 << 10, 8000}}) {
        CAPTURE(shape.capacity, shape.largest);
        Trial trial(shape.capacity, shape.largest, shape.largest);
        const int steps = kSlowBuild ? 10'000 : 40'000;
        for (int i = 0; i < steps; ++i) {
            trial.step(i < steps / 2 ? shape.live : shape.live / 4);
            if (i % 100 == 0) trial.check();
        }
        trial.free_all();
        trial.check();
        CHECK(trial.arena().statistics().largest_free_bytes == shape.capacity);
        if (!kSlowBuild) CHECK(trial.refused() > 0);
    }
}
