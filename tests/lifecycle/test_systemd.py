"""What systemd is told (sd_notify(3))."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.app.run import SystemdNotifier
from tests.lifecycle.conftest import StartService
from tests.lifecycle.test_reload import refused, until_reloaded


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)

    async def told(self) -> str:
        """The first line of the next message."""
        async with asyncio.timeout(60):
            data = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
        return data.decode().partition("\n")[0]

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    """Listens at tmp_path/notify."""
    listening = Systemd(str(tmp_path / "notify"))
    yield listening
    listening.close()


async def test_systemd_hears_of_start_reload_and_end(
    start_service: StartService, tmp_path: Path, systemd: Systemd
) -> None:
    """READY once it serves, RELOADING and READY around a reload, also a refused one, STOPPING."""
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    service = start_service(process_environment=environment)
    assert await systemd.told() == "READY=1"
    await service.until_ready()
    service.send(signal.SIGHUP)
    assert [await systemd.told(), await systemd.told()] == ["RELOADING=1", "READY=1"]
    await until_reloaded(service, 1)
    service.change(admin={"address": "127.0.0.1:1"})
    service.send(signal.SIGHUP)
    assert [await systemd.told(), await systemd.told()] == ["RELOADING=1", "READY=1"]
    await refused(service)
    service.send(signal.SIGTERM)
    assert await systemd.told() == "STOPPING=1"
    assert await service.ended() == 0


async def test_the_watchdog_gets_signs_of_life(
    start_service: StartService, tmp_path: Path, systemd: Systemd
) -> None:
    """With WATCHDOG_USEC the gateway reports itself alive again and again."""
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    start_service(process_environment=environment)
    heard = [await systemd.told() for _ in range(5)]
    assert set(heard) == {"READY=1", "WATCHDOG=1"}
    assert heard.count("WATCHDOG=1") >= 3


def test_an_abstract_socket_and_another_process(tmp_path: Path) -> None:
    """`@name` means an abstract socket; a watchdog meant for another process is not ours."""
    name = f"dhp-gateway-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(60)
        notifier = SystemdNotifier(
            {"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
        )
        notifier.ready()
        assert listening.recv(100) == b"READY=1"
    assert notifier.watchdog is None
    notifier.stopping()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "relative"}, {"WATCHDOG_USEC": "x"}])
def test_without_systemd_nothing_happens(environ: dict[str, str]) -> None:
    """Without a listener at NOTIFY_SOCKET nothing is sent and nothing fails."""
    notifier = SystemdNotifier({"WATCHDOG_USEC": "1000", **environ})
    notifier.ready()
    assert notifier.watchdog is None
