# Registers Catch2 test cases with ctest. Catch2's own catch_discover_tests is not used: 2.13's and 3.4's differ in when
# they ask the program for its tests and in how a list passes through their PROPERTIES, and we register some cases twice.

set(fabricmem_default_timeout 120)
if(FABRICMEM_SANITIZE OR CMAKE_CROSSCOMPILING)
    set(fabricmem_default_timeout 600)
endif()
set(FABRICMEM_TEST_TIMEOUT ${fabricmem_default_timeout} CACHE STRING "Seconds that one test case may take")

# fabricmem_define_for_tests(<target> <MACRO>): <MACRO> is the path of <target> in every test.
function(fabricmem_define_for_tests target macro)
    set_property(TARGET fabricmem_test_support APPEND PROPERTY INTERFACE_COMPILE_DEFINITIONS
                 ${macro}="$<TARGET_FILE:${target}>")
    set_property(GLOBAL APPEND PROPERTY FABRICMEM_TEST_PROGRAMS ${target})
endfunction()

# fabricmem_add_fake(<name> <file> [macros...]): a library that tests dlopen; FABRICMEM_<NAME> is its path.
function(fabricmem_add_fake name file)
    string(TOUPPER ${name} upper)
    add_library(fabricmem_test_${name} MODULE ${file})
    fabricmem_own_target(fabricmem_test_${name})
    fabricmem_use_header_only(fabricmem_test_${name})
    target_include_directories(fabricmem_test_${name} PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
    target_include_directories(fabricmem_test_${name} SYSTEM PRIVATE "${FabricmemCudaHeader_INCLUDE_DIR}")
    target_compile_definitions(fabricmem_test_${name} PRIVATE ${ARGN})
    fabricmem_define_for_tests(fabricmem_test_${name} FABRICMEM_${upper})
endfunction()

# fabricmem_add_test(<name> <file>): a program of test cases.
function(fabricmem_add_test name file)
    add_executable(${name} ${file})
    fabricmem_own_target(${name})
    fabricmem_use_header_only(${name})
    target_link_libraries(${name} PRIVATE fabricmem_test_support)
    get_property(programs GLOBAL PROPERTY FABRICMEM_TEST_PROGRAMS)
    if(programs)
        add_dependencies(${name} ${programs})
    endif()
    set(launcher "")
    if(CMAKE_CROSSCOMPILING)
        set(launcher ${CMAKE_CROSSCOMPILING_EMULATOR})
    endif()
    # The driver's conformance is tried on the drop-in libcuda too; not what is about device nodes, of which it has none.
    set(libcuda "")
    if(FABRICMEM_BUILD_EMULATED_LIBCUDA AND name MATCHES "^driver_conformance_" AND NOT name MATCHES "_channel_")
        set(libcuda "$<TARGET_FILE_DIR:fabricmem_libcuda>")
        add_dependencies(${name} fabricmem_libcuda)
    endif()
    # ctest includes this file when it starts.
    file(GENERATE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/${name}_$<CONFIG>.cmake" CONTENT
"set(program [==[$<TARGET_FILE:${name}>]==])
set(launcher [==[${launcher}]==])
set(catch2_major ${fabricmem_catch2_major})
set(libcuda [==[${libcuda}]==])
set(timeout ${FABRICMEM_TEST_TIMEOUT})
set(directory [==[${CMAKE_CURRENT_BINARY_DIR}]==])
include([==[${PROJECT_SOURCE_DIR}/cmake/FabricmemDiscover.cmake]==])
")
    file(WRITE "${CMAKE_CURRENT_BINARY_DIR}/${name}_tests.cmake"
"set(configuration \"\${CTEST_CONFIGURATION_TYPE}\")
if(NOT configuration)
    set(configuration \"${CMAKE_BUILD_TYPE}\")
endif()
include(\"${CMAKE_CURRENT_BINARY_DIR}/${name}_\${configuration}.cmake\")
")
    set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES "${CMAKE_CURRENT_BINARY_DIR}/${name}_tests.cmake")
endfunction()
