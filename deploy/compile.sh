#!/bin/sh
# Compiles the gateway's request path for one interpreter.
#   deploy/compile.sh PYTHON DIRECTORY
# PYTHON is one with the development tools (requirements-dev.lock); DIRECTORY becomes a place for PYTHONPATH, and DIRECTORY-wheel has the wheel.
set -eu
cd "$(dirname "$0")/.."
python=$1
directory=$2

fail() {
    printf '%s\n' "$*" >&2
    exit 3
}

headers=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
command -v cc >/dev/null 2>&1 && [ -f "$headers/Python.h" ] ||
    fail "A C compiler and Python's header files are needed. Debian, Ubuntu: sudo apt-get install gcc python3-dev"

rm -rf "$directory" "$directory-wheel"
mkdir -p "$directory" "$directory-wheel"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 1' INT TERM
echo "Compiling the request path (some minutes)…" >&2
DHP_GATEWAY_COMPILE=1 "$python" -m hatchling build --target wheel --directory "$directory-wheel" >"$log" 2>&1 || {
    cat "$log" >&2
    exit 1
}
"$python" -m zipfile --extract "$directory-wheel"/*.whl "$directory"
# As in the image: a start that has to compile takes more time, and more memory for good.
"$python" -m compileall -q --invalidation-mode unchecked-hash "$directory"
# What cannot be loaded would be passed over without a word: the sources are there, too. So would translations that are missing.
PYTHONPATH=$directory "$python" -P -c '
from gateway.i18n import language_name
from gateway.app.observability_setup import start_event_fields
assert start_event_fields()["compiled"]
assert language_name("ru") != "English"'
