"""A unix socket as the callers' listener."""

from __future__ import annotations

import signal
import socket
import stat
from pathlib import Path

from tests.doubles.wire import ask, get
from tests.lifecycle.conftest import Service, StartService


def on_socket(start_service: StartService, path: Path) -> Service:
    """A gateway that listens there."""
    return start_service(listen={"address": f"unix:{path}"})


async def test_a_unix_socket_serves_and_is_taken_away(
    start_service: StartService, tmp_path: Path
) -> None:
    """Only owner and group may use it, or the operators' one; at the end both are removed."""
    path = tmp_path / "gateway.sock"
    service = on_socket(start_service, path)
    await service.until_ready()
    assert service.admin.path is not None
    sockets = (path, Path(service.admin.path))
    assert [stat.S_IMODE(each.stat().st_mode) for each in sockets] == [0o660, 0o660]
    assert (await ask(service.address, get("/fhir/Patient/1"))).status == 200
    await service.until(lambda: bool(service.audit("exchange")), "the record")
    assert service.audit("exchange")[0]["remote"] == "unix"
    await service.end()
    assert not any(each.exists() for each in sockets)


async def test_a_stale_socket_is_replaced(start_service: StartService, tmp_path: Path) -> None:
    """What a killed process left behind does not stop the next one."""
    path = tmp_path / "gateway.sock"
    first = on_socket(start_service, path)
    await first.until_ready()
    first.send(signal.SIGKILL)
    await first.ended()
    assert path.exists()
    second = on_socket(start_service, path)
    await second.until_ready()
    assert (await ask(second.address, get("/fhir/Patient/1"))).status == 200


async def test_a_living_process_keeps_its_socket(
    start_service: StartService, tmp_path: Path
) -> None:
    """A second gateway does not start on the first one's socket, and does not remove it."""
    path = tmp_path / "gateway.sock"
    first = on_socket(start_service, path)
    await first.until_ready()
    second = on_socket(start_service, path)
    assert await second.ended() == 3
    assert "listen.address: cannot listen on unix:" in second.process.stderr
    assert "another process listens there" in second.process.stderr
    assert (await ask(first.address, get("/fhir/Patient/1"))).status == 200


async def test_a_file_in_the_way_is_left_alone(start_service: StartService, tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"
    path.write_text("precious")
    service = on_socket(start_service, path)
    assert await service.ended() == 3
    assert "a file that is no socket is in the way" in service.process.stderr
    assert path.read_text() == "precious"


async def test_the_socket_of_a_successor_stays(start_service: StartService, tmp_path: Path) -> None:
    """A gateway removes its own socket only, not one that has taken its place."""
    path = tmp_path / "gateway.sock"
    service = on_socket(start_service, path)
    await service.until_ready()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        await service.end()
        assert path.exists()
