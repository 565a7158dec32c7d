# What our own targets are compiled with. Nothing of it reaches a consumer.

if(FABRICMEM_SANITIZE)
    list(JOIN FABRICMEM_SANITIZE "," sanitizers)
    add_compile_options(-fsanitize=${sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${sanitizers})
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
        $<$<BOOL:${FABRICMEM_WARNINGS_AS_ERRORS}>:-Werror>)
endfunction()
