// SPDX-License-Identifier: Apache-2.0
// memfds, their seals, and the table of them.
#include "emulated/backing.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>

#include "emulated/limits.hpp"
#include "platform/fork_epoch.hpp"

namespace fabricmem::detail::emulated {

Backing::~Backing() {
    if (std::byte* const alias = alias_if_made()) ::munmap(alias, bytes_);
}

// The size never changes, so sealing it against shrinking changes nothing else.
void Backing::end_export() const noexcept { ::fcntl(file_.get(), F_ADD_SEALS, F_SEAL_SHRINK); }

bool Backing::export_ended(int descriptor) noexcept {
    const int seals = ::fcntl(descriptor, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK) != 0;
}

std::byte* Backing::alias() noexcept {
    if (std::byte* const alias = alias_if_made()) return alias;
    const std::lock_guard lock(alias_mutex_);
    if (std::byte* const alias = alias_if_made()) return alias;
    void* const made = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor(), 0);
    if (made == MAP_FAILED) {
        static_cast<void>(out_of_memory("mmap of an alias", errno));
        return nullptr;
    }
    alias_.store(static_cast<std::byte*>(made), std::memory_order_release);
    return static_cast<std::byte*>(made);
}

Backings::Backings(std::uint64_t epoch, Backings* parents) noexcept
    : epoch_(epoch),
      parents_(parents),
      process_id_(static_cast<std::uint32_t>(::getpid())),
      process_start_(read_process_stat(process_id_).start) {}

Backings& Backings::of_this_process() {
    static constinit std::atomic<Backings*> latest{nullptr};
    const std::uint64_t epoch = fork_epoch();
    Backings* seen = latest.load(std::memory_order_acquire);
    for (;;) {
        if (seen != nullptr && seen->epoch_ == epoch) return *seen;
        std::unique_ptr<Backings> made(new Backings(epoch, seen));
        if (latest.compare_exchange_strong(seen, made.get(), std::memory_order_acq_rel)) return *made.release();
    }
}

CUresult Backings::create(const char* name, std::size_t bytes, std::shared_ptr<Backing>* backing) {
    // The kernel answers a file beyond this limit with a signal that ends the process.
    rlimit file_size{};
    if (::getrlimit(RLIMIT_FSIZE, &file_size) == 0 && bytes > file_size.rlim_cur) {
        return out_of_memory("ftruncate", EFBIG);
    }
    FileDescriptor file(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!file.valid()) return out_of_memory("memfd_create", errno);
    if (::ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) return out_of_memory("ftruncate", errno);
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) return out_of_memory("fstat", errno);
    const std::lock_guard lock(mutex_);
    *backing = insert(std::move(file), Backing::key_of(status), bytes);
    return CUDA_SUCCESS;
}

std::shared_ptr<Backing> Backings::adopt(FileDescriptor file, const Backing::Key& key, std::size_t bytes) {
    FileDescriptor spare;  // before the lock: closed after it
    const std::lock_guard lock(mutex_);
    if (const auto found = backings_.find(key); found != backings_.end()) {
        if (auto backing = found->second.lock()) {
            spare = std::move(file);
            return backing;
        }
    }
    return insert(std::move(file), key, bytes);
}

std::shared_ptr<Backing> Backings::find(const Backing::Key& key) {
    const std::lock_guard lock(mutex_);
    const auto found = backings_.find(key);
    return found == backings_.end() ? nullptr : found->second.lock();
}

std::shared_ptr<Backing> Backings::insert(FileDescriptor file, const Backing::Key& key, std::size_t bytes) {
    if (backings_.size() >= sweep_at_) {
        std::erase_if(backings_, [](const auto& entry) { return entry.second.expired(); });
        sweep_at_ = 64 + 2 * backings_.size();
    }
    auto backing = std::make_shared<Backing>(std::move(file), key, bytes);
    backings_[key] = backing;
    return backing;
}

}  // namespace fabricmem::detail::emulated
