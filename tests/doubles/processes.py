"""Real programs beside a test: started on a free port, monitored, ended with SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.doubles.forked import ForkedGateway

REPOSITORY = Path(__file__).resolve().parents[2]
GATEWAY_COMMAND = Path(sys.executable).with_name("dhp-gateway")
_POLL = 0.02
_MAX_KEPT = 100
# Descriptors of sockets.
_reserved: deque[int] = deque()
_given: set[int] = set()


def free_port() -> int:
    """Return a loopback port without a listener; never the same one twice in this process.

    It stays bound here, so that no other program gets it before the one that the test starts there
    listens, or while that one is down. Connections are refused meanwhile, and a program that sets
    SO_REUSEADDR can listen.
    """
    while True:
        reserved = socket.socket()
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = int(reserved.getsockname()[1])
        _reserved.append(reserved.detach())
        if len(_reserved) > _MAX_KEPT:
            os.close(_reserved.popleft())
        if port not in _given:
            _given.add(port)
            return port


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(slots=True)
class Process:
    """A running program whose output goes to files, so that a full pipe never stops it."""

    popen: subprocess.Popen[bytes] | ForkedGateway
    stdout_file: Path
    stderr_file: Path

    @property
    def stdout(self) -> str:
        return self.stdout_file.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self.stderr_file.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        return self.popen.poll() is not None

    @property
    def crashed(self) -> bool:
        """Return whether a signal has ended the program that `terminate` did not send."""
        code = self.popen.returncode if self.ended else 0
        return code is not None and code < 0 and code != -signal.SIGTERM

    def failure(self, text: str) -> AssertionError:
        """Return an error that shows the output of the program."""
        state = f"exit code {self.popen.returncode}" if self.ended else "still running"
        return AssertionError(f"{text} ({state})\n{self.stdout[-2000:]}\n{self.stderr[-4000:]}")

    def terminate(self, *, patience: float = 120) -> int:
        """Send SIGTERM, after `patience` seconds SIGKILL, and return the exit code."""
        if not self.ended:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise self.failure("did not end with SIGTERM") from None

    def wait_until_listening(self, port: int, *, patience: float = 120) -> None:
        """Wait until the program accepts connections on this loopback port."""
        deadline = time.monotonic() + patience
        while not _accepts(port):
            if self.ended or time.monotonic() > deadline:
                raise self.failure(f"does not listen on port {port}")
            time.sleep(_POLL)

    def first_line(self, *, patience: float = 120) -> str:
        deadline = time.monotonic() + patience
        while "\n" not in self.stdout:
            if self.ended or time.monotonic() > deadline:
                raise self.failure("printed nothing")
            time.sleep(_POLL)
        return self.stdout.split("\n", 1)[0]


def start(
    command: Sequence[str | Path],
    directory: Path,
    *,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    name: str = "process",
) -> Process:
    """Start a program; its output goes to `directory` as NAME.out and NAME.err.

    The gateway is forked from a waiting process, except where it gets descriptors, or variables
    that Python reads.
    """
    stdout_file, stderr_file = directory / f"{name}.out", directory / f"{name}.err"
    program, *arguments = map(str, command)
    variables = {**os.environ, **(environment or {})}
    is_python_changed = any(name.startswith("PYTHON") for name in environment or {})
    with stdout_file.open("wb") as stdout, stderr_file.open("wb") as stderr:
        popen: subprocess.Popen[bytes] | ForkedGateway
        if program == str(GATEWAY_COMMAND) and not is_python_changed and not pass_fds:
            popen = ForkedGateway(
                arguments, stdout=stdout_file, stderr=stderr_file, environment=variables
            )
        else:
            popen = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=variables,
                pass_fds=tuple(pass_fds),
            )
    return Process(popen, stdout_file, stderr_file)


@dataclass(slots=True)
class GatewayProcess:
    """The gateway as an operator runs it, with the addresses that the test chose."""

    process: Process
    url: str
    admin_url: str

    async def wait_for_status(
        self, status: int, path: str = "/readyz", *, patience: float = 120
    ) -> None:
        """Wait until the admin listener responds to `path` with `status`."""
        deadline = time.monotonic() + patience
        received: int | None = None
        async with aiohttp.ClientSession() as session:
            while not self.process.ended and time.monotonic() < deadline:
                received = await _status_of(session, self.admin_url + path)
                if received == status:
                    return
                await asyncio.sleep(_POLL)
        raise self.process.failure(f"{path} answered {received}, awaited {status}")


async def _status_of(session: aiohttp.ClientSession, url: str) -> int | None:
    try:
        async with session.get(url) as response:
            return response.status
    except aiohttp.ClientError:
        return None


def start_gateway(
    settings: Mapping[str, Any], directory: Path, prefix: Sequence[str] = ()
) -> GatewayProcess:
    """Run `dhp-gateway run` with these settings and free ports for its two listeners.

    The settings' `listen` and `admin` may hold more than the addresses, which are filled in;
    `listen` may hold one. `prefix` is the command line of a program that runs the gateway.
    """
    listen = settings.get("listen", {}).get("address") or f"127.0.0.1:{free_port()}"
    admin = f"127.0.0.1:{free_port()}"
    base_path = settings.get("listen", {}).get("base_path", "/fhir")
    complete = {
        "environment": "custom",
        # No load balancer has to notice the end first.
        "shutdown": {"delay": 0},
        **settings,
        "listen": {**settings.get("listen", {}), "address": listen},
        "admin": {**settings.get("admin", {}), "address": admin},
    }
    file = directory / "gateway.yaml"
    file.write_text(yaml.safe_dump(complete))
    command = [*prefix, GATEWAY_COMMAND, "run", "--config", file]
    process = start(command, directory, name="gateway")
    return GatewayProcess(process, f"http://{listen}{base_path.rstrip('/')}", f"http://{admin}")
