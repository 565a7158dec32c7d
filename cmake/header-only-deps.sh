#!/usr/bin/env bash
# Makes DIR a folder with the headers of fmt, spdlog, nlohmann/json and Catch2 of this machine and nothing else, for
# builds that must not see all of /usr/include (cross builds) or that have no packages (FABRICMEM_HEADER_ONLY_DEPS).
# Usage: cmake/header-only-deps.sh [--copy] DIR     --copy: files in place of links, to be carried elsewhere
set -euo pipefail

how=(ln -sfn)
if [ "${1:-}" = --copy ]; then
    how=(cp -rLT)
    shift
fi
[ $# -eq 1 ] || { echo "usage: cmake/header-only-deps.sh [--copy] DIR" >&2; exit 2; }
mkdir -p "$1"
for name in fmt spdlog nlohmann catch2; do
    for from in /usr/include /usr/local/include; do
        [ -d "$from/$name" ] || continue
        "${how[@]}" "$from/$name" "$1/$name"
        continue 2
    done
    echo "header-only-deps: no $name/ in /usr/include or /usr/local/include" >&2
    exit 1
done
