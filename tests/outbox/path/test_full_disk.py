"""A disk that is full, or not there: new writes are refused, and nothing else stops."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.outbox.path.conftest import Open
from tests.outbox.path.hospital import ASYNC, Hospital, observation

_MIB = 1024 * 1024
Volume = Callable[[int], Path]


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    """Makes a volume of so many MiB of its own."""
    if os.geteuid():
        pytest.skip("mounting a small volume needs root")
    place = tmp_path / "volume"
    place.mkdir()

    def mount(size: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(place)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"no small volume can be mounted here: {made.stderr.strip()}")
        return place

    yield mount
    subprocess.run(["umount", "--lazy", str(place)], capture_output=True, check=False)


def fill(place: Path) -> Path:
    """Fill the disk with another program's file, and return its path."""
    path = place / "somebody-elses"
    with path.open("ab", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass
    return path


async def write(hospital: Hospital, number: int) -> tuple[int, str]:
    """Status and, where it was taken, location of a write of some 40 KiB."""
    body = observation(number, number)[:-1] + b', "note": [{"text": "%s"}]}' % (b"x" * 40_000)
    reply = await hospital.ask("PUT", f"/Observation/{number}", body, **ASYNC)
    if reply.status == 202:
        return 202, reply.location
    return reply.status, reply.headers["X-Gateway-Error"]


async def until_full(hospital: Hospital) -> list[str]:
    """Write until no more is taken; the locations of what was."""
    kept: list[str] = []
    while True:
        status, said = await write(hospital, len(kept) + 1)
        if status != 202:
            assert (status, said) == (503, "outbox-full")
            return kept
        kept.append(said)


async def delivered(hospital: Hospital, kept: list[str]) -> None:
    """Wait until all of it is at the platform, once each."""
    for location in kept:
        url = hospital.gateway.url + location[location.index("/_outbox") :]
        assert (await hospital.ended(url)).status == 200
    targets = [target for _, target in hospital.writes()]
    assert len(targets) == len(set(targets)) == len(kept)


@pytest.mark.parametrize("size", [4, 8])
async def test_what_was_accepted_is_delivered_through_a_full_disk(
    opened: Open, volume: Volume, size: int
) -> None:
    """The outbox refuses in time, and delivers when another program has filled the disk."""
    place = volume(size)
    async with opened(outbox={"url": f"sqlite:///{place}/outbox.db"}) as hospital:
        hospital.line.cut()
        kept = await until_full(hospital)
        assert len(kept) * 40_000 > size * _MIB / 4
        fill(place)
        assert (await write(hospital, 9999))[1] == "outbox-full"
        await hospital.line.mend()
        await delivered(hospital, kept)


@pytest.mark.parametrize("full", [False, True])
async def test_a_restart_on_a_full_disk_delivers(opened: Open, volume: Volume, full: bool) -> None:
    """A gateway that ended on a full disk starts on it again, and needs no help."""
    place = volume(4)
    outbox = {"url": f"sqlite:///{place}/outbox.db"}
    async with opened(outbox=outbox) as hospital:
        hospital.line.cut()
        kept = await until_full(hospital) if full else [(await write(hospital, 1))[1]]
        fill(place)
    async with opened(outbox=outbox) as hospital:
        assert (await hospital.ask("GET", "/Patient/1")).status == 200
        await delivered(hospital, kept)


async def test_a_gateway_starts_without_its_outbox(opened: Open, tmp_path: Path) -> None:
    """Reads go on, writes that may be queued are refused, it says so, and tries again."""
    place = tmp_path / "later"
    async with opened(outbox={"url": f"sqlite:///{place}/outbox.db"}) as hospital:
        assert (await hospital.ask("GET", "/Patient/1")).status == 200
        refused = await hospital.write()
        assert (refused.status, refused.headers["X-Gateway-Error"]) == (503, "outbox-full")
        assert await hospital.gateway.ready() == (
            200,
            {
                "ready": True,
                "failing": ["outbox"],
                "checks": {
                    **dict.fromkeys(("token:default", "circuit", "platform", "shutdown"), "ok"),
                    "outbox": "failed",
                },
            },
        )
        assert await hospital.gateway.metric("dhp_gateway_outbox_available") == 0
        shown = await hospital.ask("GET", f"{hospital.gateway.admin_url}/status.json")
        assert shown.json["care"]["reason"] == "outbox-away"
        page = await hospital.ask("GET", f"{hospital.gateway.admin_url}/status")
        assert b"cannot be reached" in page.body
        place.mkdir()
        await hospital.gateway.until_metric(1, "dhp_gateway_outbox_available")
        hospital.line.cut()
        kept = await hospital.write()
        assert kept.status == 202
        assert (await hospital.mended(kept.location)).status == 200
    assert (place / "outbox.db").stat().st_mode & 0o777 == 0o600


async def test_a_file_that_is_no_database_stops_nothing_else(opened: Open, tmp_path: Path) -> None:
    """It is left as it is."""
    alien = tmp_path / "alien.db"
    alien.write_bytes(b"not a database, but somebody's file" * 100)
    before = alien.read_bytes()
    async with opened(outbox={"url": f"sqlite:///{alien}"}) as hospital:
        assert (await hospital.ask("GET", "/Patient/1")).status == 200
        assert (await hospital.write()).headers["X-Gateway-Error"] == "outbox-full"
    assert alien.read_bytes() == before
