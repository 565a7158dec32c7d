// SPDX-License-Identifier: Apache-2.0
// A page that the kernel gives to a child empty (MADV_WIPEONFORK, Linux 4.14): getpid() is a system call, and a
// handler of pthread_atfork() is not called by every way to fork.
#include "platform/fork_epoch.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <new>

namespace fabricmem::detail {
namespace {

using Word = std::atomic<std::uint64_t>;
static_assert(Word::is_always_lock_free);

std::size_t page_bytes() noexcept { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

// Null where the kernel has no such page.
Word* map_wiped_word() noexcept {
    void* const memory = ::mmap(nullptr, page_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    constexpr int kNoAdvice = -1;
    // An emulated kernel (qemu-user) may say yes to every advice and take none.
    if (::madvise(memory, page_bytes(), kNoAdvice) == 0 || ::madvise(memory, page_bytes(), MADV_WIPEONFORK) != 0) {
        ::munmap(memory, page_bytes());
        return nullptr;
    }
    return new (memory) Word(0);
}

Word unavailable{0};
std::atomic<Word*> wiped{nullptr};  // never unmapped: buffers in statics ask until the end

// Without a lock, which a thread of the parent could hold for ever in a child.
Word* wiped_word() noexcept {
    Word* word = wiped.load(std::memory_order_acquire);
    if (word != nullptr) return word;
    Word* const made = map_wiped_word();
    if (wiped.compare_exchange_strong(word, made != nullptr ? made : &unavailable)) return wiped.load();
    if (made != nullptr) ::munmap(made, page_bytes());
    return word;
}

// No epoch of this process or an ancestor of it is greater. A child inherits it.
Word last_epoch{0};

}  // namespace

std::uint64_t fork_epoch() noexcept {
    Word* const word = wiped_word();
    if (word == &unavailable) return static_cast<std::uint64_t>(::getpid());
    if (const std::uint64_t known = word->load(std::memory_order_acquire); known != 0) return known;
    // The first call in this process. Of threads that meet here one sets the epoch; the others leave gaps. Counted
    // before it can be seen: a child that is forked as soon as another thread has seen it counts on from there.
    std::uint64_t seen = 0;
    const std::uint64_t next = last_epoch.fetch_add(1) + 1;
    return word->compare_exchange_strong(seen, next) ? next : seen;
}

void leave_to_parent(const void* object) noexcept {
    struct Left {
        const void* object;
        Left* next;
    };
    static constinit std::atomic<Left*> all{nullptr};
    Left* const left = new (std::nothrow) Left{object, all.load(std::memory_order_relaxed)};
    if (left == nullptr) return;
    while (!all.compare_exchange_weak(left->next, left, std::memory_order_release)) {
    }
}

}  // namespace fabricmem::detail
