# What our own targets are compiled with. Nothing of it reaches a consumer.

if(FABRICMEM_SANITIZE)
    list(JOIN FABRICMEM_SANITIZE "," sanitizers)
    add_compile_options(-fsanitize=${sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${sanitizers})
    # clang's alone: a driver may answer with numbers that cuda.h does not name, and one entry point has several types by version.
    if(CMAKE_CXX_COMPILER_ID MATCHES "Clang" AND sanitizers MATCHES "undefined")
        add_compile_options(-fno-sanitize=function,enum)
    endif()
endif()

# fabricmem_own_target(<target>): the language, the visibility and the warnings of every target of ours.
function(fabricmem_own_target target)
    set_target_properties(${target} PROPERTIES
        CXX_STANDARD 20
        CXX_STANDARD_REQUIRED ON
        CXX_EXTENSIONS OFF
        CXX_VISIBILITY_PRESET hidden
        VISIBILITY_INLINES_HIDDEN ON
        POSITION_INDEPENDENT_CODE ON)
    target_compile_options(${target} PRIVATE
        -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
        $<$<BOOL:${FABRICMEM_WARNINGS_AS_ERRORS}>:-Werror>
        # GCC 12 sees overlaps and overflows in what it inlines of std::string (its bug 105651).
        $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict;-Wno-stringop-overflow;-Wno-array-bounds>)
    if(FABRICMEM_PRECOMPILED_HEADERS)  # programs too: what is compiled with -fPIE can't use what was with -fPIC
        set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
        target_compile_options(${target} PRIVATE -fPIC)
    endif()
endfunction()

# fabricmem_add_precompiled(<name> [<libraries>...] HEADERS <headers>...): most of a file's compile time is the standard's headers,
# cuda.h and Catch2; with FABRICMEM_PRECOMPILED_HEADERS the targets of this folder and those below that use our header-only
# libraries, and so have the same macros, share one parse of them. Off by default: it hides a missing #include.
function(fabricmem_add_precompiled name)
    cmake_parse_arguments(PARSE_ARGV 1 wanted "" "" "LIBRARIES;HEADERS")
    set(empty "${CMAKE_CURRENT_BINARY_DIR}/${name}.cpp")
    file(CONFIGURE OUTPUT "${empty}" CONTENT "")
    add_library(${name} OBJECT "${empty}")
    fabricmem_own_target(${name})
    set(fabricmem_precompiled "")
    fabricmem_use_header_only(${name})
    target_include_directories(${name} SYSTEM PRIVATE "${FabricmemCudaHeader_INCLUDE_DIR}")
    target_link_libraries(${name} PRIVATE ${wanted_LIBRARIES})
    target_precompile_headers(${name} PRIVATE
        <algorithm> <array> <atomic> <chrono> <condition_variable> <cstdint> <fstream> <functional> <map> <memory> <mutex>
        <optional> <sstream> <stdexcept> <string> <string_view> <thread> <unordered_map> <utility> <vector> <cuda.h>
        ${wanted_HEADERS})
    set(fabricmem_precompiled ${name} PARENT_SCOPE)
endfunction()
