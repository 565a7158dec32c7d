// SPDX-License-Identifier: Apache-2.0
// The other process of driver tests: does one driver call a line, and answers "CODE [values]". Names no test.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <map>
#include <mutex>
#include <optional>
#include <sstream>

#include <fabricmem/emulated_fabric.hpp>
#include <fabricmem/log.hpp>

#include "support/channel_nodes.hpp"
#include "support/driver_under_test.hpp"

namespace {

using namespace fabricmem;
using namespace fabricmem::test;

struct Slot {
    CUmemGenericAllocationHandle handle = 0;
    CUdeviceptr address = 0;
    std::size_t bytes = 0;
};

std::map<int, Slot> g_slots;

using Options = std::map<std::string, std::string>;

std::string option(const Options& options, const std::string& name) {
    const auto found = options.find(name);
    return found == options.end() ? "" : found->second;
}

// "none", "0", "0,1"
std::vector<int> channel_numbers(const std::string& text) {
    std::vector<int> numbers;
    if (text == "none") return numbers;
    std::istringstream parts(text);
    for (std::string part; std::getline(parts, part, ',');) numbers.push_back(std::stoi(part));
    return numbers;
}

// --channel NUMBERS, --channel-user other: nodes that anybody may open, used by another user than root; denied: nodes
// that root alone may open, used by another user. Beside the real driver alone: on the emulated one it is an option.
void enter_channels(const Options& options) {
    if (options.count("--channel") == 0) return;
    const std::string user = option(options, "--channel-user");
    std::string failure =
        replace_channel_nodes(channel_numbers(option(options, "--channel")), user == "denied" ? 0600 : 0666);
    if (failure.empty() && !user.empty()) failure = become_nobody();
    if (!failure.empty()) throw Error({.kind = ErrorKind::unsupported, .subject = failure});
}

std::shared_ptr<Driver> make_driver(const Options& options) {
    if (std::getenv("FABRICMEM_EMULATOR") != nullptr) return make_emulated_driver_from_environment();
    if (testing_cuda()) {
        enter_channels(options);
        return driver_under_test();
    }
    EmulatedOptions emulated;
    if (options.count("--channel") != 0) {
        const std::vector<int> numbers = channel_numbers(option(options, "--channel"));
        emulated.imex_channel = numbers.empty() ? std::nullopt : std::optional<int>(numbers.front());
        emulated.imex_channel_errno = option(options, "--channel-user") == "denied" ? EACCES : 0;
    }
    emulated.node = option(options, "--node");
    if (options.count("--devices") != 0) emulated.devices = std::stoi(option(options, "--devices"));
    return make_emulated_driver(emulated);
}

std::string answer(CUresult result, const std::string& rest = {}) {
    return std::to_string(static_cast<int>(result)) + (rest.empty() ? "" : " " + rest);
}

// create device|host TYPES: makes memory and lets it go.
std::string do_create(Driver& driver, std::istringstream& words) {
    std::string place;
    unsigned int types = 0;
    words >> place >> types;
    const CUmemAllocationProp wanted = memory_at(place == "host" ? kHostNuma : kDevice, 0, types);
    CUmemGenericAllocationHandle handle = 0;
    const CUresult result = driver.mem_create(&handle, kTwoMiB, &wanted, 0);
    return answer(result == CUDA_SUCCESS ? driver.mem_release(handle) : result);
}

// attribute NUMBER: of device 0.
std::string do_attribute(Driver& driver, std::istringstream& words) {
    int number = 0;
    words >> number;
    int value = -1;
    const CUresult result = driver.device_get_attribute(&value, static_cast<CUdevice_attribute>(number), 0);
    return answer(result, std::to_string(value));
}

// export SLOT device|host TYPES RDMA: makes memory and maps nothing yet.
std::string do_export(Driver& driver, std::istringstream& words) {
    int slot = 0;
    std::string place;
    unsigned int types = 0;
    words >> slot >> place >> types;
    const CUmemAllocationProp wanted = memory_at(place == "host" ? kHostNuma : kDevice, 0, types);
    Slot made{.handle = 0, .address = 0, .bytes = kTwoMiB};
    CUresult result = driver.mem_create(&made.handle, kTwoMiB, &wanted, 0);
    FabricBytes bytes{};
    if (result == CUDA_SUCCESS) result = export_fabric(driver, made.handle, &bytes);
    if (result == CUDA_SUCCESS) g_slots[slot] = made;
    return answer(result, to_hex(bytes));
}

// import SLOT HEX [BYTES]: 2 MiB, or as many as the exporter says; map maps as many.
std::string do_import(Driver& driver, std::istringstream& words) {
    int slot = 0;
    std::string hex;
    std::size_t bytes = 0;
    words >> slot >> hex;
    if (!(words >> bytes)) bytes = kTwoMiB;
    Slot made{.handle = 0, .address = 0, .bytes = bytes};
    const CUresult result = import_fabric(driver, from_hex(hex), &made.handle);
    if (result == CUDA_SUCCESS) g_slots[slot] = made;
    return answer(result);
}

// map SLOT device|both FLAGS
std::string do_map(Driver& driver, std::istringstream& words) {
    int number = 0;
    std::string who;
    unsigned int flags = 0;
    words >> number >> who >> flags;
    Slot& slot = g_slots[number];
    CUresult result = driver.mem_address_reserve(&slot.address, slot.bytes, 0, 0, 0);
    if (result == CUDA_SUCCESS) result = driver.mem_map(slot.address, slot.bytes, 0, slot.handle, 0);
    std::vector<CUmemAccessDesc> access{access_for(kDevice, flags)};
    if (who == "both") access.push_back(access_for(kHostNuma, flags));
    if (result == CUDA_SUCCESS) result = driver.mem_set_access(slot.address, slot.bytes, access.data(), access.size());
    return answer(result);
}

std::string do_unmap(Driver& driver, std::istringstream& words) {
    int slot = 0;
    words >> slot;
    return answer(driver.mem_unmap(g_slots[slot].address, g_slots[slot].bytes));
}

std::string do_release(Driver& driver, std::istringstream& words) {
    int slot = 0;
    words >> slot;
    return answer(driver.mem_release(g_slots[slot].handle));
}

// write SLOT OFFSET VALUE, read SLOT OFFSET: 32 bits, by a copy.
std::string do_write(Driver& driver, std::istringstream& words) {
    int slot = 0;
    std::size_t offset = 0;
    std::uint32_t value = 0;
    words >> slot >> offset >> value;
    const CUresult result = driver.memcpy_htod(g_slots[slot].address + offset, &value, sizeof value);
    // A copy from pageable memory returns before another process can see the bytes: seen on an H100.
    return answer(result == CUDA_SUCCESS ? driver.ctx_synchronize() : result);
}

std::string do_read(Driver& driver, std::istringstream& words) {
    int slot = 0;
    std::size_t offset = 0;
    words >> slot >> offset;
    std::uint32_t value = 0;
    const CUresult result = driver.memcpy_dtoh(&value, g_slots[slot].address + offset, sizeof value);
    return answer(result, std::to_string(value));
}

// load SLOT, store SLOT VALUE: by the CPU, which may be the end of this process.
std::uint32_t* cpu_pointer(int slot) { return reinterpret_cast<std::uint32_t*>(g_slots[slot].address); }

void die_of_faults() {
    ::signal(SIGSEGV, SIG_DFL);  // a sanitizer's handler would turn it into an exit
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
}

std::string do_load(Driver&, std::istringstream& words) {
    int slot = 0;
    words >> slot;
    die_of_faults();
    return answer(CUDA_SUCCESS, std::to_string(__atomic_load_n(cpu_pointer(slot), __ATOMIC_ACQUIRE)));
}

std::string do_store(Driver&, std::istringstream& words) {
    int slot = 0;
    std::uint32_t value = 0;
    words >> slot >> value;
    die_of_faults();
    __atomic_store_n(cpu_pointer(slot), value, __ATOMIC_RELEASE);
    return answer(CUDA_SUCCESS);
}

// stream-write SLOT OFFSET VALUE
std::string do_stream_write(Driver& driver, std::istringstream& words) {
    int slot = 0;
    std::size_t offset = 0;
    std::uint32_t value = 0;
    words >> slot >> offset >> value;
    CUresult result = driver.stream_write_value32(nullptr, g_slots[slot].address + offset, value, 0);
    if (result == CUDA_SUCCESS) result = driver.stream_synchronize(nullptr);
    return answer(result);
}

// batch SLOT OFFSET VALUE heap|pinned|device: 32 bits by cuMemcpyBatchAsync, from such memory; may be the end of this
// process.
std::string do_batch(Driver& driver, std::istringstream& words) {
    int slot = 0;
    std::size_t offset = 0;
    std::uint32_t value = 0;
    std::string from;
    words >> slot >> offset >> value >> from;
    die_of_faults();
    const auto heap = std::make_unique<std::uint32_t>(value);
    auto source = reinterpret_cast<CUdeviceptr>(heap.get());
    void* pinned = nullptr;
    const Mapped memory(driver, device_memory(kNoHandle), {access_for(kDevice)});
    CUresult result = driver.mem_alloc_host(&pinned, sizeof value);
    if (result == CUDA_SUCCESS && from == "pinned") {
        *static_cast<std::uint32_t*>(pinned) = value;
        source = reinterpret_cast<CUdeviceptr>(pinned);
    }
    if (result == CUDA_SUCCESS && from == "device") {
        source = memory.address();
        result = driver.memcpy_htod(source, heap.get(), sizeof value);
    }
    CUstream stream = nullptr;
    if (result == CUDA_SUCCESS) result = driver.stream_create(&stream, CU_STREAM_NON_BLOCKING);
    CUdeviceptr destination = g_slots[slot].address + offset;
    std::size_t bytes = sizeof value;
    if (result == CUDA_SUCCESS) result = driver.memcpy_batch_async(&destination, &source, &bytes, 1, stream);
    if (result == CUDA_SUCCESS) result = driver.stream_synchronize(stream);
    return answer(result);
}

// lose-context: unmaps memory under queued work. Answers the codes of the unmap, of the work and of the next call.
std::string do_lose_context(Driver& driver, std::istringstream&) {
    const Mapped flag(driver, device_memory(kNoHandle), {access_for(kDevice)});
    Mapped data(driver, device_memory(kNoHandle), {access_for(kDevice)});
    CUstream waiting = nullptr;
    CUstream releasing = nullptr;
    driver.stream_create(&waiting, CU_STREAM_NON_BLOCKING);
    driver.stream_create(&releasing, CU_STREAM_NON_BLOCKING);
    CUresult queued = driver.stream_wait_value32(waiting, flag.address(), 1, CU_STREAM_WAIT_VALUE_EQ);
    // A small piece of work: 719. A memset of all 2 MiB, by another engine, was answered by 700 (docs/driver-notes.md).
    if (queued == CUDA_SUCCESS) queued = driver.memset_d8_async(data.address(), 1, 64, waiting);
    const CUresult unmapped = data.unmap();
    driver.stream_write_value32(releasing, flag.address(), 1, 0);
    const CUresult worked = driver.stream_synchronize(waiting);
    std::uint32_t value = 0;
    const CUresult next = driver.memcpy_dtoh(&value, flag.address(), sizeof value);
    return answer(queued, answer(unmapped) + " " + answer(worked) + " " + answer(next));
}

std::string do_undumpable(Driver&, std::istringstream&) { return std::to_string(::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)); }

