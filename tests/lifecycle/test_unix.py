"""A unix socket as the callers' listener."""

from __future__ import annotations

import signal
import socket
import stat
from pathlib import Path
from typing import Any

from tests.doubles.wire import fetch, get
from tests.lifecycle.conftest import StartService


def on_socket(path: Path) -> dict[str, Any]:
    return {"listen": {"address": f"unix:{path}"}}


async def test_unix_socket_is_removed_at_end(start_service: StartService, tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    service = await start_service.ready(**on_socket(path))
    assert service.admin.path is not None
    sockets = (path, Path(service.admin.path))
    assert [stat.S_IMODE(each.stat().st_mode) for each in sockets] == [0o660, 0o660]
    assert (await fetch(service.address, get("/fhir/Patient/1"))).status == 200
    await service.wait_until(lambda: bool(service.audit("exchange")), "the record")
    assert service.audit("exchange")[0]["remote"] == "unix"
    await service.end()
    assert not any(each.exists() for each in sockets)


async def test_a_stale_socket_is_replaced(start_service: StartService, tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    first = await start_service.ready(**on_socket(path))
    first.send(signal.SIGKILL)
    await first.ended()
    assert path.exists()
    second = await start_service.ready(**on_socket(path))
    assert (await fetch(second.address, get("/fhir/Patient/1"))).status == 200


async def test_the_socket_of_a_running_process_is_not_replaced(
    start_service: StartService, tmp_path: Path
) -> None:
    path = tmp_path / "gateway.sock"
    first = await start_service.ready(**on_socket(path))
    second = start_service(**on_socket(path))
    assert await second.ended() == 3
    assert "listen.address: cannot listen on unix:" in second.process.stderr
    assert "another process listens there" in second.process.stderr
    assert (await fetch(first.address, get("/fhir/Patient/1"))).status == 200


async def test_file_at_path_is_not_replaced(start_service: StartService, tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    path.write_text("precious")
    service = start_service(**on_socket(path))
    assert await service.ended() == 3
    assert "a file that is not a socket has this path" in service.process.stderr
    assert path.read_text() == "precious"


async def test_the_socket_of_a_successor_is_not_removed(
    start_service: StartService, tmp_path: Path
) -> None:
    path = tmp_path / "gateway.sock"
    service = await start_service.ready(**on_socket(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        await service.end()
        assert path.exists()
