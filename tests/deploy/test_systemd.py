"""The systemd units, checked by systemd."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from gateway.config.loader import load_settings
from gateway.config.settings import Settings
from tests.deploy import tools
from tests.deploy.targets import SYSTEMD, UNIT, directives, systemd_settings
from tests.environments import installed_program, output_of, run

TEMPLATE = SYSTEMD / "dhp-gateway@.service"
UNITS = Path("/usr/lib/systemd/system")


@pytest.fixture(scope="module")
def analyze() -> str:
    return installed_program("systemd-analyze")


@pytest.fixture
def unit() -> dict[str, list[str]]:
    return directives(UNIT)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return systemd_settings(tmp_path)


def verify(analyze: str, root: Path, text: str, name: str = UNIT.name) -> str:
    """Return systemd's messages about a unit, in a root with the gateway and its units."""
    folder = root / "usr/lib/systemd/system"
    shutil.copytree(UNITS, folder, symlinks=True)
    (folder / name).write_text(text)
    for program in ("opt/dhp-gateway/bin/dhp-gateway", "bin/sh"):
        (root / program).parent.mkdir(parents=True)
        (root / program).write_text("#!/bin/sh\n")
        (root / program).chmod(0o755)
    line = [analyze, "verify", "--man=no", "--recursive-errors=no", f"--root={root}"]
    return run([*line, name.replace("@.", "@9465.")]).stderr


@pytest.mark.parametrize("unit", [UNIT, TEMPLATE], ids=["one", "replicas"])
def test_systemd_accepts_the_units(analyze: str, tmp_path: Path, unit: Path) -> None:
    assert verify(analyze, tmp_path, unit.read_text(), unit.name) == ""


def test_the_exposure_level_is_the_documented_one(analyze: str) -> None:
    told = output_of([analyze, "security", "--offline=yes", "--no-pager", UNIT])
    score = re.findall(r"Overall exposure level for \S+: ([\d.]+)", told)
    page = (tools.PROJECT / "docs/installation.md").read_text()
    assert score == re.findall(r"exposure level ([\d.]+)", page)
    assert float(score[0]) <= 1.5


def test_only_needed_privileges_are_left(analyze: str) -> None:
    line = [analyze, "security", "--offline=yes", "--no-pager", "--json=short", UNIT]
    checks = json.loads(output_of(line))
    left = {one["json_field"] for one in checks if one["set"] is False}
    assert left <= {
        "RootDirectoryOrRootImage",
        "PrivateNetwork",
        "RestrictAddressFamilies_AF_INET_INET6",
        "RestrictAddressFamilies_AF_UNIX",
        "IPAddressDeny",
        "DeviceAllow",  # ProtectClock= opens the clock's device for reading
        "ProcSubset",  # the process_* metrics need /proc/stat
    }


def test_invalid_settings_are_not_retried(unit: dict[str, list[str]]) -> None:
    assert unit["Restart"] == ["always"]
    assert unit["RestartPreventExitStatus"] == ["2"]


def system_calls(analyze: str, group: str) -> set[str]:
    """The system calls of one of systemd's groups, those of the groups in it included."""
    found: set[str] = set()
    told = output_of([analyze, "syscall-filter", "--no-pager", group])
    for name in re.findall(r"^ +([@\w-]+)$", told, re.MULTILINE):
        found |= system_calls(analyze, name) if name.startswith("@") else {name}
    return found


def test_the_gateway_runs_under_the_system_call_filter(
    analyze: str, unit: dict[str, list[str]]
) -> None:
    # systemd lets @default through in any case; execve is how it starts the program.
    allowed = system_calls(analyze, "@default") | {"execve"}
    for rule in unit["SystemCallFilter"]:
        for group in rule.lstrip("~").split():
            change = allowed.difference if rule.startswith("~") else allowed.union
            allowed = change(system_calls(analyze, group))
    confined = [sys.executable, str(tools.HERE / "confined.py"), *sorted(allowed), "--"]
    addresses = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--port", "0"]
    line = [*confined, sys.executable, "-m", "gateway", "sandbox", *addresses]
    with subprocess.Popen(line, cwd=tools.PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = next(each.split()[1] for each in process.stdout if each.startswith("  curl "))
        with urlopen(url) as answer:  # noqa: S310 - on loopback
            assert json.load(answer)["resourceType"] == "Patient"
        process.terminate()
    assert process.returncode == 0


def test_memory_is_limited(unit: dict[str, list[str]]) -> None:
    high, most = (int(unit[key][0].removesuffix("M")) for key in ("MemoryHigh", "MemoryMax"))
    assert 128 < high < most <= 1024
    assert "OOMScoreAdjust" not in unit


def test_the_template_differs_in_folders_and_variables_only(unit: dict[str, list[str]]) -> None:
    found = directives(TEMPLATE)
    differing = {key for key in unit.keys() | found.keys() if unit[key] != found[key]}
    own = {"Environment", "LogsDirectory", "StateDirectory"}
    assert differing == own | {"Description", "RuntimeDirectory", "RuntimeDirectoryMode"}
    for key in own:
        assert set(unit[key]) <= {
            part for value in found[key] for part in (value, value.split()[0])
        }


def test_two_replicas_can_run_side_by_side(settings: Settings, tmp_path: Path) -> None:
    places = {"%L": "/var/log", "%S": "/var/lib"}

    def of(instance: str) -> Settings:
        environ = {"DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_ID": "hospital-17"}
        for value in directives(TEMPLATE)["Environment"]:
            name, _, text = value.partition("=")
            for sign, place in {**places, "%i": instance, "%d": str(tmp_path)}.items():
                text = text.replace(sign, place)
            environ[name] = text
        return load_settings(SYSTEMD / "gateway.yaml", environ)

    first, second = of("9464"), of("9465")
    assert first.listen == second.listen
    assert first.listen.address == settings.listen.address
    assert first.listen.reuse_port
    assert (first.admin.address.port, second.admin.address.port) == (9464, 9465)
    folders = directives(TEMPLATE)["LogsDirectory"][0].split()
    for instance, made in (("9464", first), ("9465", second)):
        folder = Path("/var/log", folders[-1].replace("%i", instance))
        assert made.audit.path == folder / "audit.jsonl"
