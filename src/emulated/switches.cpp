// SPDX-License-Identifier: Apache-2.0
// The shared words: their layout in native byte order (they never leave the machine), their file, and futex waits.
#include "emulated/switches.hpp"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>
#include <new>
#include <utility>

#include <fabricmem/error.hpp>

#include "emulated/numbers.hpp"
#include "text/text.hpp"

namespace fabricmem::detail::emulated {

struct Switches::Header {
    std::uint64_t magic;
    std::uint32_t version;
    std::uint32_t nodes;
    std::uint64_t scenario;
    std::uint64_t instance;
    std::uint64_t owner_start;
    std::uint32_t owner_id;  // 0: whoever has the file may go, the switches stay
    std::uint32_t changes;   // the futex
    std::uint32_t ended;
    std::uint32_t reserved[3];
};

struct Switches::Node {
    std::uint64_t values[12];
    std::uint32_t daemon_kills;
    std::uint32_t losses;
    std::uint64_t reserved[3];
};

namespace {

constexpr std::uint64_t kMagic = 0x3153574d42414600;  // "\0FABMSW1"
constexpr std::uint32_t kVersion = 1;
// How long a process may be gone before those that wait for its switches notice. Changes wake them at once.
constexpr timespec kOwnerCheck{0, 100'000'000};

constexpr std::uint64_t kDaemonKilled = 2;
constexpr std::uint64_t kNodeLost = 1;

template <typename Word>
Word load(const Word& word) noexcept {
    return std::atomic_ref<Word>(const_cast<Word&>(word)).load(std::memory_order_acquire);
}
template <typename Word>
void store(Word& word, Word value) noexcept {
    std::atomic_ref<Word>(word).store(value, std::memory_order_release);
}
void add_one(std::uint32_t& word) noexcept {
    std::atomic_ref<std::uint32_t>(word).fetch_add(1, std::memory_order_acq_rel);
}

long futex(std::uint32_t& word, int operation, std::uint32_t value, const timespec* timeout) noexcept {
    return ::syscall(SYS_futex, &word, operation, value, timeout, nullptr, 0);
}

[[noreturn]] void fail(const std::string& path, const char* call) {
    throw Error({.kind = ErrorKind::system,
                 .call = call,
                 .subject = formatted("the emulator's switches {}", path),
                 .cause = std::strerror(errno)});
}

std::uint64_t new_instance(int descriptor) noexcept {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    struct stat status {};
    ::fstat(descriptor, &status);
    const auto seconds = static_cast<std::uint64_t>(now.tv_sec);
    const auto rest = static_cast<std::uint64_t>(now.tv_nsec) ^ (static_cast<std::uint64_t>(::getpid()) << 32);
    const std::uint64_t made = mix(mix(mix(seconds) ^ rest) ^ status.st_ino);
    return made == 0 ? 1 : made;
}

}  // namespace

static_assert(std::atomic_ref<std::uint64_t>::is_always_lock_free);

Switches::Header& Switches::header() const noexcept { return *static_cast<Header*>(memory_); }

Switches::Node& Switches::node_at(std::size_t node) const noexcept {
    static_assert(sizeof(Header) == 64 && sizeof(Node) == 128);
    static_assert(kSwitchCount <= sizeof(Node::values) / sizeof(std::uint64_t));
    return reinterpret_cast<Node*>(static_cast<std::byte*>(memory_) + sizeof(Header))[node];
}

Switches::Switches(Home home, void* memory, std::size_t bytes, FileDescriptor file) noexcept
    : home_(home), memory_(memory), bytes_(bytes), file_(std::move(file)) {}

std::size_t Switches::bytes_of(std::size_t nodes) noexcept { return sizeof(Header) + nodes * sizeof(Node); }

Switches::Switches(std::size_t nodes, std::uint64_t scenario) : bytes_(bytes_of(nodes)) {
    memory_ = ::operator new(bytes_);
    fill(nodes, scenario, 0);
}

Switches::Switches(Switches&& other) noexcept
    : home_(other.home_),
      memory_(std::exchange(other.memory_, nullptr)),
      bytes_(other.bytes_),
      file_(std::move(other.file_)) {}

Switches::~Switches() {
    if (memory_ == nullptr) return;
    if (home_ == Home::heap) {
        ::operator delete(memory_);
    } else {
        ::munmap(memory_, bytes_);
    }
}

void Switches::fill(std::size_t nodes, std::uint64_t scenario, std::uint64_t instance) noexcept {
    std::memset(memory_, 0, bytes_);
    Header& head = header();
    head.magic = kMagic;
    head.version = kVersion;
    head.nodes = static_cast<std::uint32_t>(nodes);
    head.scenario = scenario;
    head.instance = instance;
}

Switches Switches::map(FileDescriptor file, std::size_t nodes) {
    const std::size_t bytes = bytes_of(nodes);
    void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    if (memory == MAP_FAILED) fail("", "mmap");
    return Switches(Home::mapping, memory, bytes, std::move(file));
}

Switches Switches::shared(std::size_t nodes, std::uint64_t scenario) {
    FileDescriptor file(::memfd_create("fabricmem-switches", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!file.valid()) fail("", "memfd_create");
    if (::ftruncate(file.get(), static_cast<off_t>(bytes_of(nodes))) != 0) fail("", "ftruncate");
    ::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    const std::uint64_t instance = new_instance(file.get());
    Switches made = map(std::move(file), nodes);
    made.fill(nodes, scenario, instance);
    Header& head = made.header();
    head.owner_id = static_cast<std::uint32_t>(::getpid());
    head.owner_start = read_process_stat(head.owner_id).start;
    return made;
}

// Written whole under another name first: two processes that start at once see nothing or all of it.
void Switches::make_file(const std::string& path, std::size_t nodes, std::uint64_t scenario) {
    const std::string draft = formatted("{}.{}", path, ::getpid());
    FileDescriptor file(::open(draft.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file.valid()) fail(draft, "open");
    const bool sized = ::ftruncate(file.get(), static_cast<off_t>(bytes_of(nodes))) == 0;
    if (sized) {
        const std::uint64_t instance = new_instance(file.get());
        map(std::move(file), nodes).fill(nodes, scenario, instance);
    }
    const bool linked = sized && (::link(draft.c_str(), path.c_str()) == 0 || errno == EEXIST);
    const int error = errno;
    ::unlink(draft.c_str());
    errno = error;
    if (!linked) fail(path, sized ? "link" : "ftruncate");
}

Switches Switches::in_file(const std::string& path, std::size_t nodes, std::uint64_t scenario) {
    FileDescriptor file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!file.valid() && errno == ENOENT) {
        make_file(path, nodes, scenario);
        file = FileDescriptor(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    }
    if (!file.valid()) fail(path, "open");
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) fail(path, "fstat");
    if (!S_ISREG(status.st_mode) || static_cast<std::uint64_t>(status.st_size) != bytes_of(nodes)) {
        throw Error({.kind = ErrorKind::bad_argument,
                     .subject = formatted("{} is not the switches of this scenario: it has {} bytes, not {}", path,
                                          status.st_size, bytes_of(nodes))});
    }
    Switches opened = map(std::move(file), nodes);
    opened.check(path, nodes, scenario);
    opened.file_ = FileDescriptor();  // the mapping is enough
    return opened;
}

void Switches::check(const std::string& path, std::size_t nodes, std::uint64_t scenario) const {
    const Header& head = header();
    const char* wrong = nullptr;
    if (head.magic != kMagic) {
        wrong = "is no file of switches";
    } else if (head.version != kVersion) {
        wrong = "is of another version of this library";
    } else if (head.nodes != nodes || head.scenario != scenario) {
        wrong = "is of another scenario";
    }
    if (wrong == nullptr) return;
    throw Error({.kind = ErrorKind::bad_argument,
                 .subject = formatted("{} {}", path, wrong),
                 .cure = "remove it, or name another file in the scenario's \"switches\""});
}

std::uint64_t Switches::value(std::size_t node, Switch which) const noexcept {
    return load(node_at(node).values[static_cast<std::size_t>(which)]);
}

Incarnation Switches::incarnation(std::size_t node) const noexcept {
    const Node& words = node_at(node);
    return {load(words.daemon_kills), load(words.losses)};
}

std::uint32_t Switches::changes() const noexcept { return load(header().changes); }
std::uint64_t Switches::instance() const noexcept { return header().instance; }
bool Switches::ended() const noexcept { return load(header().ended) != 0; }

// The value and the count of what happened come before the change that makes others look at them.
void Switches::set(std::size_t node, Switch which, std::uint64_t value) noexcept {
    Node& words = node_at(node);
    store(words.values[static_cast<std::size_t>(which)], value);
    if (which == Switch::imex_daemon && value == kDaemonKilled) add_one(words.daemon_kills);
    if (which == Switch::node && value == kNodeLost) add_one(words.losses);
    announce();
}

void Switches::announce() noexcept {
    add_one(header().changes);
    futex(header().changes, FUTEX_WAKE, INT_MAX, nullptr);
}

void Switches::end() noexcept {
    store(header().ended, std::uint32_t{1});
    announce();
}

bool Switches::owner_lives() const noexcept {
    const Header& head = header();
    if (head.owner_id == 0 || head.owner_id == static_cast<std::uint32_t>(::getpid())) return true;
    const ProcessStat stat = read_process_stat(head.owner_id);
    if (stat.found == ProcessStat::Found::unknown) return true;
    return stat.found == ProcessStat::Found::yes && !stat.ended && stat.start == head.owner_start;
}

bool Switches::wait(const std::function<bool()>& over) const noexcept {
    for (;;) {
        const std::uint32_t seen = changes();
        if (over()) return true;
        if (ended() || !owner_lives()) return false;
        futex(header().changes, FUTEX_WAIT, seen, &kOwnerCheck);
    }
}

}  // namespace fabricmem::detail::emulated
