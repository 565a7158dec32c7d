// SPDX-License-Identifier: Apache-2.0
// What the drop-in libcuda.so.1 shows: which functions there are, what those answer that are not emulated, and what all
// answer before cuInit, after a fork and at exit. Calls every function with zeros, as one of twelve numbers.
#include <dlfcn.h>
#include <sys/wait.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "check.hpp"

namespace {

using Number = long;
using Function = int (*)(Number, Number, Number, Number, Number, Number, Number, Number, Number, Number, Number,
                         Number);

constexpr const char* kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";

std::string text_of(const char* path) {
    std::ifstream file(path);
    std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    REQUIRE(!text.empty());
    return text;
}

// The symbols that cuda.h, as text, asks for: each declared name, and what the macros of that name stand for.
std::set<std::string> read_cuda_h() {
    std::istringstream lines(text_of(FABRICMEM_CUDA_H));
    std::set<std::string> names;
    const auto name_at = [](const std::string& line, std::size_t at) {
        return line.substr(at, line.find_first_not_of(kLetters, at) - at);
    };
    for (std::string line; std::getline(lines, line);) {
        if (const std::size_t at = line.find("CUDAAPI cu"); at != std::string::npos)
            names.insert(name_at(line, at + 8));
        std::size_t at = line.find("define cu");
        if (line.find('#') > at || at == std::string::npos) continue;
        at = line.find_first_not_of(' ', line.find(' ', at + 7));  // what the name stands for
        const std::string stands_for = at == std::string::npos ? "" : name_at(line, at);
        if (stands_for.substr(0, 2) == "cu") names.insert(stands_for);
        if (stands_for != "__CUDA_API_PTSZ" && stands_for != "__CUDA_API_PTDS") continue;
        const std::string name = name_at(line, line.find('(', at) + 1);
        names.insert(name);
        names.insert(name + (stands_for.back() == 'Z' ? "_ptsz" : "_ptds"));
    }
    names.erase("cuGetProcAddress_v2_ptsz");  // an inline function of the header's
    REQUIRE(names.size() > 500);
    return names;
}

const std::set<std::string>& names_of_cuda_h() {
    static const std::set<std::string> names = read_cuda_h();
    return names;
}

std::set<std::string> stubs() {
    const std::string text = text_of(FABRICMEM_LIBCUDA_STUBS);
    std::set<std::string> names;
    const std::regex line("STUB\\((cu\\w+)\\)\n");
    for (std::sregex_iterator found(text.begin(), text.end(), line), end; found != end; ++found)
        names.insert((*found)[1]);
    return names;
}

int call_with_zeros(const std::string& name) {
    const auto function = reinterpret_cast<Function>(::dlsym(RTLD_DEFAULT, name.c_str()));
    REQUIRE(function != nullptr);
    return function(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
}

void make_current() {
    CUcontext context = nullptr;
    REQUIRE_OK(cuInit(0));
    REQUIRE_OK(cuDevicePrimaryCtxRetain(&context, 0));
    REQUIRE_OK(cuCtxSetCurrent(context));
}

bool answers_anyway(const std::string& name) {
    static const std::set<std::string> names{"cuInit",           "cuDriverGetVersion", "cuGetErrorName",
                                             "cuGetErrorString", "cuGetProcAddress",   "cuGetProcAddress_v2",
                                             "cuGetExportTable"};
    return names.count(name) != 0;
}

void all_of_cuda_h() {
    int missing = 0;
    for (const std::string& name : names_of_cuda_h()) {
        Dl_info info{};
        void* const function = ::dlsym(RTLD_DEFAULT, name.c_str());
        const bool ours = function != nullptr && ::dladdr(function, &info) != 0 &&
                          std::string_view(info.dli_fname).find("emulated-cuda/libcuda.so.1") != std::string_view::npos;
        if (!ours) std::fprintf(stderr, "missing: %s\n", name.c_str()), ++missing;
    }
    REQUIRE(missing == 0);
}

void nothing_else() {
    const std::string command = "'" FABRICMEM_NM "' -D --defined-only '" FABRICMEM_LIBCUDA "'";
    FILE* const pipe = ::popen(command.c_str(), "r");
    REQUIRE(pipe != nullptr);
    char line[4096];
    int count = 0;
    while (std::fgets(line, sizeof line, pipe) != nullptr) {
        std::string_view name = line;
        name.remove_prefix(std::min(name.rfind(' ') + 1, name.size()));
        if (name.substr(0, 2) != "cu") std::fprintf(stderr, "exported: %s", line);
        REQUIRE(name.substr(0, 2) == "cu");
        ++count;
    }
    ::pclose(pipe);
    REQUIRE(count > 500);
}

// Each is called in a context of its own making, since some of them take it away.
void zeros() {
    const std::set<std::string> refused = stubs();
    REQUIRE(refused.size() > 200);
    for (const std::string& name : names_of_cuda_h()) {
        make_current();
        const int code = call_with_zeros(name);
        const bool not_supported = code == CUDA_ERROR_NOT_SUPPORTED;
        if (not_supported != (refused.count(name) != 0) && name != "cuGetExportTable") {
            std::fprintf(stderr, "%s answers %d\n", name.c_str(), code);
            std::_Exit(1);
        }
    }
}

/// What `work` writes to stderr.
std::string stderr_of(const std::function<void()>& work) {
    FILE* const file = std::tmpfile();
    REQUIRE(file != nullptr);
    const int before = ::dup(STDERR_FILENO);
    ::dup2(::fileno(file), STDERR_FILENO);
    work();
    ::dup2(before, STDERR_FILENO);
    ::close(before);
    std::string text(static_cast<std::size_t>(std::max(0L, std::ftell(file))), '\0');
    std::rewind(file);
    text.resize(65536);
    text.resize(std::fread(text.data(), 1, text.size(), file));
    std::fclose(file);
    return text;
}

void log() {
    const std::string at_init = stderr_of([] { REQUIRE_OK(cuInit(0)); });
    REQUIRE(at_init.find("emulated driver") != std::string::npos);
    const std::string first = stderr_of([] {
        for (int i = 0; i < 3; ++i) REQUIRE_CODE(CUDA_ERROR_NOT_SUPPORTED, cuMemAllocManaged(nullptr, 0, 0));
    });
    REQUIRE(first.find("cuMemAllocManaged") != std::string::npos);
    REQUIRE(first.find("cuMemAllocManaged") == first.rfind("cuMemAllocManaged"));
    const std::string tables =
        stderr_of([] { REQUIRE_CODE(CUDA_ERROR_NOT_SUPPORTED, cuGetExportTable(nullptr, nullptr)); });
    REQUIRE(tables.find("cuGetExportTable") != std::string::npos);
}

int not_3() {
    int others = 0;
    for (const std::string& name : names_of_cuda_h()) {
        if (answers_anyway(name)) continue;
        const int code = call_with_zeros(name);
        if (code != CUDA_ERROR_NOT_INITIALIZED) std::fprintf(stderr, "%s answers %d\n", name.c_str(), code), ++others;
    }
    return others;
}

void before_init() {
    REQUIRE(not_3() == 0);
    int version = 0;
    REQUIRE_OK(cuDriverGetVersion(&version));
    REQUIRE(version >= 12080);
    REQUIRE_CODE(CUDA_ERROR_INVALID_VALUE, cuInit(1));
    REQUIRE(not_3() == 0);
}

void forked() {
    make_current();
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        const bool init = cuInit(0) == CUDA_ERROR_NOT_INITIALIZED;
        ::_exit(init && not_3() == 0 ? 0 : 1);
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    REQUIRE_OK(cuCtxSynchronize());
}

void faults() {
    REQUIRE(::setenv("FABRICMEM_FAULTS", "no rule", 1) == 0);
    const std::string refusal = stderr_of([] { REQUIRE_CODE(CUDA_ERROR_UNKNOWN, cuInit(0)); });
    REQUIRE(refusal.find("no rule") != std::string::npos);
    REQUIRE(::setenv("FABRICMEM_FAULTS", "cuMemAlloc#2=fail:46", 1) == 0);
    make_current();
    CUdeviceptr address = 0;
    REQUIRE_OK(cuMemAlloc(&address, 64));
    REQUIRE_CODE(CUDA_ERROR_DEVICE_UNAVAILABLE, cuMemAlloc(&address, 64));
    REQUIRE_OK(cuMemAlloc(&address, 64));
}

// invented: the codes, all of them. A real driver may crash of such handles.
void ended_handles() {
    make_current();
    CUcontext context = nullptr;
    CUstream stream = nullptr;
    CUevent event = nullptr;
    CUevent other = nullptr;
    REQUIRE_OK(cuEventCreate(&other, 0));
#if CUDA_VERSION >= 13000
    REQUIRE_OK(cuCtxCreate(&context, nullptr, 0, 0));
#else
    REQUIRE_OK(cuCtxCreate(&context, 0, 0));
#endif
    REQUIRE_OK(cuStreamCreate(&stream, 0));
    REQUIRE_OK(cuEventCreate(&event, 0));
    REQUIRE_CODE(CUDA_ERROR_INVALID_HANDLE, cuEventRecord(other, stream));  // of two contexts
    REQUIRE_OK(cuEventRecord(event, stream));
    REQUIRE_OK(cuCtxPushCurrent(context));
    REQUIRE_OK(cuCtxDestroy(context));
    REQUIRE_CODE(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuCtxSynchronize());  // it is below in the stack, too
    REQUIRE_CODE(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuStreamQuery(stream));
    REQUIRE_OK(cuCtxPopCurrent(&context));
    REQUIRE_CODE(CUDA_ERROR_INVALID_HANDLE, cuStreamQuery(stream));
    REQUIRE_CODE(CUDA_ERROR_INVALID_HANDLE, cuEventQuery(event));
    REQUIRE_CODE(CUDA_ERROR_INVALID_CONTEXT, cuCtxSetCurrent(context));
    REQUIRE_CODE(CUDA_ERROR_INVALID_CONTEXT, cuCtxDestroy(context));
    REQUIRE_OK(cuEventDestroy(other));
    REQUIRE_CODE(CUDA_ERROR_INVALID_HANDLE, cuEventDestroy(other));
    REQUIRE_CODE(CUDA_ERROR_INVALID_HANDLE, cuStreamWaitEvent(nullptr, other, 0));
    REQUIRE_OK(cuCtxGetCurrent(&context));
    REQUIRE_CODE(CUDA_ERROR_INVALID_CONTEXT, cuCtxDestroy(context));  // a primary one
}

// Made before cuInit, so destroyed after what cuInit leaves for the exit.
struct Late {
    ~Late() {
        CUcontext context = nullptr;
        if (cuCtxGetCurrent(&context) != CUDA_ERROR_DEINITIALIZED) std::_Exit(1);
    }
};

void exit_alive() {
    static const Late late;
    static_cast<void>(late);
    make_current();
    CUdeviceptr flag = 0;
    CUstream stream = nullptr;
    CUevent event = nullptr;
    REQUIRE_OK(cuMemAlloc(&flag, 64));
    REQUIRE_OK(cuMemsetD8(flag, 0, 64));
    REQUIRE_OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    REQUIRE_OK(cuEventCreate(&event, 0));
    REQUIRE_OK(cuStreamWaitValue32(stream, flag, 1, CU_STREAM_WAIT_VALUE_EQ));
    REQUIRE_OK(cuEventRecord(event, stream));
    std::exit(0);
}

#if __has_include(<cudaTypedefs.h>)
// Null below the first version.
void* look_up(const std::string& name, int version) {
    void* function = nullptr;
    CUdriverProcAddressQueryResult status{};
    REQUIRE_OK(cuGetProcAddress(name.c_str(), &function, version, CU_GET_PROC_ADDRESS_LEGACY_STREAM, &status));
    REQUIRE(status == (function != nullptr ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT));
    return function;
}
std::string symbol_of(void* function) {
    Dl_info info{};
    REQUIRE(::dladdr(function, &info) != 0 && info.dli_sname != nullptr);
    return info.dli_sname;
}

// cudaTypedefs.h names each version of each function. Where the drop-in emulates one, a look-up finds another function
// for each of its versions, and nothing below the first.
void versions() {
    const std::string text = text_of(FABRICMEM_CUDA_TYPEDEFS);
    std::vector<std::pair<std::string, int>> found;
    const std::regex pattern("\\*PFN_(cu\\w+?)_v(\\d+)\\)");
    for (std::sregex_iterator match(text.begin(), text.end(), pattern), end; match != end; ++match)
        found.emplace_back((*match)[1], std::stoi((*match)[2]));
    REQUIRE(found.size() > 500);
    int newest = 0;
    REQUIRE_OK(cuDriverGetVersion(&newest));
    found.erase(std::remove_if(found.begin(), found.end(), [&](const auto& row) { return row.second > newest; }),
                found.end());
    std::sort(found.begin(), found.end());
    const std::set<std::string> refused = stubs();
    int emulated = 0;
    for (auto row = found.begin(); row != found.end(); ++row) {
        const auto& [name, version] = *row;
        const bool first = row == found.begin() || std::prev(row)->first != name;
        const bool last = std::next(row) == found.end() || std::next(row)->first != name;
        void* const function = look_up(name, version);
        void* const latest = look_up(name, newest);
        REQUIRE(function != nullptr);
        if (refused.count(symbol_of(latest)) != 0) continue;
        ++emulated;
        if (look_up(name, version - 1) == function || (latest == function) != last) {
            std::fprintf(stderr, "%s of %d is another version's too\n", name.c_str(), version);
            std::_Exit(1);
        }
        REQUIRE(!first || look_up(name, version - 1) == nullptr);
    }
    REQUIRE(emulated > 100);
}
#else
void versions() { std::printf("FABRICMEM-SKIPPED: cudaTypedefs.h is not here\n"); }
#endif

}  // namespace

int main(int argc, char** argv) {
    const Case cases[] = {{"all-of-cuda-h", all_of_cuda_h},
                          {"nothing-else", nothing_else},
                          {"zeros", zeros},
                          {"log", log},
                          {"before-init", before_init},
                          {"forked", forked},
                          {"exit-alive", exit_alive},
                          {"ended-handles", ended_handles},
                          {"faults", faults},
                          {"versions", versions}};
    return run_case(cases, argc, argv);
}
