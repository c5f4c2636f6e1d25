"""The Windows service, as far as it can be tested without Windows.

The gateway itself runs on a Python without POSIX; service, settings, script and archive are read.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from xml.etree import ElementTree

import pytest

from gateway import __version__
from tests.deploy import tools
from tests.deploy.targets import WINDOWS, windows_service, windows_settings
from tests.doubles.processes import free_port
from tests.environments import installed_program, output_of

SCRIPT = (WINDOWS / "install.ps1").read_bytes()
PATIENT = "/fhir/Patient/5d0c6f0a-1f1e-4c55-9a1b-000000000011"
WITHOUT_POSIX = [sys.executable, str(tools.HERE / "without_posix.py")]


@pytest.fixture
def service() -> ElementTree.Element:
    return windows_service()


def test_the_audit_is_written_to_stdout(tmp_path: Path) -> None:
    assert windows_settings(tmp_path).audit.sink == "stdout"


def test_the_service_runs_the_installed_python(service: ElementTree.Element) -> None:
    base = "C:\\Program Files\\DHP Gateway\\service"
    program = (service.findtext("executable") or "").replace("%BASE%", base)
    assert PureWindowsPath(program).parts[-4:] == ("..", "current", "Scripts", "python.exe")
    assert service.findtext("arguments") == "-P -m gateway run"
    assert b"'current'" in SCRIPT


def test_the_service_is_unprivileged_and_restarts(service: ElementTree.Element) -> None:
    assert service.findtext("serviceaccount/user") == "LocalService"
    assert {each.attrib["action"] for each in service.iter("onfailure")} == {"restart"}
    assert service.find("download") is None


def test_the_audit_is_rotated_and_never_removed(service: ElementTree.Element) -> None:
    log = service.find("log")
    assert log is not None
    assert log.attrib["mode"] == "roll-by-size-time"
    assert log.find("keepFiles") is None


def test_the_script_is_valid_powershell() -> None:
    """The script is plain ASCII, as Windows PowerShell requires."""
    grammar = tools.HERE / "node_modules/tree-sitter-powershell"
    if not grammar.exists():
        pytest.skip("no grammar of PowerShell here: make test-tools")
    node = installed_program("node")
    output_of([node, tools.HERE / "powershell.mjs", WINDOWS / "install.ps1"])
    SCRIPT.decode("ascii")


def test_the_script_checks_all_before_it_writes_and_gives_rights_last() -> None:
    steps = [
        *("Get-FileHash -LiteralPath $file", "$here -ne $kind", "installed for one person"),
        *("Get-FileHash -LiteralPath $WinSW", "\nAssert-Ours $programs", "\nAssert-AllOurs $data"),
        *("New-Item -ItemType Directory", "--require-hashes", "Set-Acl -LiteralPath $data"),
        # Again, because the folder may have changed before it was closed to others.
        *("\nAssert-AllOurs $data", "-Destination $settings", "-ItemType File -Path $secret"),
        *(
            "/setowner",
            "/reset /T /L",
            "-Destination $wrapper",
            "Get-FileHash -LiteralPath $wrapper",
        ),
        *("$wrapper install", "icacls $data /grant"),
    ]
    script = SCRIPT.decode()
    for step in steps:
        assert step in script, step
        script = script.partition(step)[2]


@pytest.mark.ci
def test_the_archive_is_complete(tmp_path: Path) -> None:
    # As make names it: from the project's folder.
    python = os.path.relpath(sys.executable, tools.PROJECT)
    tools.make_wheelhouse(tmp_path, PYTHON=python, WINDOWS="3.13")
    name = f"dhp-gateway-{__version__}-cp313-win32-AMD64"
    with zipfile.ZipFile(tmp_path / f"{name}.zip") as archive:
        files = {each.removeprefix(f"{name}/") for each in archive.namelist()}
        lock = archive.read(f"{name}/requirements.lock").decode()
    wanted = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    wheels = {one.removeprefix("wheels/") for one in files if one.startswith("wheels/")}
    assert {one.partition("-")[0].lower().replace("_", "-") for one in wheels - {""}} == wanted
    assert all(one.endswith(("-none-any.whl", "-win_amd64.whl")) for one in wheels - {""})
    assert "uvloop" not in wanted
    assert {"install.ps1", "windows/dhp-gateway.xml", "windows/gateway.yaml", "pip/"} <= files


@contextmanager
def running(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*WITHOUT_POSIX, *arguments],
        env=environ,
        cwd=tools.HERE,  # no settings file is there to be found
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def get(port: int, path: str) -> tuple[int, bytes]:
    """Return status and body of a response; status 0 while the port has no listener."""
    caller = http.client.HTTPConnection("127.0.0.1", port)
    try:
        caller.request("GET", path)
        response = caller.getresponse()
        return response.status, response.read()
    except ConnectionError:
        return 0, b""
    finally:
        caller.close()


def variables(platform: int, listen: int, admin: int) -> dict[str, str]:
    settings = {
        "ENVIRONMENT": "custom",
        "LISTEN__ADDRESS": f"127.0.0.1:{listen}",
        "ADMIN__ADDRESS": f"127.0.0.1:{admin}",
        "PLATFORM__FHIR_BASE_URL": f"http://127.0.0.1:{platform}/fhir",
        "SSO__TOKEN_URL": f"http://127.0.0.1:{platform}/oauth/token",
        "CREDENTIALS__DEFAULT__CLIENT_ID": "hospital-demo",
        "CREDENTIALS__DEFAULT__CLIENT_SECRET": "sandbox-secret",
        "SHUTDOWN__DELAY": "0",
    }
    return {f"DHP_GATEWAY_{key}": value for key, value in settings.items()}


def test_the_gateway_runs_without_posix() -> None:
    platform, listen, admin = free_port(), free_port(), free_port()
    with (
        running("sandbox", "--platform-only", "--port", str(platform)),
        running("run", **variables(platform, listen, admin)) as gateway,
    ):
        deadline = time.monotonic() + 60
        while get(admin, "/readyz")[0] != 200:
            assert gateway.poll() is None, gateway.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        status, body = get(listen, PATIENT)
        assert (status, json.loads(body)["resourceType"]) == (200, "Patient")
        assert get(admin, "/metrics")[0] == 200
        gateway.send_signal(signal.SIGINT)
        out, err = gateway.communicate()
    assert gateway.returncode == 0, err
    assert [json.loads(line)["event"] for line in out.splitlines()][-1] == "stop"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("AUDIT__SINK", "file", "audit.sink"),
        ("LISTEN__ADDRESS", "unix:/run/gateway.sock", "listen.address"),
        ("LISTEN__REUSE_PORT", "true", "listen.reuse_port"),
    ],
)
def test_settings_unavailable_on_windows_are_rejected(key: str, value: str, says: str) -> None:
    settings = {**variables(1, 2, 3), f"DHP_GATEWAY_{key}": value}
    if key == "AUDIT__SINK":
        settings["DHP_GATEWAY_AUDIT__PATH"] = "audit.jsonl"
    with running("check", **settings) as process:
        out, _ = process.communicate()
    assert process.returncode == 2
    assert re.search(rf"^{says}\b.*Not available on this operating system", out, re.MULTILINE), out
