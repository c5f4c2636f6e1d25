#!/bin/sh
# Packs everything that an installation without a network needs into one file, on a machine that has one.
#
#   make wheelhouse                                          into dist/
#   sh deploy/offline/make-wheelhouse.sh [DIRECTORY]         the same, by hand
#
#   WINDOWS  a version of Python such as 3.13: packs for that on a 64-bit Windows, as a zip file; any machine will do
#   PYTHON   the interpreter to pack for, with pip, hatchling and Babel (make: that of .venv). Target and this machine must have the same minor
#            version of Python, the same processor, and the target no older C library.
#   WHEELS   a folder with compiled wheels of this version (make: dist); the one for PYTHON is packed beside the one for any system, and
#            pip takes it where it runs
#
# Packages come with the hashes of requirements.lock or not at all. The archive is told by its checksum, which goes to the hospital by
# another way than the archive (by telephone, on paper): inside, SHA256SUMS and pip's hashes then vouch for every file.
set -eu
cd "$(dirname "$0")/../.."
target=${1:-dist}
python=${PYTHON:-python3}
# make names it from here, and not all steps run here.
case $python in
    /*) ;;
    */*) python=$PWD/$python ;;
esac

fail() {
    printf '%s\n' "$*" >&2
    exit 3
}

"$python" -c 'import babel, hatchling, pip' 2>/dev/null || fail "$python has no pip, hatchling or Babel: \`make wheelhouse\` sees to both."
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' gateway/__init__.py)
[ -n "$version" ] || fail "gateway/__init__.py names no __version__."
if [ -n "${WINDOWS:-}" ]; then
    kind=cp$(printf %s "$WINDOWS" | tr -d .)-win32-AMD64
    set -- --platform win_amd64 --implementation cp --python-version "$WINDOWS"
else
    kind=$("$python" -c 'import sys, platform; print("cp%d%d-%s-%s" % (*sys.version_info[:2], sys.platform, platform.machine()))')
    set --
fi
name=dhp-gateway-$version-$kind

mkdir -p "$target"
target=$(cd "$target" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
bundle=$work/$name
mkdir -p "$bundle/wheels"
"$python" deploy/offline/for_target.py requirements.lock ${WINDOWS:+"$WINDOWS"} >"$bundle/requirements.lock"

echo "Fetching what requirements.lock names for $kind…" >&2
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    "$@" --requirement "$bundle/requirements.lock" --dest "$bundle/wheels"
SOURCE_DATE_EPOCH=315532800 "$python" -m pip wheel --quiet --disable-pip-version-check --no-index --no-build-isolation --no-deps --wheel-dir "$bundle/wheels" .

tag=${kind%%-*}
for compiled in "${WHEELS:-$bundle/none}/dhp_gateway-$version-$tag-$tag"-*linux*"_${kind##*-}.whl"; do
    [ ! -e "$compiled" ] || cp "$compiled" "$bundle/wheels/"
done

# On Linux pip shall decide by the target's patch release, so it gets the whole lock.
[ -n "${WINDOWS:-}" ] || cp requirements.lock "$bundle/requirements.lock"

# The gateway's own wheels get their hashes here, so that pip checks them like all others.
printf 'dhp-gateway==%s%s\n' "$version" "$(sha256sum "$bundle"/wheels/dhp_gateway-*.whl | sed 's/ .*//; s/^/ --hash=sha256:/' | tr -d '\n')" >>"$bundle/requirements.lock"

# pip itself comes along: Debian keeps it out of Python, in packages that a machine without a network may lack.
cp -R "$("$python" -c 'import pip, pathlib; print(pathlib.Path(pip.__file__).parent)')" "$bundle/pip"
find "$bundle/pip" -name __pycache__ -prune -exec rm -rf {} +

mkdir "$bundle/docs"
cp -R docs/*.md docs/img "$bundle/docs/"
# What the pages link to beside that is not packed: those links become plain text.
sed -i -E 's#\[([^]]*)\]\(\.\./(\.github|benchmarks|deploy|tests)/[^)]*\)#\1#g' "$bundle"/docs/*.md
cp -R config "$bundle/"
cp LICENSE NOTICE CHANGELOG.md "$bundle/"
if [ -n "${WINDOWS:-}" ]; then
    cp deploy/windows/install.ps1 "$bundle/"
    mkdir "$bundle/windows"
    cp deploy/windows/dhp-gateway.xml deploy/windows/gateway.yaml "$bundle/windows/"
else
    cp -R deploy/systemd "$bundle/"
    cp deploy/offline/install.sh "$bundle/"
fi
printf '%s\n' "$version" >"$bundle/VERSION"
printf '%s\n' "$kind" >"$bundle/KIND"
(cd "$bundle" && find . -type f ! -name SHA256SUMS | LC_ALL=C sort | xargs sha256sum >SHA256SUMS)

# The same commit and compiled wheel make the same archive, wherever it is packed: two people can compare.
moment=$(git log -1 --format=%ct 2>/dev/null || echo 0)
chmod -R u=rwX,go=rX "$bundle"
if [ -n "${WINDOWS:-}" ]; then
    archive=$name.zip
    find "$bundle" -exec touch --date "@$moment" {} +
    rm -f "$target/$archive"
    (cd "$work" && TZ=UTC "$python" -m zipfile -c "$target/$archive" "$name")
else
    archive=$name.tar.gz
    tar -C "$work" --sort=name --mtime="@$moment" --owner=0 --group=0 --numeric-owner -cf - "$name" | gzip -n9 >"$target/$archive"
fi
(cd "$target" && sha256sum "$archive" | tee "$archive.sha256")
