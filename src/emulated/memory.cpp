// SPDX-License-Identifier: Apache-2.0
// Makes, adopts and ends allocations.
#include "emulated/memory.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace fabricmem::detail::emulated {

namespace {

constexpr const char* kNameFormat = "fabricmem:%d:%d:%d:%u:%zu";

}  // namespace

Memory::Memory(std::shared_ptr<Backing> backing, const MemoryTraits& traits, std::shared_ptr<Ledger> ledger,
               std::shared_ptr<Budget> charged) noexcept
    : backing_(std::move(backing)), traits_(traits), ledger_(std::move(ledger)), charged_(std::move(charged)) {
    ledger_->allocations.fetch_add(1, std::memory_order_relaxed);
    ledger_->descriptors.fetch_add(1, std::memory_order_relaxed);
}

Memory::~Memory() {
    if (alias_counted_.load(std::memory_order_relaxed)) ledger_->aliases.fetch_sub(1, std::memory_order_relaxed);
    backing_.reset();
    ledger_->descriptors.fetch_sub(1, std::memory_order_relaxed);
    if (charged_) charged_->give_back(traits_.bytes);
    ledger_->allocations.fetch_sub(1, std::memory_order_relaxed);
}

std::byte* Memory::alias() noexcept {
    std::byte* const alias = backing_->alias();
    if (alias != nullptr && !alias_counted_.load(std::memory_order_relaxed) &&
        !alias_counted_.exchange(true, std::memory_order_relaxed)) {
        ledger_->aliases.fetch_add(1, std::memory_order_relaxed);
    }
    return alias;
}

bool read_traits(int descriptor, MemoryTraits* traits) noexcept {
    char path[64];
    std::snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    char name[320];
    const ssize_t length = ::readlink(path, name, sizeof name - 1);
    if (length < 0) return false;
    name[length] = '\0';
    constexpr const char* kPrefix = "/memfd:";
    if (std::strncmp(name, kPrefix, std::strlen(kPrefix)) != 0) return false;
    int rdma = 0;
    const int fields = std::sscanf(name + std::strlen(kPrefix), kNameFormat, &traits->location_kind,
                                   &traits->location_id, &rdma, &traits->handle_types, &traits->bytes);
    traits->rdma = rdma != 0;
    return fields == 5;
}

CUresult MemoryTable::create(const MemoryTraits& traits, const std::shared_ptr<Budget>& budget,
                             std::shared_ptr<Memory>* memory) {
    if (!budget->take(traits.bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
    struct Charge {  // gives the bytes back unless the memory has taken them over
        Budget* budget;
        std::size_t bytes;
        ~Charge() {
            if (budget != nullptr) budget->give_back(bytes);
        }
    } charge{budget.get(), traits.bytes};

    char name[160];
    std::snprintf(name, sizeof name, kNameFormat, traits.location_kind, traits.location_id, traits.rdma ? 1 : 0,
                  traits.handle_types, traits.bytes);
    std::shared_ptr<Backing> backing;
    if (const CUresult result = backings_.create(name, traits.bytes, &backing); result != CUDA_SUCCESS) return result;
    const std::lock_guard lock(mutex_);
    *memory = insert(std::move(backing), traits, budget);
    charge.budget = nullptr;
    return CUDA_SUCCESS;
}

std::shared_ptr<Memory> MemoryTable::adopt(std::shared_ptr<Backing> backing, const MemoryTraits& traits) {
    const std::lock_guard lock(mutex_);
    if (const auto found = memories_.find(backing->key()); found != memories_.end()) {
        if (auto memory = found->second.lock()) return memory;
    }
    return insert(std::move(backing), traits, nullptr);
}

std::shared_ptr<Memory> MemoryTable::insert(std::shared_ptr<Backing> backing, const MemoryTraits& traits,
                                            std::shared_ptr<Budget> charged) {
    if (memories_.size() >= sweep_at_) {
        std::erase_if(memories_, [](const auto& entry) { return entry.second.expired(); });
        sweep_at_ = 64 + 2 * memories_.size();
    }
    // Before the memory: nothing may throw once it holds the charge.
    std::weak_ptr<Memory>& entry = memories_[backing->key()];
    auto memory = std::make_shared<Memory>(std::move(backing), traits, ledger_, std::move(charged));
    entry = memory;
    return memory;
}

}  // namespace fabricmem::detail::emulated
