"""The container image: built from the real Dockerfile, run as its own user on a read-only root."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.deploy.container import COMPILES, Image, built_image, missing
from tests.doubles.processes import free_port

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

SECRET = "planted-client-secret"
TOKEN = "planted-access-token"
PATIENT = b'{"resourceType":"Patient","id":"1"}'


class Platform(ThreadingHTTPServer):
    """A platform and SSO double that remembers the `Authorization` of each FHIR request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PlatformHandler)
        self.saw: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class PlatformHandler(BaseHTTPRequestHandler):
    """Issues a token to any client, and serves one patient."""

    protocol_version = "HTTP/1.1"
    server: Platform

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        grant = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}
        self._answer("application/json", json.dumps(grant).encode())

    def do_GET(self) -> None:
        self.server.saw.append((self.path, self.headers["Authorization"]))
        self._answer("application/fhir+json", PATIENT)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output clean."""

    def _answer(self, media_type: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@dataclass(frozen=True)
class Running:
    """A gateway in its container."""

    image: Image
    process: subprocess.Popen[str]
    settings: Mapping[str, str]
    output: Path

    def get(self, path: str) -> bytes:
        caller = http.client.HTTPConnection(self.settings["DHP_GATEWAY_LISTEN__ADDRESS"])
        with contextlib.closing(caller):
            caller.request("GET", path)
            return caller.getresponse().read()

    def check_health(self) -> int:
        return self.image.run(
            self.image.config["Healthcheck"]["Test"][1:], self.settings
        ).returncode

    def wait_until_ready(self) -> None:
        """Returns when the health check passes; the build machine may be slow."""
        deadline = time.monotonic() + 60
        while self.check_health() != 0:
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()

    def stop(self) -> int:
        self.process.send_signal(signal.Signals[self.image.config["StopSignal"]])
        return self.process.wait()


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    with built_image() as built:
        yield built


@pytest.fixture
def platform() -> Iterator[Platform]:
    with Platform() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def settings_for(platform_url: str) -> dict[str, str]:
    settings = {
        "ENVIRONMENT": "custom",
        "LISTEN__ADDRESS": f"127.0.0.1:{free_port()}",
        "ADMIN__ADDRESS": f"127.0.0.1:{free_port()}",
        "PLATFORM__FHIR_BASE_URL": f"{platform_url}/r5",
        "SSO__TOKEN_URL": f"{platform_url}/oauth/token",
        "SSO__AUTHORIZE_URL": platform_url,
        "CREDENTIALS__DEFAULT__CLIENT_ID": "hospital-17",
        "CREDENTIALS__DEFAULT__CLIENT_SECRET": SECRET,
    }
    return {f"DHP_GATEWAY_{key}": value for key, value in settings.items()}


@pytest.fixture
def running(image: Image, platform: Platform, tmp_path: Path) -> Iterator[Running]:
    """A gateway started by the image's default command in front of the platform double."""
    settings = settings_for(platform.url)
    output = tmp_path / "output"
    with (
        output.open("w") as log,
        image.start(image.command(), settings, stdout=log, stderr=log) as process,
    ):
        yield Running(image, process, settings, output)
        process.kill()


def test_a_request_is_forwarded_with_a_token(running: Running, platform: Platform) -> None:
    running.wait_until_ready()
    assert json.loads(running.get("/fhir/Patient/1")) == json.loads(PATIENT)
    assert platform.saw[-1] == ("/r5/Patient/1", f"Bearer {TOKEN}")


def test_the_image_is_compiled_with_a_compiler(running: Running) -> None:
    running.wait_until_ready()
    start = next(line for line in running.output.read_text().splitlines() if '"start"' in line)
    assert json.loads(start)["compiled"] is COMPILES
    libraries = next(running.image.root.glob("opt/dhp-gateway/lib/python3*/site-packages"))
    assert len(list(libraries.glob("gateway__mypyc.*.so"))) == COMPILES
    own = {path.suffix for path in (libraries / "gateway").rglob("*")}
    assert ".py" in own
    assert (".so" in own) is COMPILES
    assert not own & {".c", ".h", ".o"}