std::string do_become_user(Driver&, std::istringstream& words) {
    unsigned int user = 0;
    words >> user;
    return std::to_string(::setuid(user));
}

// logged TEXT: whether the library has logged that since the start.
std::mutex g_log_mutex;
std::string g_log;

std::string do_logged(Driver&, std::istringstream& words) {
    std::string text;
    std::getline(words >> std::ws, text);
    const std::lock_guard lock(g_log_mutex);
    return answer(CUDA_SUCCESS, g_log.find(text) != std::string::npos ? "yes" : "no");
}

// switch NODE NAME VALUE: in the fabric that this process has joined.
std::string do_switch(Driver&, std::istringstream& words) {
    std::string node;
    std::string name;
    std::string value;
    words >> node >> name >> value;
    make_emulated_fabric_from_environment()->set(node, name, value);
    return answer(CUDA_SUCCESS);
}

// fabric NAME: makes one of a ready-made scenario, and answers how others join it.
std::string do_fabric(Driver&, std::istringstream& words) {
    std::string name;
    words >> name;
    static std::shared_ptr<EmulatedFabric> made;
    made = make_emulated_fabric(Scenario::ready_made(name));
    return answer(CUDA_SUCCESS, made->environment().at("FABRICMEM_EMULATOR"));
}

// place, count: where this process has joined, and how many devices it sees.
std::string do_place(Driver& driver, std::istringstream&) { return answer(CUDA_SUCCESS, emulated_place(driver)); }

