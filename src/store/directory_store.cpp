// SPDX-License-Identifier: Apache-2.0
// A file a key. Written beside and renamed, so that nobody sees half of a value, on NFS neither. Knows no network.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>
#include <string_view>
#include <utility>

#include <fabricmem/error.hpp>
#include <fabricmem/store.hpp>

#include "blob/hex.hpp"
#include "error/refuse.hpp"
#include "platform/random_id.hpp"
#include "store/back_off.hpp"
#include "text/text.hpp"

namespace fabricmem {
namespace detail {
namespace {

using std::chrono::steady_clock;

constexpr std::string_view kTemporaryMark = "~";  // never in an escaped key
// Where a file system has no locks, a temporary is taken for a killed writer's after so long.
constexpr std::int64_t kAbandonedSeconds = 60;
// Others may take a name or a file away between two calls; not so often.
constexpr int kTries = 100;

class Descriptor {
public:
    explicit Descriptor(int number = -1) noexcept : number_(number) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    Descriptor(Descriptor&& other) noexcept : number_(other.release()) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        if (this != &other) {
            close();
            number_ = other.release();
        }
        return *this;
    }
    ~Descriptor() { close(); }

    [[nodiscard]] int get() const noexcept { return number_; }
    [[nodiscard]] bool is_open() const noexcept { return number_ >= 0; }
    [[nodiscard]] int release() noexcept { return std::exchange(number_, -1); }
    // NFS says here what it could not write. Never again after a failure: the number may be another thread's by then.
    int close() noexcept { return number_ < 0 ? 0 : ::close(std::exchange(number_, -1)); }

private:
    int number_;
};

// Of the last system call.
Error system_error(const char* call, std::string_view what) {
    const int code = errno;
    const bool forbidden = code == EACCES || code == EPERM || code == EROFS;
    return Error({.kind = forbidden ? ErrorKind::not_permitted : ErrorKind::system,
                  .call = call,
                  .subject = std::string(what),
                  .cause = std::strerror(code)});
}

// Letters, digits, '-', '_' and dots that are not first stay; the rest is %XX.
std::string escaped(std::string_view key) {
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    std::string name;
    for (const char c : key) {
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                           c == '_' || (c == '.' && !name.empty());
        if (plain) {
            name += c;
            continue;
        }
        const auto byte = static_cast<unsigned char>(c);
        name += '%';
        name += kDigits[byte >> 4U];
        name += kDigits[byte & 15U];
    }
    return name;
}

// A file of a value that is being written. Locked for as long as its writer lives: a lock goes with its process.
class Temporary {
public:
    Temporary(int directory, std::string name) : directory_(directory), name_(std::move(name)) {}
    Temporary(const Temporary&) = delete;
    Temporary& operator=(const Temporary&) = delete;
    ~Temporary() {
        if (present_) ::unlinkat(directory_, name_.c_str(), 0);
    }

