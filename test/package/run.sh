#!/usr/bin/env bash
# Tries the package as its consumers do: find_package, pkg-config, add_subdirectory, static and shared, under nvcc where
# there is one; and checks what the shared libraries export, need and weigh. Usage: test/package/run.sh SCRATCH_DIR
set -euo pipefail

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$source_dir/test/package
[ $# -eq 1 ] || { echo "usage: test/package/run.sh SCRATCH_DIR" >&2; exit 2; }
mkdir -p "$1"
scratch=$(cd "$1" && pwd)
CXX=${CXX:-c++}
warnings=(-std=c++20 -Wall -Wextra -Wconversion -Wshadow -Werror)
log=$scratch/log

step() { echo "package: $*"; }
fail() { echo "package: FAILED: $*" >&2; exit 1; }
quietly() { "$@" >"$log" 2>&1 || { cat "$log"; fail "$*"; }; }
configure() {  # SOURCE BUILD ARGUMENTS...
    local from=$1 to=$2
    shift 2
    quietly cmake -S "$from" -B "$to" --fresh -DCMAKE_BUILD_TYPE=Release "$@"
}
build() { quietly cmake --build "$1" --parallel; }
run() { "$@" || fail "$*"; }

flags() { sed 's/ -o .*//' | grep -oE -- ' -(I|D|isystem ?)[^ ]+' || true; }

# What a consumer is compiled with must name none of our own dependencies, and CUDA only where seam.cpp is.
check_compile_lines() {  # BUILD_DIR
    local all no_seam
    all=$(grep '"command":' "$1/compile_commands.json" | grep -F -- "$here/")
    no_seam=$(grep -v 'seam\.cpp' <<<"$all")
    if flags <<<"$all" | grep -iE 'fmt|spdlog|nlohmann'; then fail "a consumer is compiled with what is private"; fi
    if flags <<<"$no_seam" | grep -i 'cuda'; then fail "a consumer is compiled with CUDA"; fi
}

version=$(sed -nE 's/^#define FABRICMEM_VERSION_(MAJOR|MINOR|PATCH) //p' "$source_dir/include/fabricmem/version.hpp" | paste -sd.)
cuda=$(cmake -P "$source_dir/cmake/FindFabricmemCudaHeader.cmake" 2>&1 >/dev/null) || fail "$cuda"

for kind in static shared; do
    step "$kind: build and install"
    shared=OFF
    [ $kind = static ] || shared=ON
    configure "$source_dir" "$scratch/$kind" -DBUILD_SHARED_LIBS=$shared -DFABRICMEM_BUILD_TESTS=OFF \
        -DFABRICMEM_BUILD_EXAMPLES=OFF -DFABRICMEM_BUILD_TOOLS=OFF -DFABRICMEM_WARNINGS_AS_ERRORS=ON \
        -DFABRICMEM_BUILD_EMULATED_LIBCUDA=ON \
        -DCMAKE_INSTALL_PREFIX="$scratch/first-$kind"
    build "$scratch/$kind"
    rm -rf "$scratch/first-$kind" "$scratch/prefix-$kind"
    quietly cmake --install "$scratch/$kind"
    prefix=$scratch/prefix-$kind
    mv "$scratch/first-$kind" "$prefix"  # the package must not remember where it was installed
    if grep -rlE --include='*.cmake' --include='*.pc' "first-$kind|$source_dir" "$prefix"; then
        fail "the files above name where the package was built or installed"
    fi
    for archive in "$prefix"/lib*/*.a "$prefix"/lib*/*/*.a; do
        [ -e "$archive" ] || continue
        # A consumer's fmt, spdlog or json, of whatever version, must not meet ours at link time.
        leaked=$(nm -C --defined-only "$archive" | grep -E '^[0-9a-f]+ [A-Zuvw] (.*[ (<*&])?(fmt|spdlog|nlohmann)::' | head -3 || true)
        [ -z "$leaked" ] || fail "$(basename "$archive") defines what is not ours: $leaked"
    done
    [ -e "$scratch/$kind/emulated-cuda/libcuda.so.1" ] || fail "the drop-in libcuda was not built"
    if find "$prefix" -name 'libcuda*' | grep .; then fail "the drop-in libcuda was installed"; fi
    pkg_config_dir=$(dirname "$(find "$prefix" -name fabricmem.pc)")
    libdir=$(dirname "$pkg_config_dir")

    step "$kind: find_package"
    out=$scratch/find_package-$kind
    configure "$here/find_package" "$out" -DCMAKE_PREFIX_PATH="$prefix" -DEXPECTED_VERSION="$version"
    build "$out"
    check_compile_lines "$out"
    for program in core seam emulated; do run "$out/$program"; done

    step "$kind: find_package where there is no cuda.h"
    out=$scratch/find_package-$kind-no-cuda
    configure "$here/find_package" "$out" -DCMAKE_PREFIX_PATH="$prefix" -DEXPECTED_VERSION="$version" \
        -DCUDAToolkit_ROOT=/nowhere -DCONSUMER_HAS_CUDA_HEADER=OFF
    build "$out"
    check_compile_lines "$out"
    for program in core emulated; do run "$out/$program"; done

    step "$kind: pkg-config"
    out=$scratch/pkg-config-$kind
    mkdir -p "$out"
    export PKG_CONFIG_PATH=$pkg_config_dir LD_LIBRARY_PATH=$libdir
    modes=("--cflags --libs")
    [ $kind = shared ] || modes+=("--static --cflags --libs")
    for mode in "${modes[@]}"; do
        for pair in core:fabricmem seam:fabricmem-driver emulated:fabricmem-emulated; do
            program=${pair%%:*} package=${pair##*:}
            # shellcheck disable=SC2086  # words are wanted
            read -ra words <<<"$(pkg-config $mode $package)"
            if [[ ${words[*]} =~ fmt|spdlog|nlohmann ]]; then fail "$package.pc names what is private: ${words[*]}"; fi
            quietly "$CXX" "${warnings[@]}" "$here/$program.cpp" -o "$out/$program" "${words[@]}"
            run "$out/$program"
        done
    done
    unset PKG_CONFIG_PATH LD_LIBRARY_PATH
done

for shared in OFF ON; do
    step "add_subdirectory, BUILD_SHARED_LIBS=$shared"
    out=$scratch/add_subdirectory-$shared
    # -Werror as above, so that a compiler cache serves both.
    configure "$here/add_subdirectory" "$out" -DFABRICMEM_SOURCE_DIR="$source_dir" -DBUILD_SHARED_LIBS=$shared \
        -DFABRICMEM_WARNINGS_AS_ERRORS=ON
    build "$out"
    check_compile_lines "$out"
    for program in core seam emulated; do run "$out/$program"; done
done

nvcc=$(command -v nvcc || { [ ! -x /usr/local/cuda/bin/nvcc ] || echo /usr/local/cuda/bin/nvcc; })
if [ -n "$nvcc" ]; then
    step "nvcc: every public header"
    (cd "$source_dir/include" && printf '#include <%s>\n' fabricmem/*.hpp) >"$scratch/headers.cu"
    quietly "$nvcc" -std=c++20 -x cu -Werror all-warnings -Xcompiler -Wall,-Wextra,-Wconversion,-Wshadow,-Werror \
        -I "$source_dir/include" -c "$scratch/headers.cu" -o "$scratch/headers.o"
    step "nvcc: a consumer of the static package"
    pkg_config_dir=$(dirname "$(find "$scratch/prefix-static" -name fabricmem.pc)")
    for pair in core:fabricmem seam:fabricmem-driver emulated:fabricmem-emulated; do
        program=${pair%%:*}
        read -ra words <<<"$(PKG_CONFIG_PATH=$pkg_config_dir pkg-config --static --cflags --libs "${pair##*:}" | sed 's/-pthread//g')"
        quietly "$nvcc" -std=c++20 -x cu -Xcompiler -Wall,-Wextra,-Wconversion,-Wshadow,-Werror,-pthread \
            "$here/$program.cpp" -o "$scratch/nvcc-$program" "${words[@]}"
        run "$scratch/nvcc-$program"
    done
else
    step "nvcc: SKIPPED, there is none here"
fi

step "presets configure"
for preset in dev tsan release; do
    (cd "$source_dir" && quietly cmake --preset "$preset" --fresh -B "$scratch/preset-$preset")
done

step "shared libraries: exports, needs, size"
quietly "$CXX" "${warnings[@]}" "$here/load.cpp" -o "$scratch/load" -ldl
for library in "$scratch/prefix-shared"/lib*/libfabricmem.so "$scratch/prefix-shared"/lib*/libfabricmem_emulated.so; do
    name=$(basename "$library")
    foreign=$(nm -DC --defined-only "$library" |
        grep -vE '^[0-9a-f]+ [A-Za-z] ((typeinfo|typeinfo name|vtable|VTT) for |(non-virtual|virtual) thunk to )?fabricmem::' || true)
    [ -z "$foreign" ] || fail "$name exports $foreign"
    cuda_symbols=$(nm -D --undefined-only "$library" | grep -E ' (cu[A-Z]|cuda|nvml)' || true)
    [ -z "$cuda_symbols" ] || fail "$name needs $cuda_symbols"
    needed=$(readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | paste -sd' ')
    if [[ $needed =~ fmt|spdlog|cuda|nvidia ]]; then fail "$name needs $needed"; fi
    strip -o "$scratch/stripped" "$library"
    bytes=$(stat -c %s "$scratch/stripped")
    [ "$bytes" -le 1000000 ] || fail "$name is $bytes bytes stripped, more than 1 MB"
    echo "$name: $bytes bytes stripped, $(nm -D --defined-only "$library" | wc -l) symbols, needs $needed"
    # A benchmark, not a check.
    for _ in $(seq 21); do LD_LIBRARY_PATH=$(dirname "$library") "$scratch/load" "$library"; done |
        sort -n | awk -v name="$name" '{ t[NR] = $1 } END { printf "%s: loads in %.2f ms (median of %d; %.2f to %.2f)\n", name, t[(NR + 1) / 2] / 1000, NR, t[1] / 1000, t[NR] / 1000 }'
done
step "all well"
