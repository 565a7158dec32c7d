# The installed package: libraries, headers, a CMake package and pkg-config files, all relocatable.
include(CMakePackageConfigHelpers)

set(fabricmem_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/fabricmem")
install(TARGETS fabricmem fabricmem_emulated EXPORT fabricmem-targets
        RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}"
        LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
        ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/fabricmem" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
        FILES_MATCHING PATTERN "*.hpp")
install(EXPORT fabricmem-targets NAMESPACE fabricmem:: DESTINATION "${fabricmem_package_dir}")

configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/fabricmem-config.cmake.in"
    "${PROJECT_BINARY_DIR}/package/fabricmem-config.cmake" INSTALL_DESTINATION "${fabricmem_package_dir}")
# Within 0.x, versions with the same minor number are compatible.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/package/fabricmem-config-version.cmake"
    COMPATIBILITY SameMinorVersion)
install(FILES
        "${PROJECT_BINARY_DIR}/package/fabricmem-config.cmake"
        "${PROJECT_BINARY_DIR}/package/fabricmem-config-version.cmake"
        "${CMAKE_CURRENT_LIST_DIR}/FindFabricmemCudaHeader.cmake"
        DESTINATION "${fabricmem_package_dir}")

# pkg-config finds its prefix from where the file lies, unless the library directory is an absolute path.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}" OR IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
    set(fabricmem_pc_prefix "${CMAKE_INSTALL_PREFIX}")
    set(fabricmem_pc_libdir "${CMAKE_INSTALL_FULL_LIBDIR}")
    set(fabricmem_pc_includedir "${CMAKE_INSTALL_FULL_INCLUDEDIR}")
else()
    cmake_path(SET upwards NORMALIZE "/${CMAKE_INSTALL_LIBDIR}/pkgconfig")
    cmake_path(RELATIVE_PATH upwards BASE_DIRECTORY "/" OUTPUT_VARIABLE upwards)
    string(REGEX REPLACE "[^/]+" ".." upwards "${upwards}")
    set(fabricmem_pc_prefix "\${pcfiledir}/${upwards}")
    set(fabricmem_pc_libdir "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
    set(fabricmem_pc_includedir "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
set(fabricmem_pc_private "")
set(fabricmem_pc_hiredis "")
if(fabricmem_redis)
    set(fabricmem_pc_hiredis hiredis)
endif()
foreach(library IN ITEMS ${fabricmem_pc_hiredis} ${CMAKE_THREAD_LIBS_INIT} ${CMAKE_DL_LIBS})
    if(library MATCHES "^-")
        string(APPEND fabricmem_pc_private " ${library}")
    else()
        string(APPEND fabricmem_pc_private " -l${library}")
    endif()
endforeach()
foreach(name IN ITEMS fabricmem fabricmem-emulated fabricmem-driver)
    configure_file("${CMAKE_CURRENT_LIST_DIR}/${name}.pc.in" "${PROJECT_BINARY_DIR}/package/${name}.pc" @ONLY)
    install(FILES "${PROJECT_BINARY_DIR}/package/${name}.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
endforeach()
