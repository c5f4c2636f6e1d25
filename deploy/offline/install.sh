#!/bin/sh
# Installs the gateway from this folder; no network is used. Run it as root, in the unpacked archive that `make wheelhouse` made:
#
#   sh install.sh [--service] [--prefix DIRECTORY] [--python INTERPRETER]
#
#   --service   also sets up the systemd service: its user, /etc/dhp-gateway (nothing that is there is changed), the unit. Starts nothing.
#   --prefix    where; /opt/dhp-gateway. Each version lies beside it (/opt/dhp-gateway-VERSION) and the prefix is a link to the one in use:
#               an upgrade is this script and a restart, the way back is `ln -sfn dhp-gateway-OLD /opt/dhp-gateway` and a restart.
#   --python    Python of the minor version in the archive's name; python3
#
# DESTDIR, as with make, puts everything below another root (for packagers and tests): then no user is made and systemd is not told.
set -eu
folder=$(cd "$(dirname "$0")" && pwd)
cd "$folder"
prefix=/opt/dhp-gateway
python=python3
service=
destdir=${DESTDIR:-}

# In the reader's language, as the gateway's commands: $1 is English, $2 Russian, $3 Uzbek.
say() {
    case ${LC_ALL:-${LC_MESSAGES:-${LANG:-}}} in
        ru*) printf '%s\n' "$2" ;;
        uz*) printf '%s\n' "$3" ;;
        *) printf '%s\n' "$1" ;;
    esac
}

fail() {
    say "$@" >&2
    exit 3
}

while [ $# -gt 0 ]; do
    case $1 in
        --service) service=yes ;;
        --prefix) prefix=${2:?--prefix needs a directory} && shift ;;
        --python) python=${2:?--python needs an interpreter} && shift ;;
        *) fail "install.sh does not know $1; its head tells what it knows." \
            "install.sh не знает $1; что он знает, написано в его начале." \
            "install.sh $1 ni bilmaydi; nimani bilishi uning boshida yozilgan." ;;
    esac
    shift
done

# --- is it all there, unchanged, and for this machine? ---
sha256sum --check --quiet --strict SHA256SUMS >&2 || fail "This folder is not what was packed. Fetch the archive again and compare its checksum." \
    "Содержимое папки не то, что было упаковано. Получите архив заново и сравните контрольную сумму." \
    "Papkadagi narsa paketlangandagidek emas. Arxivni qayta oling va nazorat summasini solishtiring."
command -v "$python" >/dev/null || fail "No $python here: name an interpreter with --python." \
    "$python здесь нет: укажите интерпретатор параметром --python." \
    "Bu yerda $python yo‘q: interpretatorni --python bilan ko‘rsating."
here=$("$python" -c 'import sys, platform; print("cp%d%d-%s-%s" % (*sys.version_info[:2], sys.platform, platform.machine()))')
[ "$here" = "$(cat KIND)" ] || fail "This archive is for $(cat KIND), and $python is $here. Name the right interpreter with --python, or pack for this one." \
    "Этот архив для $(cat KIND), а $python — это $here. Укажите нужный интерпретатор параметром --python или возьмите архив для этого." \
    "Bu arxiv $(cat KIND) uchun, $python esa $here. Keragini --python bilan ko‘rsating yoki shunga mos arxivni oling."