def test_the_stop_signal_ends_it_cleanly(running: Running) -> None:
    running.wait_until_ready()
    assert running.stop() == 0, running.output.read_text()
    printed = running.output.read_text()
    assert SECRET not in printed
    assert TOKEN not in printed


def test_the_health_check_fails_without_a_gateway(image: Image, platform: Platform) -> None:
    check = image.config["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    assert image.run(check[1:], settings_for(platform.url)).returncode == 1


def test_missing_settings_are_named(image: Image) -> None:
    done = image.run(image.command(), {})
    assert done.returncode == 2
    assert "no settings file: use --config" in done.stderr
    assert "нет файла настроек" in image.run(image.command("--lang", "ru", "check"), {}).stdout


def test_the_root_is_read_only(image: Image) -> None:
    as_root = Image(image.root, {**image.config, "User": "0:0"})
    done = as_root.run(["touch", "/opt/dhp-gateway/written"], {})
    assert "Read-only file system" in done.stderr


def test_it_runs_as_a_numbered_user_without_a_shell(image: Image) -> None:
    user, _, group = image.config["User"].partition(":")
    assert int(user) >= 1000
    assert int(group) >= 1000
    assert image.config["Entrypoint"] == ["dhp-gateway"]
    assert image.config["StopSignal"] == "SIGTERM"


def test_the_sandbox_runs_in_the_image(image: Image, tmp_path: Path) -> None:
    variables = dict(each.split("=", 1) for each in image.config["Env"] if "SANDBOX" in each)
    assert set(variables.values()) == {"0.0.0.0:8080", "0.0.0.0:9464"}
    # The ports of this machine may be taken.
    ports = [str(free_port()) for _ in range(3)]
    moved = dict(zip(variables, (f"0.0.0.0:{port}" for port in ports[:2]), strict=True))
    command, output = image.command("sandbox", "--port", ports[2]), tmp_path / "output"
    with output.open("w") as log, image.start(command, moved, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + 60
            while "To stop it: Ctrl-C." not in output.read_text():
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < deadline, output.read_text()
                time.sleep(0.1)
            found = re.search(r"curl http://127.0.0.1:(\d+)(\S+)", output.read_text())
            assert found is not None
            # Not the address that loopback listeners have: published ports come by another, too.
            caller = http.client.HTTPConnection("127.0.0.2", int(found[1]))
            with contextlib.closing(caller):
                caller.request("GET", found[2])
                assert json.loads(caller.getresponse().read())["resourceType"] == "Patient"
                caller.request("GET", "/elsewhere", headers={"Accept-Language": "ru"})
                assert "шлюзе" in caller.getresponse().read().decode()
        finally:
            process.kill()


def test_volumes_belong_to_the_user_of_the_image(image: Image) -> None:
    for folder in ("var/log/dhp-gateway", "var/lib/dhp-gateway"):
        found = (image.root / folder).stat()
        assert f"{found.st_uid}:{found.st_gid}" == image.config["User"]
        assert found.st_mode & 0o777 == 0o700


def test_no_build_files_are_in_the_image(image: Image) -> None:
    installed = {path.name for path in (image.root / "opt/dhp-gateway").rglob("*")}
    assert not installed & {"babel", "pip", "setuptools", "hatchling", "mypy", "mypyc", "pip.conf"}
    for left in ("build", "root/.cache", "run/secrets"):
        assert not any((image.root / left).glob("*")), left
    environment = " ".join(image.config["Env"])
    assert "PIP_" not in environment


def test_byte_code_is_included(image: Image) -> None:
    package = next(image.root.glob("opt/dhp-gateway/lib/python3*/site-packages/gateway"))
    sources = sorted(package.rglob("*.py"))
    assert sources
    for source in sources:
        assert any(source.parent.glob(f"__pycache__/{source.stem}.cpython-*.pyc")), source
