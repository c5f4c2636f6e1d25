"""The contenders: how each is configured and started, all towards the same platform and SSO."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prerequisites import program, provide_envoy
from processes import free_port

HERE = Path(__file__).parent
GATEWAY = "dhp-gateway"
# As long as a JWT of the national SSO; what it says does not matter here.
TOKEN = "eyJhbGciOiJSUzI1NiJ9." + "x" * 480 + "." + "y" * 342


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the platform and the SSO listen, and a directory for configuration files."""

    directory: Path
    upstream_port: int
    sso_port: int

    def fill_in(self, template: str, port: int, name: str) -> Path:
        """Writes a configuration file from one beside this module."""
        text = (HERE / template).read_text()
        for placeholder, value in {
            "@DIRECTORY@": self.directory,
            "@PORT@": port,
            "@UPSTREAM_PORT@": self.upstream_port,
            "@SSO_PORT@": self.sso_port,
            "@TOKEN@": TOKEN,
        }.items():
            text = text.replace(placeholder, str(value))
        file = self.directory / name
        file.write_text(text)
        return file


Prepare = Callable[[Surroundings, int], Sequence[str | Path]]


@dataclass(frozen=True, slots=True)
class Contender:
    """One proxy under test; `prepare` gives the command that makes it listen on `port`."""

    name: str
    description: str
    prepare: Prepare
    port: int = field(default_factory=free_port)


def nginx_command(configuration: Path, directory: Path) -> list[str | Path]:
    """nginx in the foreground, as one process, with all its files in `directory`."""
    return [program("nginx") or "nginx", "-p", directory, "-e", "stderr", "-c", configuration]


def _gateway(around: Surroundings, port: int) -> Sequence[str | Path]:
    settings = {
        "environment": "custom",
        "listen": {"address": f"127.0.0.1:{port}"},
        "admin": {"address": f"127.0.0.1:{free_port()}"},
        "platform": {"fhir_base_url": f"http://127.0.0.1:{around.upstream_port}/fhir"},
        "sso": {"token_url": f"http://127.0.0.1:{around.sso_port}/oauth/token"},
        "credentials": {"default": {"client_id": "bench", "client_secret": "bench"}},
    }
    file = around.directory / "gateway.yaml"
    file.write_text(json.dumps(settings))  # JSON is YAML
    return [Path(sys.executable).with_name("dhp-gateway"), "run", "--config", file]


def _usual_proxy(around: Surroundings, port: int) -> Sequence[str | Path]:
    upstream = f"http://127.0.0.1:{around.upstream_port}"
    token_url = f"http://127.0.0.1:{around.sso_port}/oauth/token"
    return [sys.executable, HERE / "usual_proxy.py", str(port), upstream, token_url]


def _envoy(around: Surroundings, port: int) -> Sequence[str | Path]:
    configuration = around.fill_in("envoy.yaml", port, "envoy.yaml")
    quiet = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return [provide_envoy(), "-c", configuration, *quiet]


def _nginx(around: Surroundings, port: int) -> Sequence[str | Path]:
    return nginx_command(around.fill_in("nginx_proxy.conf", port, "proxy.conf"), around.directory)


def contenders(left_out: Sequence[str]) -> list[Contender]:
    """All contenders but those named in `left_out`."""
    every = [
        Contender(GATEWAY, "this gateway, audit and metrics on", _gateway),
        Contender(
            "usual", "aiohttp application + ClientSession, cached token, log line", _usual_proxy
        ),
        Contender("envoy", "Envoy, credential_injector with OAuth2, JSON access log", _envoy),
        Contender("nginx", "nginx, fixed token, JSON access log", _nginx),
    ]
    return [contender for contender in every if contender.name not in left_out]