std::string do_count(Driver& driver, std::istringstream&) {
    int count = 0;
    const CUresult result = driver.device_get_count(&count);
    return answer(result, std::to_string(count));
}

// exit-alive: exit() with a driver in a static and work that waits for ever.
std::shared_ptr<Driver> g_survivor;

std::string do_exit_alive(Driver&, std::istringstream&) {
    g_survivor = driver_under_test();
    static const CurrentContext context(*g_survivor);
    static const Mapped memory(*g_survivor, device_memory(kNoHandle), {access_for(kDevice)});
    g_survivor->stream_wait_value32(nullptr, memory.address(), 1, CU_STREAM_WAIT_VALUE_EQ);
    std::exit(0);
}

using Command = std::string (*)(Driver&, std::istringstream&);
const std::map<std::string, Command> kCommands{
    {"create", do_create},
    {"attribute", do_attribute},
    {"export", do_export},
    {"import", do_import},
    {"map", do_map},
    {"unmap", do_unmap},
    {"release", do_release},
    {"write", do_write},
    {"read", do_read},
    {"load", do_load},
    {"store", do_store},
    {"stream-write", do_stream_write},
    {"batch", do_batch},
    {"lose-context", do_lose_context},
    {"undumpable", do_undumpable},
    {"become-user", do_become_user},
    {"exit-alive", do_exit_alive},
    {"logged", do_logged},
    {"switch", do_switch},
    {"fabric", do_fabric},
    {"place", do_place},
    {"count", do_count},
};