base=$("$python" -c 'import os, sys; print(os.path.realpath(sys.base_prefix))')
case $service$destdir$base/ in
    yes/root/* | yes/home/*) fail "$python is $base, and the service sees no home. Name the system's interpreter with --python, such as /usr/bin/python3." \
        "$python — это $base, а домашних папок служба не видит. Укажите системный интерпретатор: --python /usr/bin/python3." \
        "$python bu $base, xizmat esa uy papkalarini ko‘rmaydi. Tizim interpretatorini ko‘rsating: --python /usr/bin/python3." ;;
esac

# --- the version, beside the ones before ---
version=$(cat VERSION)
home=$prefix-$version
[ -L "$destdir$prefix" ] || [ ! -e "$destdir$prefix" ] || fail "$prefix is there and no link to a version: move it away first." \
    "$prefix уже есть, и это не ссылка на версию: сначала переместите его." \
    "$prefix allaqachon bor va versiyaga havola emas: avval uni boshqa joyga oling."
say "Installing $version into $home…" "Версия $version ставится в $home…" "$version versiyasi $home ga o‘rnatilmoqda…"
rm -rf "$destdir$home"
# Without pip: it is not needed any more afterwards, and less is better. Ours runs from this folder.
"$python" -m venv --without-pip "$destdir$home"
# --require-hashes: pip takes exactly what the lock names. What it finds elsewhere (a pip.conf, find-links) is not asked.
PIP_CONFIG_FILE=/dev/null PYTHONDONTWRITEBYTECODE=1 "$destdir$home/bin/python" "$folder/pip" --isolated --no-cache-dir --disable-pip-version-check \
    install --quiet --no-index --find-links "$folder/wheels" --no-deps --only-binary :all: --require-hashes --requirement requirements.lock
mkdir -p "$destdir$home/share"
cp -R config docs systemd LICENSE NOTICE CHANGELOG.md "$destdir$home/share/"
"$destdir$home/bin/dhp-gateway" --version >/dev/null
# In one step: a process that starts meanwhile gets the old version or the new one.
ln -sfn "$(basename "$home")" "$destdir$prefix.new"
mv -T "$destdir$prefix.new" "$destdir$prefix"
# To be typed as it stands. A link of ours is made anew; a file of another origin stays.
command=$destdir/usr/local/bin/dhp-gateway
if [ "$(readlink "$command" || :)" = "$prefix/bin/dhp-gateway" ] || { [ ! -e "$command" ] && [ ! -L "$command" ]; }; then
    if mkdir -p "${command%/*}" 2>/dev/null && ln -sfn "$prefix/bin/dhp-gateway" "$command" 2>/dev/null; then
        say "Installed: $prefix, with the command dhp-gateway in /usr/local/bin" \
            "Установлено: $prefix, команда dhp-gateway — в /usr/local/bin" \
            "O‘rnatildi: $prefix, dhp-gateway buyrug‘i /usr/local/bin da"
    else
        say "Installed: $prefix/bin/dhp-gateway (/usr/local/bin cannot be written: put $prefix/bin on your PATH)" \
            "Установлено: $prefix/bin/dhp-gateway (в /usr/local/bin писать нельзя: добавьте $prefix/bin в PATH)" \
            "O‘rnatildi: $prefix/bin/dhp-gateway (/usr/local/bin ga yozib bo‘lmaydi: $prefix/bin ni PATH ga qo‘shing)"
    fi
else
    say "Installed: $prefix/bin/dhp-gateway (/usr/local/bin/dhp-gateway is no link of ours and stays)" \
        "Установлено: $prefix/bin/dhp-gateway (/usr/local/bin/dhp-gateway — не наша ссылка и остаётся как есть)" \
        "O‘rnatildi: $prefix/bin/dhp-gateway (/usr/local/bin/dhp-gateway bizning havola emas va o‘zgarmaydi)"
fi
[ -n "$service" ] || exit 0

# --- the service ---
etc=$destdir/etc/dhp-gateway
install -d -m 0755 "$etc"
install -d -m 0700 "$etc/secrets"
[ -e "$etc/gateway.yaml" ] || install -m 0644 systemd/gateway.yaml "$etc/gateway.yaml"
[ -e "$etc/secrets/dhp_client_secret" ] || install -m 0600 /dev/null "$etc/secrets/dhp_client_secret"
install -D -m 0644 systemd/dhp-gateway.sysusers "$destdir/usr/lib/sysusers.d/dhp-gateway.conf"
for unit in dhp-gateway.service dhp-gateway@.service; do
    sed "s|/opt/dhp-gateway/|$prefix/|g" "systemd/$unit" >"$destdir$home/share/$unit"
    install -D -m 0644 "$destdir$home/share/$unit" "$destdir/etc/systemd/system/$unit"
done
if [ -z "$destdir" ]; then
    systemd-sysusers dhp-gateway.conf
    systemctl daemon-reload || true
fi
say "Next:   dhp-gateway init    (asks for settings and secret, writes and checks them, and says the rest)
or by hand:
  1. the client secret, alone, into /etc/dhp-gateway/secrets/dhp_client_secret   (root's, mode 0600; systemd hands it to the service)
  2. environment and client_id into /etc/dhp-gateway/gateway.yaml
  3. dhp-gateway doctor    (it finds /etc/dhp-gateway/gateway.yaml by itself)
  4. systemctl enable --now dhp-gateway    (after an upgrade: systemctl restart dhp-gateway)
  5. curl http://127.0.0.1:8080/fhir/metadata" "Дальше: dhp-gateway init    (спросит о настройках и секрете, запишет и проверит их и скажет, что потом)
или вручную:
  1. секрет клиента, один, — в /etc/dhp-gateway/secrets/dhp_client_secret   (владелец root, права 0600; службе его передаёт systemd)
  2. environment и client_id — в /etc/dhp-gateway/gateway.yaml
  3. dhp-gateway doctor    (файл /etc/dhp-gateway/gateway.yaml он находит сам)
  4. systemctl enable --now dhp-gateway    (после обновления: systemctl restart dhp-gateway)
  5. curl http://127.0.0.1:8080/fhir/metadata" "Keyin:  dhp-gateway init    (sozlamalar va sirni so‘raydi, yozadi, tekshiradi va nima qilishni aytadi)
yoki qo‘lda:
  1. mijoz sirining o‘zini — /etc/dhp-gateway/secrets/dhp_client_secret ga   (egasi root, huquqlari 0600; xizmatga uni systemd uzatadi)
  2. environment va client_id ni — /etc/dhp-gateway/gateway.yaml ga
  3. dhp-gateway doctor    (/etc/dhp-gateway/gateway.yaml ni o‘zi topadi)
  4. systemctl enable --now dhp-gateway    (yangilashdan keyin: systemctl restart dhp-gateway)
  5. curl http://127.0.0.1:8080/fhir/metadata"
