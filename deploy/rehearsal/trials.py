"""What users do with each artifact of a release, as the documents tell them to.

A trial is a script in an empty folder with `$dist`, the folder of all artifacts, and `$version`.
Commands that a document shows are taken from the document. A script that is to work without a
network has none, but all ports; what it needs from the package index is fetched `before`.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.rehearsal.actions import StepError
from tests.deploy.tools import KUBERNETES

ROOT = Path(__file__).resolve().parents[2]

Shell = Callable[..., tuple[int, str]]

# `serve COMMAND…` runs what a document says until the gateway is ready; `ask` sends the requests of
# README's "A first request", and looks at the answers; `interrupt` is Ctrl-C.
HELPERS = r"""
root=@ROOT@
# Of the build; the gateway would take it for a setting.
unset DHP_GATEWAY_OPTIMISATION
serve() {
    setsid sh -c "$*" >served.log 2>&1 &
    served=$!
    trap 'cat served.log; kill -- "-$served" 2>/dev/null || :' EXIT
    until curl --silent --fail --output /dev/null http://127.0.0.1:9464/readyz; do
        kill -0 "$served"
        sleep 0.2
    done
}
ask() {
    sed -n '/^## A first request/,/^## /{/^curl /p}' "$root/README.md" >asked.sh
    [ "$(grep -c . asked.sh)" = 2 ]
    sh -eux asked.sh | tee answers
    grep -q '"resourceType": *"Patient"' answers
    grep -qi 'X-Gateway-Warning: search-parameter-ignored; names="bogus"' answers
    curl --silent --fail http://127.0.0.1:9464/status.json | tee status.json | grep -qF "\"version\":\"$version\""
    curl --silent --fail http://127.0.0.1:9464/metrics | grep -F "dhp_gateway_build_info" | grep -qF "\"$version\""
}
interrupt() {
    trap - EXIT
    kill -INT -- "-$served"
    wait "$served" || :
}
"""


@dataclass(frozen=True)
class Trial:
    """What is done with the artifacts of these names; `before` has a network, `script` none."""

    name: str
    artifacts: tuple[str, ...]
    script: str
    before: str = ""


TRIALS = (
    Trial(
        "checksums, and what was attested",
        ("SHA256SUMS", "*.sha256"),
        """
        cd "$dist"
        sha256sum --check --strict SHA256SUMS
        for each in *.sha256; do sha256sum --check --strict "$each"; done
        cat "$DHP_REHEARSAL"/attestations/*.jsonl | python3 -c '
import base64, hashlib, json, pathlib, sys
subjects = {}
for line in sys.stdin:
    for each in json.loads(base64.b64decode(json.loads(line)["payload"]))["subject"]:
        subjects[each["name"]] = each["digest"]["sha256"]
files = [each for each in pathlib.Path().iterdir() if "sha256" not in each.name.lower()]
unproven = {each.name for each in files if subjects.get(each.name) != hashlib.sha256(each.read_bytes()).hexdigest()}
print("attested:", len(subjects), "not:", unproven)
sys.exit(unproven != {"licences.md"})'
        """,
    ),
    Trial(
        "the wheel for any system: README's line",
        ("dhp_gateway-*-py3-none-any.whl",),
        """
        export UV_OFFLINE=1
        serve "$(grep '^uvx ' "$root/README.md")"
        ask
        interrupt
        """,
        before="""
        cp "$dist"/dhp_gateway-*-py3-none-any.whl .
        uvx --from "./dhp_gateway-$version-py3-none-any.whl[sandbox]" dhp-gateway --version
        """,
    ),
    Trial(
        "a compiled wheel, from the index",
        ("dhp_gateway-*-cp3*.whl",),
        """
        serve tried/bin/dhp-gateway sandbox
        ask
        grep -h '"event":"start"' $(sed -n 's/^Audit  *//p' served.log) | tee started
        grep -q '"compiled":true' started
        interrupt
        """,
        before="""
        python=$(ls "$dist"/dhp_gateway-*-cp3*.whl | sed -n '1s/.*-cp3\\([0-9]*\\)-cp3.*/python3.\\1/p')
        "$python" -m venv tried
        tried/bin/pip install --quiet --find-links "$DHP_REHEARSAL/index" "dhp-gateway==$version"
        """,
    ),
    Trial(
        "the image: README's lines",
        ("dhp-gateway-*-image-*.tar.gz",),
        """
        cp "$dist"/dhp-gateway-$version-image-*.tar.gz .
        sh -eux -c "$(grep -o 'docker load --input [^`]*' "$root/README.md")"
        serve "$(grep '^docker run ' "$root/README.md")"
        ask
        interrupt
        """,
        before='docker image rm "dhp-gateway:$version"',
    ),
    Trial(
        "the source archive: make demo, make test",
        ("dhp_gateway-*.tar.gz",),
        """
        cd dhp_gateway-$version
        serve make demo
        ask
        interrupt
        """,
        before="""
        tar -xf "$dist"/dhp_gateway-$version.tar.gz
        # What git has, and nothing else. Links to folders are folders there.
        cd dhp_gateway-$version
        git -C "$root" ls-tree -r --name-only HEAD | sort >../wanted
        find . -type f ! -name PKG-INFO ! -name '*.mo' | sed 's#^./##' | sort | comm -23 - ../wanted |
            grep -v ^deploy/helm/dhp-gateway/files/ >../surplus || :
        [ ! -s ../surplus ] || { head ../surplus; exit 1; }
        make venv
        make test "TESTS=tests/test_i18n.py tests/test_quick_start.py"
        """,
    ),
    Trial(
        "deployment: Compose's files, Kubernetes' and the chart",
        ("dhp-gateway-*.tgz",),
        """
        sources=$DHP_REHEARSAL/trials/source/dhp_gateway-$version
        cd "$sources/deploy/compose"
        for files in "-f compose.yaml" "-f compose.yaml -f sandbox.yaml" "-f replicas.yaml"; do
            # Debian 12's Compose is older than the specification.
            case $(docker-compose version --short) in
                1.*) cat ${files//-f/} | grep -F "dhp-gateway:$version" ;;
                *) docker-compose $files config --images | grep -x "dhp-gateway:$version" ;;
            esac
        done
        cd ../kubernetes
        for each in sidecar standalone; do
            kubectl kustomize "$each" | tee "$DHP_REHEARSAL/trials/deployment/$each.yaml" | grep -F "dhp-gateway:$version"
        done
        cd "$DHP_REHEARSAL/trials/deployment"
        helm show chart "$dist"/dhp-gateway-*.tgz | grep -F "appVersion: $version"
        helm lint --strict --values "$sources/deploy/helm/dhp-gateway/ci/playground-values.yaml" "$dist"/dhp-gateway-*.tgz
        helm template gw --namespace dhp --values "$sources/deploy/helm/dhp-gateway/ci/playground-values.yaml" "$dist"/dhp-gateway-*.tgz >made.yaml
        grep -F "image: \\"dhp-gateway:$version\\"" made.yaml || grep -F "dhp-gateway:$version" made.yaml
        for each in sidecar.yaml standalone.yaml made.yaml; do
            for release in @KUBERNETES@; do
                kubernetes-validate --strict --no-warn -k "$release" "$each"
            done
        done
        """,
        before="kubernetes-validate --version",
    ),
    Trial(
        "the archive for servers without a network: installation's lines",
        ("dhp-gateway-*-linux-*.tar.gz", "dhp-gateway-*-linux-*.tar.gz.sha256"),
        """
        export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:$PATH
        archive=$(cd "$dist" && ls dhp-gateway-$version-$(/usr/bin/python3 -c 'import sys; print("cp%d%d" % sys.version_info[:2])')-linux-*.tar.gz)
        cp "$dist/$archive" .
        sha256sum "$archive"
        tar -xf "$archive"
        sudo sh "${archive%.tar.gz}/install.sh" --service --python /usr/bin/python3
        ! command -v systemd-analyze || systemd-analyze verify /etc/systemd/system/dhp-gateway.service
        printf planted-secret >secret
        # 1: its doctor finds no playground here.
        dhp-gateway init --environment dhp-playground --client-id hospital-17 --secret-file secret --yes || [ $? = 1 ]
        dhp-gateway check
        rm secret
        serve dhp-gateway sandbox
        ask
        interrupt
        """,
    ),
    Trial(
        "the archive for Windows: its sums and its wheels",
        ("dhp-gateway-*-win32-*.zip", "dhp-gateway-*-win32-*.zip.sha256"),
        """
        python3 -m zipfile -e "$dist"/dhp-gateway-$version-cp313-win32-AMD64.zip .
        cd dhp-gateway-$version-cp313-win32-AMD64
        sha256sum --check --quiet --strict SHA256SUMS
        ls install.ps1 windows/dhp-gateway.xml windows/gateway.yaml LICENSE NOTICE
        python3 pip install --quiet --dry-run --no-index --find-links wheels --no-deps --only-binary :all: \\
            --platform win_amd64 --python-version 3.13 --target ../none --require-hashes --requirement requirements.lock
        """,
    ),
    Trial(
        "the bill of materials and the licences",
        ("sbom.cdx.json", "licences.md"),
        """
        python3 -c '
