#!/bin/sh
# Builds the container image dhp-gateway:VERSION from this checkout.
#
#   sh deploy/build-image.sh [option of the builder …]
#
#   ENGINE       docker, podman or buildah; else the first of them that works here
#   BASE_IMAGE   an image with Python 3.11 or newer (and its venv module, where BUILD_IMAGE is not named); else the Dockerfile's default
#   BUILD_IMAGE  one with the same Python at the same place, its venv module and, if the request path is to be compiled, a C compiler and
#                Python's header files; else BASE_IMAGE or, without that, the Dockerfile's default
#   IMAGE        another name for the image, e.g. registry.clinic.example/dhp-gateway:1
#   PIP_CERT     certificate authorities for pip; else those this machine trusts
#   PIP_CONFIG_FILE, or PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_TRUSTED_HOST, PIP_PROXY   where pip finds packages; else pip's default
#
# What pip is told stays out of the image: it reaches the build as secrets.
set -eu
cd "$(dirname "$0")/.."

fail() {
    printf '%s\n' "$*" >&2
    exit 3
}

# The docker command is often there without an engine behind it.
works() {
    case $1 in
        docker) command -v docker >/dev/null 2>&1 && docker info >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

choose_engine() {
    for candidate in docker podman buildah; do
        works "$candidate" && printf '%s' "$candidate" && return
    done
    fail "Nothing here can build a container image: docker (with its engine running), podman or buildah is needed." \
        "Debian, Ubuntu: sudo apt-get install buildah"
}

system_authorities() {
    for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
        [ -r "$bundle" ] && printf '%s' "$bundle" && return
    done
    return 0
}

pip_settings() {
    echo "[global]"
    [ -z "${PIP_INDEX_URL:-}" ] || echo "index-url = $PIP_INDEX_URL"
    [ -z "${PIP_EXTRA_INDEX_URL:-}" ] || echo "extra-index-url = $PIP_EXTRA_INDEX_URL"
    [ -z "${PIP_TRUSTED_HOST:-}" ] || echo "trusted-host = $PIP_TRUSTED_HOST"
    [ -z "${PIP_PROXY:-}" ] || echo "proxy = $PIP_PROXY"
}

# A tag may mean another image tomorrow; a digest never does.
case ${BASE_IMAGE:-} in
    *@sha256:*) ;;
    *) echo "Note: BASE_IMAGE is not pinned by its digest (IMAGE@sha256:...); see docs/installation.md." >&2 ;;
esac

engine=${ENGINE:-}
[ -n "$engine" ] || engine=$(choose_engine)
case $engine in
    docker | podman | buildah) ;;
    *) fail "ENGINE=$engine is not known here: docker, podman or buildah." ;;
esac
works "$engine" || fail "ENGINE=$engine does not work here: it is not installed or, for docker, its engine is not running."

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' gateway/__init__.py)
[ -n "$version" ] || fail "gateway/__init__.py names no __version__."
image=${IMAGE:-dhp-gateway:$version}
revision=$(git rev-parse --quiet --verify HEAD 2>/dev/null || echo unknown)

config=$(mktemp)
trap 'rm -f "$config"' EXIT
trap 'exit 130' INT TERM
pip_settings >"$config"

set -- --file Dockerfile --tag "$image" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
    --secret "id=pip_config,src=${PIP_CONFIG_FILE:-$config}" "$@"
authorities=${PIP_CERT:-$(system_authorities)}
[ -z "$authorities" ] || set -- --secret "id=pip_cert,src=$authorities" "$@"
[ -z "${BASE_IMAGE:-}" ] || set -- --build-arg "BASE_IMAGE=$BASE_IMAGE" "$@"
builds=${BUILD_IMAGE:-${BASE_IMAGE:-}}
[ -z "$builds" ] || set -- --build-arg "BUILD_IMAGE=$builds" "$@"

# The OCI image format has no health check; Docker's, which every runtime understands, has.
case $engine in
    docker) export DOCKER_BUILDKIT=1 ;;
    *) set -- --format docker "$@" ;;
esac

echo "Building $image with $engine…" >&2
"$engine" build "$@" . || {
    status=$?
    [ -n "${BASE_IMAGE:-}" ] ||
        echo "Where the base image could not be had, take it from elsewhere: BASE_IMAGE=registry.clinic.example/python:3.13-slim make image" >&2
    exit $status
}
echo "Built $image." >&2
