"""A unix socket as the callers' listener."""

from __future__ import annotations

import signal
import socket
import stat
from pathlib import Path

import pytest

from tests.doubles.load import Load
from tests.doubles.platform import Platform, after, fhir
from tests.doubles.wire import ask, get
from tests.lifecycle.conftest import Service, StartService


def on_socket(start_service: StartService, path: Path) -> Service:
    """A gateway that listens there."""
    return start_service(listen={"address": f"unix:{path}"})


async def test_a_unix_socket_serves_and_is_taken_away(
    start_service: StartService, tmp_path: Path
) -> None:
    """Only owner and group may use it; at the end it is removed."""
    path = tmp_path / "gateway.sock"
    service = on_socket(start_service, path)
    await service.until_ready()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert (await ask(service.address, get("/fhir/Patient/1"))).status == 200
    await service.until(lambda: bool(service.audit("exchange")), "the record")
    assert service.audit("exchange")[0]["remote"] == "unix"
    service.send(signal.SIGTERM)
    assert await service.ended() == 0
    assert not path.exists()


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
    """A path that is no socket is not removed."""
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
        service.send(signal.SIGTERM)
        assert await service.ended() == 0
        assert path.exists()


@pytest.mark.parametrize("turn", range(2))
async def test_sigterm_on_a_unix_socket_loses_nothing(
    start_service: StartService, platform: Platform, tmp_path: Path, turn: int
) -> None:
    """A hundred callers in flight over a unix socket are all served."""
    platform.answer(after(0.1, fhir()))
    service = on_socket(start_service, tmp_path / "gateway.sock")
    await service.until_ready()
    load = Load(service.address, 100)
    load.start()
    await load.until_served(200)
    service.send(signal.SIGTERM)
    await load.until_refused()
    assert await service.ended() == 0
    assert load.failures == {}


async def test_the_operators_socket_is_taken_away_too(
    start_service: StartService, tmp_path: Path
) -> None:
    """admin.address as a unix socket has the same mode and the same end."""
    path = tmp_path / "operators.sock"
    service = start_service(admin={"address": f"unix:{path}"})
    await service.until_ready()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    service.send(signal.SIGTERM)
    assert await service.ended() == 0
    assert not path.exists()
