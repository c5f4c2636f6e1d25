"""Notifications of systemd (sd_notify(3))."""

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
from tests.lifecycle.test_reload import problems_of, wait_until_reloaded


class Systemd:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)

    async def received(self) -> str:
        """Return the first line of the next message."""
        async with asyncio.timeout(60):
            data = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
        return data.decode().partition("\n")[0]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    listening = Systemd(str(tmp_path / "notify"))
    yield listening
    listening.close()


async def test_start_reload_and_end_are_notified(
    start_service: StartService, tmp_path: Path, systemd: Systemd
) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    service = start_service(process_environment=environment)
    assert await systemd.received() == "READY=1"
    await service.wait_until_ready()
    service.send(signal.SIGHUP)
    assert [await systemd.received(), await systemd.received()] == ["RELOADING=1", "READY=1"]
    await wait_until_reloaded(service, 1)
    service.change(admin={"address": "127.0.0.1:1"})
    service.send(signal.SIGHUP)
    assert [await systemd.received(), await systemd.received()] == ["RELOADING=1", "READY=1"]
    await problems_of(service)
    service.send(signal.SIGTERM)
    assert await systemd.received() == "STOPPING=1"
    assert await service.ended() == 0


async def test_the_watchdog_is_notified_repeatedly(
    start_service: StartService, tmp_path: Path, systemd: Systemd
) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    start_service(process_environment=environment)
    heard = [await systemd.received() for _ in range(5)]
    assert set(heard) == {"READY=1", "WATCHDOG=1"}
    assert heard.count("WATCHDOG=1") >= 3


def test_an_abstract_socket_and_another_process(tmp_path: Path) -> None:
    """`@name` is an abstract socket; a watchdog of another process is ignored."""
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
def test_without_a_notify_listener_nothing_fails(environ: dict[str, str]) -> None:
    notifier = SystemdNotifier({"WATCHDOG_USEC": "1000", **environ})
    notifier.ready()
    assert notifier.watchdog is None
