# Run at build time: writes the drop-in libcuda's stubs and its table of symbols. Reads declarations (cuda.h, preprocessed), sources
# (what is emulated: each FABRICMEM_CUDA is a function), output. Every function of cuda.h that the sources lack becomes a stub.

set(emulated "")
foreach(source IN LISTS sources)
    file(READ "${source}" text)
    string(REGEX MATCHALL "FABRICMEM_CUDA cu[A-Za-z0-9_]+" matches "${text}")
    list(TRANSFORM matches REPLACE "FABRICMEM_CUDA " "")
    list(APPEND emulated ${matches})
endforeach()

file(READ "${declarations}" text)
string(REGEX MATCHALL "CUresult[ \t\r\n]+cu[A-Za-z0-9_]+[ \t\r\n]*\\(" declared "${text}")
list(TRANSFORM declared REPLACE "CUresult[ \t\r\n]+" "")
list(TRANSFORM declared REPLACE "[ \t\r\n]*\\($" "")
list(APPEND declared cuProfilerInitialize cuProfilerStart cuProfilerStop)  # of cudaProfiler.h
list(REMOVE_DUPLICATES declared)
list(LENGTH declared count)
if(count LESS 400 OR emulated STREQUAL "")
    message(FATAL_ERROR " ${count} functions found in cuda.h: this script does not understand it")
endif()

set(stubs ${declared})
list(REMOVE_ITEM stubs ${emulated})
set(all ${declared} ${emulated})
list(REMOVE_DUPLICATES all)
list(SORT all)  # the table is searched by halves: in the order of bytes

list(TRANSFORM stubs REPLACE "(.+)" "STUB(\\1)" OUTPUT_VARIABLE stub_lines)
list(JOIN stub_lines "\n" stub_lines)
list(TRANSFORM emulated REPLACE "(.+)" "EMULATED(\\1)" OUTPUT_VARIABLE emulated_lines)
list(JOIN emulated_lines "\n" emulated_lines)
list(TRANSFORM all REPLACE "(.+)" "    ENTRY(\\1)," OUTPUT_VARIABLE table_lines)
list(JOIN table_lines "\n" table_lines)
file(WRITE "${output}" "// Made by cmake/FabricmemLibcudaStubs.cmake from cuda.h. Includes no header of CUDA's: every function is called as one
// without arguments, which the calling conventions of x86-64 and aarch64 allow.
#include <algorithm>
#include <string_view>

extern \"C\" {

int fabricmem_libcuda_stub(const char* name);

#define EMULATED(name) int name();
${emulated_lines}
#undef EMULATED

#define STUB(name) \\
    __attribute__((visibility(\"default\"))) int name() { return fabricmem_libcuda_stub(#name); }
${stub_lines}
#undef STUB

}  // extern \"C\"

namespace fabricmem::detail::libcuda {

namespace {

struct Symbol {
    std::string_view name;
    int (*function)();
};

#define ENTRY(name) {#name, &::name}
const Symbol kSymbols[] = {
${table_lines}
};
#undef ENTRY

}  // namespace

void* find_symbol(std::string_view name) noexcept;
void* find_symbol(std::string_view name) noexcept {
    const Symbol* const found = std::lower_bound(std::begin(kSymbols), std::end(kSymbols), name,
                                                 [](const Symbol& symbol, std::string_view wanted) { return symbol.name < wanted; });
    return found == std::end(kSymbols) || found->name != name ? nullptr : reinterpret_cast<void*>(found->function);
}

}  // namespace fabricmem::detail::libcuda
")