    // False where another writer, who looks for what was left behind, has it.
    bool make() {
        lock_ = Descriptor(::openat(directory_, name_.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
        if (!lock_.is_open()) throw system_error("open", name_);
        present_ = true;
        return ::flock(lock_.get(), LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
    }
    // By a descriptor of its own: NFS writes all of it when that is closed, and the lock stays.
    bool write(std::span<const std::byte> value) {
        Descriptor file(::openat(directory_, name_.c_str(), O_WRONLY | O_CLOEXEC));
        if (!file.is_open()) {
            if (errno == ENOENT) return false;
            throw system_error("open", name_);
        }
        while (!value.empty()) {
            const ssize_t written = ::write(file.get(), value.data(), value.size());
            if (written < 0 && errno == EINTR) continue;
            if (written < 0) throw system_error("write", name_);
            value = value.subspan(static_cast<std::size_t>(written));
        }
        if (file.close() != 0 && errno != EINTR) throw system_error("close", name_);
        return true;
    }
    bool rename_to(const std::string& name) {
        if (::renameat(directory_, name_.c_str(), directory_, name.c_str()) == 0) {
            present_ = false;
            return true;
        }
        if (errno == ENOENT) return false;
        throw system_error("rename", name);
    }

private:
    int directory_;
    std::string name_;
    Descriptor lock_;
    bool present_ = false;
};

struct CloseDirectory {
    void operator()(DIR* entries) const noexcept { ::closedir(entries); }
};

class DirectoryStore final : public Store {
public:
    explicit DirectoryStore(const std::string& path) : path_(path) {
        if (path.empty()) refuse("a store's directory without a name");
        // The bytes in it are as good as the memory that they name: for this user alone.
        if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) throw system_error("mkdir", path);
        directory_ = Descriptor(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!directory_.is_open()) throw system_error("open", path);
    }

    void set(const std::string& key, std::span<const std::byte> value) override {
        const std::string name = name_of(key);
        check_store_value(key, value.size());
        remove_abandoned(name);
        for (int i = 0; i < kTries; ++i) {
            Temporary temporary(directory_.get(), temporary_prefix(name) + to_hex(random_id().bytes));
            if (temporary.make() && temporary.write(value) && temporary.rename_to(name)) return;
        }
        throw Error({.kind = ErrorKind::conflict,
                     .call = "rename",
                     .subject = path_ + "/" + name,
                     .cause = "something removes the files that are being written",
                     .cure = "let nothing else clean this directory"});
    }

    std::optional<std::vector<std::byte>> try_get(const std::string& key) override {
        const std::string name = name_of(key);
        auto value = read(key, name);
        if (value.has_value()) return value;
        // NFS may remember that the file was not there; to open the directory makes it ask whether that has changed.
        Descriptor fresh(::openat(directory_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!fresh.is_open()) throw system_error("open", path_);
        return read(key, name);
    }

    bool wait(const std::string& key, steady_clock::time_point deadline) override {
        const Descriptor watch = watched();
        BackOff pause(kFirstLook, kLastLook);
        for (;;) {
            if (try_get(key).has_value()) return true;
            const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now());
            if (left.count() <= 0) return false;
            sleep(watch, std::min(left, pause.next()));
        }
    }

    bool remove(const std::string& key) override {
        const std::string name = name_of(key);
        remove_abandoned(name);
        if (::unlinkat(directory_.get(), name.c_str(), 0) == 0) return true;
        if (errno == ENOENT) return false;
        throw system_error("unlink", path_ + "/" + name);
    }

private:
    static std::string name_of(const std::string& key) {
        check_store_key(key);
        std::string name = escaped(key);
        constexpr std::size_t kRoom = NAME_MAX - 34;  // '.', '~', 32 digits
        if (name.size() > kRoom) {
            refuse(formatted("a directory store's key of {} bytes as a file's name, beyond {}", name.size(), kRoom));
        }
        return name;
    }
    static std::string temporary_prefix(const std::string& name) { return "." + name + std::string(kTemporaryMark); }

    std::optional<std::vector<std::byte>> read(const std::string& key, const std::string& name) const {
        for (int i = 0;; ++i) {
            // Without waiting for whoever is at the other end, should that be a pipe.
            const Descriptor file(
                ::openat(directory_.get(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
            if (!file.is_open() && errno == ENOENT) return std::nullopt;
            if (!file.is_open() && errno == ESTALE && i < kTries) continue;  // NFS: replaced at this moment
            if (!file.is_open() && (errno == ELOOP || errno == ENXIO)) throw no_value(key);
            if (!file.is_open()) throw system_error("open", path_ + "/" + name);
            struct stat about {};
            if (::fstat(file.get(), &about) != 0) {
                if (errno == ESTALE && i < kTries) continue;
                throw system_error("fstat", path_ + "/" + name);
            }
            if (!S_ISREG(about.st_mode)) throw no_value(key);
            check_stored_value(key, static_cast<std::size_t>(about.st_size));
            if (auto value = read_all(file, key, name)) return value;
            if (i >= kTries) throw system_error("read", path_ + "/" + name);
        }
    }

    // nullopt where NFS says that the file is no more.
    std::optional<std::vector<std::byte>> read_all(const Descriptor& file, const std::string& key,
                                                   const std::string& name) const {
        std::vector<std::byte> value;
        for (std::size_t have = 0;;) {
            value.resize(have + 4096);
            const ssize_t got = ::read(file.get(), value.data() + have, 4096);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0 && errno == ESTALE) return std::nullopt;
            if (got < 0) throw system_error("read", path_ + "/" + name);
            have += static_cast<std::size_t>(got);
            check_stored_value(key, have);  // it may grow while it is read: none of ours does
            if (got == 0) {
                value.resize(have);
                return value;
            }
        }
    }

    static Error no_value(const std::string& key) {
        return Error({.kind = ErrorKind::bad_blob,
                      .subject = formatted("what the store's directory has under {} is no file", key)});
    }

    // What a killed writer of this key left. A writer that lives has its file locked.
    void remove_abandoned(const std::string& name) const {
        Descriptor listed(::openat(directory_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        const std::unique_ptr<DIR, CloseDirectory> entries(listed.is_open() ? ::fdopendir(listed.get()) : nullptr);
        if (entries == nullptr) throw system_error("opendir", path_);
        static_cast<void>(listed.release());  // the stream's now
        const std::string prefix = temporary_prefix(name);
        std::vector<std::string> found;
        while (const dirent* const entry = ::readdir(entries.get())) {
            if (std::string_view(entry->d_name).starts_with(prefix)) found.emplace_back(entry->d_name);
        }
        for (const std::string& left : found) remove_if_abandoned(left);
    }
    void remove_if_abandoned(const std::string& name) const noexcept {
        const Descriptor file(::openat(directory_.get(), name.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
        if (!file.is_open()) return;
        if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
            struct stat about {};
            if (errno == EWOULDBLOCK || ::fstat(file.get(), &about) != 0) return;
            if (::time(nullptr) - about.st_mtime < kAbandonedSeconds) return;
        }
        ::unlinkat(directory_.get(), name.c_str(), 0);
    }

    // Not open where there are no more inotify instances to be had: then looking has to do.
    [[nodiscard]] Descriptor watched() const {
        Descriptor watch(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
        if (!watch.is_open()) return watch;
        const std::string place = formatted("/proc/self/fd/{}", directory_.get());
        if (::inotify_add_watch(watch.get(), place.c_str(), IN_MOVED_TO | IN_CREATE) < 0) return Descriptor();
        return watch;
    }
    static void sleep(const Descriptor& watch, std::chrono::milliseconds time) {
        pollfd entry{watch.get(), POLLIN, 0};  // a negative one is none
        if (::poll(&entry, 1, static_cast<int>(time.count())) <= 0) return;
        alignas(inotify_event) char events[4096];
        while (::read(watch.get(), events, sizeof(events)) > 0) {
        }
    }

    std::string path_;
    Descriptor directory_;
};

}  // namespace
}  // namespace detail

std::shared_ptr<Store> make_directory_store(const std::string& path) {
    return std::make_shared<detail::DirectoryStore>(path);
}

}  // namespace fabricmem