import json, re, sys
bill = json.load(open(sys.argv[1] + "/sbom.cdx.json"))
named = {each["name"].lower().replace("_", "-") for each in bill["components"]}
locked = set(re.findall(r"^([\\w.-]+)==", open(sys.argv[2] + "/requirements.lock").read(), re.MULTILINE))
assert bill["metadata"]["component"]["version"] == sys.argv[3]
assert len(named) == len(locked), named ^ locked
assert open(sys.argv[1] + "/licences.md").read().count("\\n| ") > len(locked) * 0.7
print(len(named), "components")' "$dist" "$root" "$version"
        """,
    ),
)


def made(folder: Path) -> list[Path]:
    """Return all artifacts of the release."""
    place = folder / "jobs/announce/dist"
    return [each for each in place.iterdir() if each.is_file()] if place.is_dir() else []


def run(
    trial: Trial, folder: Path, version: str, environment: dict[str, str], shell: Shell
) -> list[str]:
    """Run a trial; return what its notes say. Raises `StepError`."""
    place = folder / "trials" / trial.name.split(":")[0].replace("the ", "", 1).split(" ")[0]
    number = 1
    while place.exists():
        number += 1
        place = place.with_name(f"{place.name}-{number}")
    place.mkdir(parents=True)
    variables = environment | {"dist": str(folder / "jobs/announce/dist"), "version": version}
    for kind, text in (("before", trial.before), ("script", trial.script)):
        file = place.with_name(f"{place.name}-{kind}.sh")
        text = f"{HELPERS}set -x\n{text}".replace("@KUBERNETES@", " ".join(KUBERNETES))
        file.write_text(text.replace("@ROOT@", str(ROOT)))
        done, output = shell(file, place, variables, own_network=kind == "script")
        if done:
            raise StepError(f"{trial.name}: exit code {done}\n{output[-3000:]}")
    names = [each.name for each in made(folder)]
    tried = [name for name in names if any(fnmatch.fnmatch(name, one) for one in trial.artifacts)]
    if not tried:
        raise StepError(f"{trial.name}: no artifact is called {' or '.join(trial.artifacts)}")
    return tried


def require_all(folder: Path) -> None:
    """Raise `StepError` for artifacts that no trial is about."""
    patterns = [pattern for trial in TRIALS for pattern in trial.artifacts]
    untried = [
        each.name
        for each in made(folder)
        if not any(fnmatch.fnmatch(each.name, pattern) for pattern in patterns)
    ]
    if untried:
        raise StepError(f"nobody tried {', '.join(untried)}")
