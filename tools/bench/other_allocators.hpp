// SPDX-License-Identifier: Apache-2.0
// Allocators of others that this library is measured beside, each taken at run time where it is there. Only for the
// real driver: their memory is none that a stand-in knows.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include <fabricmem/driver.hpp>

#include "options.hpp"

namespace bench {

/// Allocates and frees once. Throws std::runtime_error where a call fails.
class OtherAllocator {
public:
    virtual ~OtherAllocator() = default;
    OtherAllocator(const OtherAllocator&) = delete;
    OtherAllocator& operator=(const OtherAllocator&) = delete;

    virtual void allocate_and_free(std::size_t bytes) = 0;

protected:
    OtherAllocator() = default;
};

/// One of them, or why it can't be had.
struct FoundAllocator {
    std::string name;
    std::unique_ptr<OtherAllocator> allocator{};
    std::string missing{};
};

/// What a pool does with memory that is free once its stream is synchronised.
enum class PoolKeeps : std::uint8_t { nothing, all };

/// cuMemAlloc and cuMemFree. Can't be shared with other processes.
[[nodiscard]] FoundAllocator plain_allocator(const std::shared_ptr<fabricmem::Driver>& driver);
/// cuMemAllocFromPoolAsync and cuMemFreeAsync, the stream synchronised after each; the pool has fabric handles.
[[nodiscard]] FoundAllocator pool_allocator(const std::shared_ptr<fabricmem::Driver>& driver, const Options& options,
                                            PoolKeeps keeps);
/// ncclMemAlloc and ncclMemFree.
[[nodiscard]] FoundAllocator nccl_allocator(const Options& options);

}  // namespace bench
