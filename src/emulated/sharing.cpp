// SPDX-License-Identifier: Apache-2.0
// Nothing is registered anywhere, so nothing is left when a process is killed: a handle dies with its exporter.
#include "emulated/sharing.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "emulated/numbers.hpp"
#include "log/log.hpp"

namespace fabricmem::detail::emulated {

namespace {

bool is_a_limit(int error) noexcept { return error == EMFILE || error == ENFILE || error == ENOMEM; }

bool is_meant(const struct stat& status, const FabricHandle& handle) noexcept {
    return S_ISREG(status.st_mode) && status.st_ino == handle.inode &&
           static_cast<std::uint32_t>(status.st_dev) == handle.filesystem &&
           static_cast<std::uint64_t>(status.st_size) == handle.bytes;
}

// Of whether the exporter still runs, and the number is not another process's by now.
CUresult judge(const Exporters::Answer& answer) noexcept {
    if (is_a_limit(answer.error)) return out_of_memory("open of /proc/PID/stat", answer.error);
    return answer.lives ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult refused(const FabricHandle& handle, const char* call, int error) noexcept {
    if (is_a_limit(error)) return out_of_memory(call, error);
    if (error != EACCES && error != EPERM) return CUDA_ERROR_NOT_SUPPORTED;
    const Exporters::Answer exporter = Exporters::read(handle.process_id, handle.process_start);
    if (const CUresult result = judge(exporter); result != CUDA_SUCCESS) return result;
    log(LogLevel::warning,
        "The emulated driver may not open a descriptor of process {}: it is another user's or not dumpable. Emulated "
        "fabric handles work between processes of one user.",
        handle.process_id);
    return CUDA_ERROR_NOT_PERMITTED;
}

CUresult open_exported(const FabricHandle& handle, Backings& backings, std::shared_ptr<Backing>* backing) {
    char path[64];
    std::snprintf(path, sizeof path, "/proc/%u/fd/%d", handle.process_id, handle.descriptor);
    // Looked at before it is opened: behind a number used again may be a device that does things when opened.
    struct stat status {};
    if (::stat(path, &status) != 0) return refused(handle, "stat of the exporter's descriptor", errno);
    if (!is_meant(status, handle)) return CUDA_ERROR_NOT_SUPPORTED;
    std::shared_ptr<Backing> known = backings.find(Backing::key_of(status));
    FileDescriptor opened;
    if (known == nullptr) {
        opened = FileDescriptor(::open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
        if (!opened.valid()) return refused(handle, "open of the exporter's descriptor", errno);
        if (::fstat(opened.get(), &status) != 0 || !is_meant(status, handle)) return CUDA_ERROR_NOT_SUPPORTED;
    }
    if (Backing::export_ended(known ? known->descriptor() : opened.get())) return CUDA_ERROR_NOT_SUPPORTED;
    // After the open: a process that has this number and this start time now had them then.
    const Exporters::Answer exporter = backings.exporters().find(handle.process_id, handle.process_start);
    if (const CUresult result = judge(exporter); result != CUDA_SUCCESS) return result;
    *backing = known ? std::move(known) : backings.adopt(std::move(opened), Backing::key_of(status), handle.bytes);
    return CUDA_SUCCESS;
}

// This process's own memory is in its table: the kernel need not be asked where it is.
CUresult find_own(const FabricHandle& handle, Backings& backings, std::shared_ptr<Backing>* backing) {
    std::shared_ptr<Backing> own = backings.find({static_cast<std::uint32_t>(handle.filesystem), handle.inode});
    const bool meant = own && own->descriptor() == handle.descriptor && own->bytes() == handle.bytes;
    if (!meant || own->export_ended()) return CUDA_ERROR_NOT_SUPPORTED;
    *backing = std::move(own);
    return CUDA_SUCCESS;
}

CUresult find_exported(const FabricHandle& handle, Backings& backings, std::shared_ptr<Backing>* backing) {
    const bool own = handle.process_id == backings.process_id() && handle.process_start == backings.process_start();
    return own ? find_own(handle, backings, backing) : open_exported(handle, backings, backing);
}

}  // namespace

FabricHandleBytes export_fabric(const Memory& memory, const Exporter& exporter) noexcept {
    const MemoryTraits& traits = memory.traits();
    return encode({.process_id = exporter.process_id,
                   .process_start = exporter.process_start,
                   .node = exporter.node,
                   .descriptor = memory.descriptor(),
                   .imex_channel = exporter.imex_channel,
                   .location_kind = traits.location_kind,
                   .location_id = traits.location_id,
                   .rdma = traits.rdma,
                   .fabric = exporter.fabric,
                   .inode = memory.key().second,
                   .filesystem = memory.key().first,
                   .bytes = traits.bytes});
}

CUresult import_fabric(const FabricHandle& handle, MemoryTable& table, std::shared_ptr<Memory>* memory) {
    std::shared_ptr<Backing> backing;
    if (const CUresult result = find_exported(handle, table.backings(), &backing); result != CUDA_SUCCESS) {
        return result;
    }
    *memory = table.adopt(std::move(backing), {.location_kind = handle.location_kind,
                                               .location_id = handle.location_id,
                                               .rdma = handle.rdma,
                                               .handle_types = kHandleFabric,
                                               .bytes = handle.bytes});
    return CUDA_SUCCESS;
}

CUresult import_descriptor(int descriptor, MemoryTable& table, std::shared_ptr<Memory>* memory) {
    FileDescriptor file(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
    if (!file.valid()) return is_a_limit(errno) ? out_of_memory("fcntl", errno) : CUDA_ERROR_UNKNOWN;
    MemoryTraits traits;
    struct stat status {};
    if (!read_traits(file.get(), &traits) || ::fstat(file.get(), &status) != 0 ||
        static_cast<std::uint64_t>(status.st_size) != traits.bytes) {
        return CUDA_ERROR_UNKNOWN;
    }
    traits.handle_types = kHandlePosixFd;
    *memory = table.adopt(std::move(file), Backing::key_of(status), traits);
    return CUDA_SUCCESS;
}

}  // namespace fabricmem::detail::emulated
