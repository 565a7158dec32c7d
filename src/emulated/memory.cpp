// SPDX-License-Identifier: Apache-2.0
// Makes, adopts and ends allocations.
#include "emulated/memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "emulated/numbers.hpp"
#include "log/log.hpp"

namespace fabricmem::detail::emulated {

namespace {

constexpr const char* kNameFormat = "fabricmem:%d:%d:%d:%u:%zu";

const char* limit_behind(int error) noexcept {
    switch (error) {
        case EMFILE: return "this process's limit of open descriptors (ulimit -n)";
        case ENFILE: return "the system's limit of open files (fs.file-max)";
        case ENOMEM: return "memory, or the limit of mappings (vm.max_map_count) or of address space (ulimit -v)";
        case ENOSPC: return "the machine's shared memory";
        case EFBIG: return "this process's limit of a file's size (ulimit -f)";
        default: return "the system";
    }
}

}  // namespace

CUresult out_of_memory(const char* call, int error) noexcept {
    log(LogLevel::warning, "The emulated driver met {}: {} failed with {}.", limit_behind(error), call,
        std::strerror(error));
    return CUDA_ERROR_OUT_OF_MEMORY;
}

Memory::Memory(FileDescriptor file, const Key& key, const MemoryTraits& traits, std::shared_ptr<Ledger> ledger,
               std::shared_ptr<Budget> charged)
    : file_(std::move(file)), key_(key), traits_(traits), ledger_(std::move(ledger)), charged_(std::move(charged)) {
    ledger_->allocations.fetch_add(1, std::memory_order_relaxed);
    ledger_->descriptors.fetch_add(1, std::memory_order_relaxed);
}

Memory::~Memory() {
    if (std::byte* const alias = alias_if_made()) {
        ::munmap(alias, traits_.bytes);
        ledger_->aliases.fetch_sub(1, std::memory_order_relaxed);
    }
    file_ = FileDescriptor();
    ledger_->descriptors.fetch_sub(1, std::memory_order_relaxed);
    if (charged_) charged_->give_back(traits_.bytes);
    ledger_->allocations.fetch_sub(1, std::memory_order_relaxed);
}

// The size never changes, so sealing it against shrinking changes nothing else.
void Memory::end_export() const noexcept { ::fcntl(file_.get(), F_ADD_SEALS, F_SEAL_SHRINK); }

bool Memory::export_ended(int descriptor) noexcept {
    const int seals = ::fcntl(descriptor, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK) != 0;
}

std::byte* Memory::alias() noexcept {
    if (std::byte* const alias = alias_if_made()) return alias;
    const std::lock_guard lock(alias_mutex_);
    if (std::byte* const alias = alias_if_made()) return alias;
    void* const made =
        ::mmap(nullptr, traits_.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor(), 0);
    if (made == MAP_FAILED) {
        static_cast<void>(out_of_memory("mmap of an alias", errno));
        return nullptr;
    }
    ledger_->aliases.fetch_add(1, std::memory_order_relaxed);
    alias_.store(static_cast<std::byte*>(made), std::memory_order_release);
    return static_cast<std::byte*>(made);
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
    FileDescriptor file(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!file.valid()) return out_of_memory("memfd_create", errno);
    if (::ftruncate(file.get(), static_cast<off_t>(traits.bytes)) != 0) return out_of_memory("ftruncate", errno);
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) return out_of_memory("fstat", errno);
    const std::lock_guard lock(mutex_);
    *memory = insert(std::move(file), {status.st_dev, status.st_ino}, traits, budget);
    charge.budget = nullptr;
    return CUDA_SUCCESS;
}

std::shared_ptr<Memory> MemoryTable::adopt(FileDescriptor file, const Memory::Key& key, const MemoryTraits& traits) {
    const std::lock_guard lock(mutex_);
    if (const auto found = memories_.find(key); found != memories_.end()) {
        if (auto memory = found->second.lock()) return memory;
    }
    return insert(std::move(file), key, traits, nullptr);
}

std::shared_ptr<Memory> MemoryTable::insert(FileDescriptor file, const Memory::Key& key, const MemoryTraits& traits,
                                            std::shared_ptr<Budget> charged) {
    if (memories_.size() >= sweep_at_) {
        std::erase_if(memories_, [](const auto& entry) { return entry.second.expired(); });
        sweep_at_ = 64 + 2 * memories_.size();
    }
    std::weak_ptr<Memory>& entry = memories_[key];  // before the memory: nothing may throw once it holds the charge
    auto memory = std::make_shared<Memory>(std::move(file), key, traits, ledger_, std::move(charged));
    entry = memory;
    return memory;
}

}  // namespace fabricmem::detail::emulated