// Null where there is none, and says why.
std::shared_ptr<Driver> driver_or_refusal(const Options& options) {
    try {
        return make_driver(options);
    } catch (const Error& error) {
        std::string text = error.what();
        std::replace(text.begin(), text.end(), '\n', ' ');
        std::cout << "refused " << error.code() << " " << text << std::endl;
        return nullptr;
    }
}

int serve(const Options& options) {
    const std::shared_ptr<Driver> driver = driver_or_refusal(options);
    if (!driver) return 1;
    const CurrentContext context(*driver);
    std::cout << "ready" << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string name;
        words >> name;
        if (name == "exit") break;
        const auto command = kCommands.find(name);
        std::cout << (command == kCommands.end() ? "unknown command " + name : command->second(*driver, words))
                  << std::endl;
    }
    std::cout.flush();
    ::_exit(0);  // without tear-down, as a process that ends in the middle of its work
}

}  // namespace

int main(int argc, char** argv) {
    ::alarm(300);  // no test lasts that long: an orphan ends
    set_log_sink([](LogLevel, std::string_view line) {
        const std::lock_guard lock(g_log_mutex);
        g_log.append(line).append("\n");
    });
    Options options;
    for (int i = 1; i + 1 < argc; i += 2) options[argv[i]] = argv[i + 1];
    try {
        return serve(options);
    } catch (const std::exception& error) {
        std::cerr << "fabricmem_test_peer: " << error.what() << '\n';
        return 1;
    }
}
