#!/bin/sh
# Builds the wheels with the compiled request path, one for each Python of this machine that can be compiled for.
#   deploy/compiled-wheels.sh [DIRECTORY]        into dist/
#
#   PYTHONS  which: names or paths; none where it is empty; else python3.11 to python3.14
#
# pip takes one of them where Python, processor and C library fit, else the wheel for any system, which does the same. Each is tagged for the
# oldest C library that has what it needs (manylinux). A release builds all of them: .github/workflows/release.yml.
set -eu
cd "$(dirname "$0")/.."
target=${1:-dist}

can_compile() {
    command -v "$1" >/dev/null 2>&1 && command -v cc >/dev/null 2>&1 &&
        "$1" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$target"
for python in ${PYTHONS-python3.11 python3.12 python3.13 python3.14}; do
    can_compile "$python" || {
        echo "No compiled wheel for $python: it is not here, or a C compiler or its header files are not." >&2
        continue
    }
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    environment=build/python$version
    compiled=build/compiled-$version
    # The one that is there anyway.
    case $(.venv/bin/python --version) in
        "Python $version."*) environment=.venv compiled=build/compiled ;;
    esac
    make --no-print-directory compiled "PYTHON=$python" "VENV=$environment" "COMPILED=$compiled" >&2
    tag=cp$(printf %s "$version" | tr -d .)
    rm -f "$target"/dhp_gateway-*-"$tag"-*.whl
    PATH=$PWD/.venv-tools/bin:$PATH auditwheel repair --wheel-dir "$target" "$compiled-wheel"/*.whl >"$log" 2>&1 || {
        cat "$log" >&2
        exit 1
    }
    ls "$target"/dhp_gateway-*-"$tag"-*.whl
done
