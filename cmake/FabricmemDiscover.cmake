# Run by ctest: registers the test cases of `program`. Every case runs with FABRICMEM_TEST_DRIVER=emulated; those tagged
# [each] a second time, as "cuda: <name>", with FABRICMEM_TEST_DRIVER=cuda, one at a time, as there is one GPU; those tagged
# [real] as "cuda: <name>" alone: they say why nothing else can be tested for that. Where `libcuda` is the drop-in libcuda's
# folder, those tagged [each] run a third time, as "libcuda: <name>", with FABRICMEM_TEST_DRIVER=cuda on that.
# Reads program, launcher, catch2_major, libcuda, timeout, directory.

# Sets <result> to the names of the cases that match <spec>, one a line, from a list that is kept until the program is newer.
function(fabricmem_list_cases result spec file)
    if("${program}" IS_NEWER_THAN "${file}")
        set(arguments --list-test-names-only)
        if(catch2_major GREATER_EQUAL 3)
            set(arguments --list-tests --verbosity quiet)
        endif()
        # Catch2 2 answers with the number of cases, Catch2 3 with 0; both say nothing on stderr.
        execute_process(COMMAND ${launcher} "${program}" "${spec}" ${arguments} WORKING_DIRECTORY "${directory}"
                        OUTPUT_VARIABLE output RESULT_VARIABLE code TIMEOUT 300)
        if(NOT code MATCHES "^[0-9]+$" OR (catch2_major GREATER_EQUAL 3 AND NOT code EQUAL 0))
            message(FATAL_ERROR " ${program} does not list its test cases: ${code}")
        endif()
        file(WRITE "${file}" "${output}")
    endif()
    file(READ "${file}" output)
    set(${result} "${output}" PARENT_SCOPE)
endfunction()

function(fabricmem_register prefix driver cases)
    # One case a line; `;` and `[` in a name must not be taken for CMake's.
    while(cases MATCHES "^([^\n]*)\n(.*)$")
        set(case "${CMAKE_MATCH_1}")
        set(cases "${CMAKE_MATCH_2}")
        if(case STREQUAL "")
            continue()
        endif()
        string(REGEX REPLACE "([],[\\\\])" "\\\\\\1" spec "${case}")
        add_test("${prefix}${case}" ${launcher} "${program}" "${spec}")
        set(environment "FABRICMEM_TEST_DRIVER=${driver}")
        if(launcher)
            list(JOIN launcher " " text)
            list(APPEND environment "FABRICMEM_TEST_LAUNCHER=${text}")
        endif()
        if(prefix STREQUAL "libcuda: ")
            list(APPEND environment "LD_LIBRARY_PATH=${libcuda}")
        endif()
        set_tests_properties("${prefix}${case}" PROPERTIES
            WORKING_DIRECTORY "${directory}"
            TIMEOUT ${timeout}
            LABELS "${label}"
            ENVIRONMENT "${environment}"
            FAIL_REGULAR_EXPRESSION "No test cases matched|No tests ran"
            SKIP_REGULAR_EXPRESSION "FABRICMEM-SKIPPED:")
        if(prefix STREQUAL "libcuda: ")
            # The drop-in's driver is never destroyed, so that a thread of its streams that has ended is never joined.
            set_tests_properties("${prefix}${case}" PROPERTIES
                ENVIRONMENT_MODIFICATION "TSAN_OPTIONS=string_append: report_thread_leaks=0")
        endif()
        if(prefix STREQUAL "cuda: ")
            set_tests_properties("${prefix}${case}" PROPERTIES RESOURCE_LOCK fabricmem_gpu)
        endif()
    endwhile()
endfunction()

get_filename_component(label "${program}" NAME)
if(EXISTS "${program}")
    fabricmem_list_cases(cases "~[.]~[real]" "${program}.cases")
    fabricmem_register("" emulated "${cases}")
    fabricmem_list_cases(cases "[each]~[.],[real]~[.]" "${program}.each")
    fabricmem_register("cuda: " cuda "${cases}")
    if(libcuda)
        fabricmem_list_cases(cases "[each]~[.]~[real]" "${program}.libcuda")
        fabricmem_register("libcuda: " cuda "${cases}")
    endif()
else()
    add_test("${label} was not built" "${program}")
endif()
