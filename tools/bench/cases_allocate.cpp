// SPDX-License-Identifier: Apache-2.0
// Allocate and free, beside the allocators of others.
#include <algorithm>
#include <array>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fabricmem/arena.hpp>
#include <fabricmem/fabricmem.hpp>

#include "cases.hpp"
#include "common/text.hpp"
#include "other_allocators.hpp"
#include "raw_memory.hpp"

namespace bench {
namespace {

struct AllocatedSize {
    std::uint64_t bytes;
    const char* name;
    std::uint32_t share;  // one round for so many of what the options ask for
};
constexpr std::uint64_t kOneMiB = std::uint64_t{1} << 20;
constexpr std::array kAllocatedSizes{AllocatedSize{2 * kOneMiB, "2 MiB", 1}, AllocatedSize{32 * kOneMiB, "32 MiB", 4},
                                     AllocatedSize{512 * kOneMiB, "512 MiB", 20},
                                     AllocatedSize{4096 * kOneMiB, "4 GiB", 100}};

constexpr const char* kNccl = "ncclMemAlloc";
constexpr const char* kArenaBlock = "arena block";
constexpr const char* kWithoutRdma = "without RDMA";

std::vector<FoundAllocator> other_allocators(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options) {
    std::vector<FoundAllocator> found;
    if (driver->name() != "cuda") {
        for (const char* name : {"cuMemAlloc", "pool", "pool that keeps", kNccl}) {
            found.push_back({.name = name, .missing = "not a real driver: library and raw alone"});
        }
        return found;
    }
    found.push_back(plain_allocator(driver));
    found.push_back(pool_allocator(driver, options, PoolKeeps::nothing));
    found.push_back(pool_allocator(driver, options, PoolKeeps::all));
    found.push_back(nccl_allocator(options));
    return found;
}

/// Why an allocation of that size fails; empty: it does not.
template <class Call>
std::string why_not(Call&& call) {
    try {
        call();
        return {};
    } catch (const std::exception& error) {
        return error.what();
    }
}

// NCCL asks for GPUDirect RDMA, as a buffer does where it is not told otherwise; NVLink does not need it, and it costs
// a fifth. Who allocates often has an arena.
void add_goals(Comparison& comparison) {
    const auto median_of = [&](const char* name) -> std::optional<double> {
        for (const auto& [found, series] : comparison.beside) {
            if (found == name) return series.median();
        }
        return std::nullopt;
    };
    const std::optional<double> nccl = median_of(kNccl);
    if (!nccl.has_value()) return;
    const auto add = [&](const char* what, std::optional<double> us) {
        if (us.has_value()) comparison.goals.push_back({.what = what, .measured = *us / *nccl, .limit = 0.9});
    };
    add("allocate + free of 2 MiB, of ncclMemAlloc's", comparison.library.median());
    add("the same without RDMA", median_of(kWithoutRdma));
    add("the same as a block of an arena", median_of(kArenaBlock));
}

Comparison compare_allocators(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options,
                              const AllocatedSize& size, std::vector<FoundAllocator>& others) {
    Comparison comparison{.name = std::string("allocate ") + size.name,
                          .what =
                              "allocate and free device memory: FabricBuffer, which exports it; the bare calls of "
                              "lifecycle; cuMemAlloc, which can't be shared; cuMemAllocFromPoolAsync from a pool with "
                              "fabric handles, the stream synchronised after each call, a pool that gives all back and "
                              "one that keeps all; ncclMemAlloc; a FabricBuffer without GPUDirect RDMA, "
                              "which NVLink does not need; and a block of that size of an arena"};
    fabricmem::FabricBufferOptions wanted;
    wanted.location = fabricmem::Location::device(options.device);
    std::optional<RawPlan> plan;
    comparison.skipped = why_not([&] { plan = plan_like(fabricmem::FabricBuffer(driver, size.bytes, wanted)); });
    if (!comparison.skipped.empty()) return comparison;

    std::vector<Way> ways{timed_way("library", [&] { const fabricmem::FabricBuffer made(driver, size.bytes, wanted); }),
                          timed_way("raw", [&] { const RawMemory made(*driver, *plan); })};
    fabricmem::FabricBufferOptions without_rdma = wanted;
    without_rdma.rdma = fabricmem::Rdma::off;
    ways.push_back(
        timed_way(kWithoutRdma, [&] { const fabricmem::FabricBuffer made(driver, size.bytes, without_rdma); }));
    std::optional<fabricmem::Arena> arena;
    if (std::string missing = why_not([&] { arena.emplace(driver, size.bytes, wanted); }); missing.empty()) {
        ways.push_back(timed_way(kArenaBlock, [&] { const fabricmem::Block made = arena->allocate(size.bytes); }));
    } else {
        comparison.skipped_beside.emplace_back(kArenaBlock, std::move(missing));
    }
    for (FoundAllocator& other : others) {
        std::string missing = other.missing;
        if (other.allocator) missing = why_not([&] { other.allocator->allocate_and_free(size.bytes); });
        if (missing.empty()) {
            ways.push_back(timed_way(other.name, [&] { other.allocator->allocate_and_free(size.bytes); }));
        } else {
            comparison.skipped_beside.emplace_back(other.name, std::move(missing));
        }
    }
    const Amount amount{.rounds = std::max(options.rounds / size.share, std::min(options.rounds, 5U)),
                        .runs = options.runs};
    measure_ways(amount, comparison, ways, Second::raw);
    if (size.bytes == kAllocatedSizes.front().bytes) add_goals(comparison);
    return comparison;
}

}  // namespace

void bench_allocate(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options, const Take& take) {
    for (const AllocatedSize& size : kAllocatedSizes) {
        // Made anew for each size: what a pool keeps of one is no room for the next.
        std::vector<FoundAllocator> others = other_allocators(driver, options);
        take(compare_allocators(driver, options, size, others));
    }
}

}  // namespace bench
