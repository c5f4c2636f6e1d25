"""The service under a real systemd: a Debian booted in a container.

Installed from the archive without a network by the steps of docs/installation.md.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy import tools
from tests.deploy.container import this_release
from tests.environments import cache_folder, installed_program, output_of

PROGRAMS = ("debootstrap", "systemd-nspawn")
# What the person at the server does, the platform aside; each step's output goes to a file.
STEPS = r"""
exec 2>/trial/errors
gateway=/opt/dhp-gateway/bin/dhp-gateway config=/etc/dhp-gateway/gateway.yaml
step() { name=$1; shift; "$@" >"/trial/$name" 2>&1; echo "$?" >>"/trial/$name"; }
step install sh /trial/bundle/install.sh --service
printf 'sandbox-secret\n' >/etc/dhp-gateway/secrets/dhp_client_secret
sed -i 's/^environment:.*/environment: custom/; s/your-client-id/hospital-demo/' $config
cat >>$config <<END
platform: {fhir_base_url: "http://127.0.0.1:8090/fhir"}
sso: {token_url: "http://127.0.0.1:8090/oauth/token"}
END
$gateway sandbox --platform-only >/trial/platform 2>&1 &
until grep -q Ctrl-C /trial/platform; do sleep 0.1; done
step doctor dhp-gateway doctor
step start systemctl start dhp-gateway
step request python3 -c 'import urllib.request as u; print(u.urlopen("http://127.0.0.1:8080/fhir/metadata").status)'
step beside $gateway doctor --config $config
step process cat "/proc/$(systemctl show --property MainPID --value dhp-gateway)/status"
step reload systemctl reload dhp-gateway
# The step before may return sooner: older systemd cannot be told that a reload takes time.
reloaded() { until lines | grep -q 'settings reloaded'; do sleep 0.1; done; }
lines() { journalctl --unit dhp-gateway --output cat --no-pager; }
step reloaded reloaded
step stop systemctl stop dhp-gateway
step result systemctl show --property Result,ExecMainStatus dhp-gateway
step log lines
step audit $gateway audit verify /var/log/dhp-gateway/audit.jsonl
replicas="9464 9465"
for each in $replicas; do systemctl start dhp-gateway@$each; done
step both systemctl is-active dhp-gateway@9464 dhp-gateway@9465
variables=$(systemctl show --property Environment --value dhp-gateway@9465)
step replica env $variables $gateway doctor --config $config
python3 /trial/calls.py http://127.0.0.1:8080/fhir/metadata >/trial/calls &
for each in $replicas $replicas; do systemctl restart dhp-gateway@$each; done
kill -TERM $!
wait $!
for each in $replicas; do systemctl stop dhp-gateway@$each; done
for each in $replicas; do
    step audit-$each $gateway audit verify /var/log/dhp-gateway/$each/audit.jsonl
done
cat /var/log/dhp-gateway/*/audit.jsonl | grep -c '"event":"exchange"' >/trial/records
kill %1
"""


@pytest.fixture(scope="module")
def server() -> Path:
    """The root of a Debian with systemd and Python, of this machine's release; made once."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for name in PROGRAMS:
        installed_program(name)
    release = this_release()
    root = cache_folder("boot-test") / release.suite
    if not root.exists():
        new = root.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        options = ["--variant=minbase", "--include=python3,systemd"]
        options.append(f"--components={release.components}")
        place = [release.suite, str(new), *filter(None, [release.mirror])]
        output_of(["debootstrap", *options, *place])
        new.rename(root)
    return root


@pytest.fixture(scope="module")
def bundle(server: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked archive for the server's Python, which is this machine's own."""
    folder = tmp_path_factory.mktemp("boot")
    (found,) = (server / "usr/bin").glob("python3.[0-9]*")
    if not Path("/usr/bin", found.name).exists():
        pytest.skip(f"{found.name} is missing: make test-tools")
    uv = [sys.executable, "-m", "uv"]
    output_of([*uv, "venv", "--quiet", "--python", f"/usr/bin/{found.name}", str(folder / "venv")])
    python = folder / "venv/bin/python"
    output_of(
        [*uv, "pip", "install", "--quiet", "--python", str(python), "babel", "hatchling", "pip"]
    )
    tools.make_wheelhouse(folder, PYTHON=str(python))
    (archive,) = folder.glob("*.tar.gz")
    tools.unpack(archive, folder)
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def outputs(server: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each step printed, its exit code in the last line. The server forgets everything."""
    trial = tmp_path_factory.mktemp("trial")
    # Systemd before 254 loses what is behind a space in the command line of a container.
    (trial / "steps.sh").write_text(f"#!/bin/sh\n{STEPS}")
    (trial / "steps.sh").chmod(0o755)
    shutil.copy(tools.HERE / "calls.py", trial)
    shutil.copytree(bundle, trial / "bundle")
    line = ["systemd-nspawn", "--quiet", "--register=no", "--private-network"]
    if not Path("/run/systemd/system").exists():
        line.append("--keep-unit")
    line += ["--volatile=overlay", f"--bind={trial}:/trial", "--directory", str(server)]
    subprocess.run(
        [*line, "--boot", "systemd.run=/trial/steps.sh"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    found = {each.name: each.read_text() for each in trial.iterdir() if each.is_file()}
    if "install" not in found:
        pytest.skip("systemd cannot be booted in a container here")
    return found


def exit_code_of(text: str) -> str:
    return text.splitlines()[-1]


def test_the_installation_needs_no_network(outputs: dict[str, str]) -> None:
    assert exit_code_of(outputs["install"]) == "0", outputs["install"]


def test_doctor_passes_before_and_beside_the_service(outputs: dict[str, str]) -> None:
    assert "All is well." in outputs["doctor"], outputs["doctor"]
    assert "All is well." in outputs["beside"], outputs["beside"]


def test_the_service_starts_and_forwards(outputs: dict[str, str]) -> None:
    assert exit_code_of(outputs["start"]) == "0", outputs["log"]
    assert outputs["request"].split() == ["200", "0"], outputs["log"]


def test_the_process_has_no_privileges(outputs: dict[str, str]) -> None:
    status = dict(re.findall(r"^(\w+):\s+(.*)$", outputs["process"], re.MULTILINE))
    assert "0" not in status["Uid"].split()
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_the_service_reloads_and_stops(outputs: dict[str, str]) -> None:
    assert exit_code_of(outputs["reload"]) == "0"
    assert "settings reloaded" in outputs["log"]
    assert {"Result=success", "ExecMainStatus=0"} <= set(outputs["result"].splitlines())


def test_the_audit_is_verified(outputs: dict[str, str]) -> None:
    assert exit_code_of(outputs["audit"]) == "0", outputs["audit"]
    assert "is complete" in outputs["audit"]


def test_two_replicas_are_active(outputs: dict[str, str]) -> None:
    assert outputs["both"].split() == ["active", "active", "0"], outputs["errors"]
    assert "All is well." in outputs["replica"], outputs["replica"]
    assert "127.0.0.1:9465 is in use by the running gateway" in outputs["replica"]


def test_replicas_are_restarted_without_a_failed_request(outputs: dict[str, str]) -> None:
    count, *ends = outputs["calls"].split()
    assert ends == ["200"], outputs["calls"]
    for instance in ("9464", "9465"):
        assert "is complete" in outputs[f"audit-{instance}"], outputs[f"audit-{instance}"]
    # SIGTERM may come between an answer and its count.
    assert int(outputs["records"]) - int(count) in (0, 1)
