# fmt, spdlog and nlohmann/json are used by their headers alone and are private: no consumer needs them, and no libfmt
# or libspdlog is needed at run time. So their targets are never linked: Debian's spdlog_header_only brings in the shared
# fmt. What they say of include directories is taken over, and their header-only switches are set here.

find_package(FabricmemCudaHeader QUIET)
if(NOT FabricmemCudaHeader_FOUND)
    # The leading space keeps CMake from breaking the line.
    message(FATAL_ERROR " ${FabricmemCudaHeader_NOT_FOUND_MESSAGE}")
endif()
message(STATUS "cuda.h ${FabricmemCudaHeader_VERSION}: ${FabricmemCudaHeader_INCLUDE_DIR}")

find_package(Threads REQUIRED)
if(FABRICMEM_HEADER_ONLY_DEPS)
    set(fabricmem_header_only_dirs "${FABRICMEM_HEADER_ONLY_DEPS}")
else()
    find_package(fmt REQUIRED)
    find_package(spdlog REQUIRED)
    find_package(nlohmann_json REQUIRED)
    set(fabricmem_header_only_dirs
        $<TARGET_PROPERTY:fmt::fmt-header-only,INTERFACE_INCLUDE_DIRECTORIES>
        $<TARGET_PROPERTY:spdlog::spdlog_header_only,INTERFACE_INCLUDE_DIRECTORIES>
        $<TARGET_PROPERTY:nlohmann_json::nlohmann_json,INTERFACE_INCLUDE_DIRECTORIES>)
endif()

# hiredis, for make_redis_store alone.
set(fabricmem_redis OFF)
if(FABRICMEM_WITH_REDIS)
    find_path(FABRICMEM_HIREDIS_INCLUDE_DIR hiredis/hiredis.h)
    find_library(FABRICMEM_HIREDIS_LIBRARY hiredis)
    mark_as_advanced(FABRICMEM_HIREDIS_INCLUDE_DIR FABRICMEM_HIREDIS_LIBRARY)
    if(FABRICMEM_HIREDIS_INCLUDE_DIR AND FABRICMEM_HIREDIS_LIBRARY)
        set(fabricmem_redis ON)
    elseif(NOT FABRICMEM_WITH_REDIS STREQUAL "AUTO")
        message(FATAL_ERROR " FABRICMEM_WITH_REDIS=${FABRICMEM_WITH_REDIS}, but hiredis was not found (libhiredis-dev)")
    endif()
endif()
message(STATUS "make_redis_store: ${fabricmem_redis}")

# fabricmem_use_header_only(<target>): fmt, spdlog and nlohmann/json for <target>, for nobody who links it. Their namespaces
# get names of our own: a static library can't hide what it instantiates, and a consumer's fmt may be another version.
function(fabricmem_use_header_only target)
    target_include_directories(${target} SYSTEM PRIVATE ${fabricmem_header_only_dirs})
    target_compile_definitions(${target} PRIVATE FMT_HEADER_ONLY=1 SPDLOG_FMT_EXTERNAL
        fmt=fabricmem_fmt spdlog=fabricmem_spdlog nlohmann=fabricmem_nlohmann)
    if(fabricmem_precompiled)
        target_precompile_headers(${target} REUSE_FROM ${fabricmem_precompiled})
    endif()
endfunction()
