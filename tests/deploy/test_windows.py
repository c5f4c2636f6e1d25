"""The Windows service: what can be known of it without a Windows.

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

SCRIPT = (WINDOWS / "install.ps1").read_bytes()
PATIENT = "/fhir/Patient/5d0c6f0a-1f1e-4c55-9a1b-000000000011"
WITHOUT_POSIX = [sys.executable, str(tools.HERE / "without_posix.py")]


@pytest.fixture
def service() -> ElementTree.Element:
    """The service as WinSW reads it."""
    return windows_service()


def test_the_audit_needs_nothing_that_windows_lacks(tmp_path: Path) -> None:
    """It goes to the standard output."""
    assert windows_settings(tmp_path).audit.sink == "stdout"


def test_the_service_starts_what_is_installed(service: ElementTree.Element) -> None:
    """The executable is the Python that the script puts there, running the gateway."""
    base = "C:\\Program Files\\DHP Gateway\\service"
    program = (service.findtext("executable") or "").replace("%BASE%", base)
    assert PureWindowsPath(program).parts[-4:] == ("..", "current", "Scripts", "python.exe")
    assert service.findtext("arguments") == "-P -m gateway run"
    assert b"'current'" in SCRIPT


def test_it_is_nobody_and_comes_back(service: ElementTree.Element) -> None:
    """It has hardly a right, is started again after a failure, and fetches nothing."""
    assert service.findtext("serviceaccount/user") == "LocalService"
    assert {each.attrib["action"] for each in service.iter("onfailure")} == {"restart"}
    assert service.find("download") is None


def test_no_audit_is_thrown_away(service: ElementTree.Element) -> None:
    """The audit's files are rotated and never removed."""
    log = service.find("log")
    assert log is not None
    assert log.attrib["mode"] == "roll-by-size-time"
    assert log.find("keepFiles") is None


def test_the_script_is_powershell() -> None:
    """The script parses, and is plain ASCII, which Windows PowerShell takes for granted."""
    grammar = tools.HERE / "node_modules/tree-sitter-powershell"
    if not grammar.exists():
        pytest.skip("no grammar of PowerShell here: make test-tools")
    node = tools.program("node")
    tools.output_of([node, tools.HERE / "powershell.mjs", WINDOWS / "install.ps1"])
    SCRIPT.decode("ascii")


def test_the_command_can_be_typed() -> None:
    """A folder with nothing but the command is added to the PATH of all users, once."""
    script = SCRIPT.decode()
    assert '@"%~dp0..\\current\\Scripts\\dhp-gateway.exe" %*' in script
    assert "-notcontains $bin" in script
    # Read and written as it is: %SystemRoot% must not become a fixed folder.
    assert "DoNotExpandEnvironmentNames" in script
    assert "-Type ExpandString" in script


def test_the_script_checks_before_it_changes_anything() -> None:
    """Checksums, kind and whose Python it is come before the first folder is made."""
    script = SCRIPT.decode()
    first_change = script.index("New-Item")
    for check in (
        *("Get-FileHash", "$here -ne $kind", "installed for one person"),
        *("\nAssert-Ours $programs", "\nAssert-AllOurs $data", "-not $WinSWSha256"),
    ):
        assert script.index(check) < first_change
    assert "--require-hashes" in script
    assert "--no-index" in script


def test_nothing_of_others_is_kept() -> None:
    """What others made is refused; all is the administrators' before anything is put there."""
    script = SCRIPT.decode()
    closed = script.index("Set-Acl -LiteralPath $data")
    assert "SetAccessRuleProtection($true, $false)" in script[:closed]
    again = script.index("\nAssert-AllOurs $data", closed)
    owner, reset = script.index("/setowner"), script.index("/reset /T /L")
    written = script.index("-Destination $settings"), script.index("-ItemType File -Path $secret")
    assert closed < again < min(written) < max(written) < owner < reset
    assert '/setowner "*$administrators" /T /L' in script


def test_the_service_keeps_its_rights_over_an_upgrade() -> None:
    """After the reset the service gets its rights again, also without -WinSW."""
    script = SCRIPT.decode()
    assert script.index("/reset /T /L") < script.index("if ($WinSW -or $running)")
    assert script.index("if ($WinSW -or $running)") < script.index("icacls $data /grant")


def test_the_services_program_is_checked() -> None:
    """WinSW is taken with a checksum only, and the copy that is run is compared as well."""
    script = SCRIPT.decode()
    copied = script.index("-Destination $wrapper")
    installed = script.index("$wrapper install")
    assert "-LiteralPath $wrapper -Algorithm SHA256" in script[copied:installed]


def test_the_archive_is_complete(tmp_path: Path) -> None:
    """Packed here, it has a wheel for Windows of everything that the lock names for it."""
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
    """The gateway on a Python without POSIX."""
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
    """Settings that lead to a sandbox."""
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


def test_it_serves_and_ends_without_posix() -> None:
    """Without uvloop, file locks and the loop's signals it gets ready, forwards, ends by Ctrl-C."""
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
def test_what_windows_lacks_is_refused(key: str, value: str, says: str) -> None:
    """`check` names every setting that cannot be had there, with what to use instead."""
    settings = {**variables(1, 2, 3), f"DHP_GATEWAY_{key}": value}
    if key == "AUDIT__SINK":
        settings["DHP_GATEWAY_AUDIT__PATH"] = "audit.jsonl"
    with running("check", **settings) as process:
        out, _ = process.communicate()
    assert process.returncode == 2
    assert re.search(rf"^{says}\b.*not to be had on this operating system", out, re.MULTILINE), out
