"""A full or missing disk: new writes are rejected, all else continues."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from gateway.health import health
from tests.doubles.platform import Platform, PlatformConnection, fhir
from tests.doubles.relay import Relay
from tests.doubles.sections import gateway_settings
from tests.doubles.sso import Sso
from tests.outbox.path.conftest import Open, outbox_in
from tests.outbox.path.harness import ASYNC, OutboxSetup, observation
from tests.outbox.remembering import REQUEST_ID, RememberingPlatform
from tests.outbox.replica import Replica

_MIB = 1024 * 1024
LARGE = b'{"resourceType":"Observation","x":"%s"}' % (b"y" * 100_000)
Volume = Callable[[int], Path]


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
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


async def write(setup: OutboxSetup, number: int) -> tuple[int, str]:
    """Status and, where it was taken, location of a write of some 40 KiB."""
    body = observation(number, number)[:-1] + b', "note": [{"text": "%s"}]}' % (b"x" * 40_000)
    reply = await setup.ask("PUT", f"/Observation/{number}", body, **ASYNC)
    if reply.status == 202:
        return 202, reply.location
    return reply.status, reply.headers["X-Gateway-Error"]


async def wait_until_full(setup: OutboxSetup) -> list[str]:
    """Send writes until one is rejected. Return the locations of the others."""
    kept: list[str] = []
    while True:
        status, said = await write(setup, len(kept) + 1)
        if status != 202:
            assert (status, said) == (503, "outbox-full")
            return kept
        kept.append(said)


async def delivered(setup: OutboxSetup, kept: list[str]) -> None:
    for location in kept:
        url = setup.gateway.url + location[location.index("/_outbox") :]
        assert (await setup.final_response(url)).status == 200
    targets = [target for _, target in setup.writes()]
    assert len(targets) == len(set(targets)) == len(kept)


async def queue_small(setup: OutboxSetup, count: int) -> list[str]:
    replies = [await setup.write(patient=n, number=n) for n in range(count)]
    assert {reply.status for reply in replies} == {202}
    return [reply.location for reply in replies]


async def test_deliveries_go_on_in_the_reserve_of_a_full_disk(opened: Open, volume: Volume) -> None:
    place = volume(24)
    reserve = place / "outbox.db-reserve"
    async with opened(outbox={"url": f"sqlite:///{place}/outbox.db"}) as setup:
        setup.relay.cut()
        kept = await queue_small(setup, 100)
        taken = fill(place)
        assert (await write(setup, 9999))[1] == "outbox-full"
        assert reserve.stat().st_blocks * 512 == 8 * _MIB
        # More than the log and the free pages of the database have space for.
        setup.answer_writes(*[fhir(LARGE)] * 60)
        await setup.relay.restore()
        await delivered(setup, kept)
        assert not reserve.exists()
        setup.relay.cut()
        assert (await write(setup, 9999))[1] == "outbox-full"
        taken.unlink()
        assert (await write(setup, 9999))[0] == 202
        assert reserve.exists()


async def test_responses_are_stored_without_bodies_on_a_full_disk(
    opened: Open, volume: Volume
) -> None:
    place = volume(24)
    async with opened(outbox={"url": f"sqlite:///{place}/outbox.db"}) as setup:
        setup.relay.cut()
        kept = await queue_small(setup, 150)
        setup.answer_writes(*[fhir(LARGE)] * 150)
        fill(place)
        await setup.relay.restore()
        await delivered(setup, kept)


async def test_large_writes_are_delivered_from_a_full_disk(opened: Open, volume: Volume) -> None:
    place = volume(64)
    async with opened(outbox={"url": f"sqlite:///{place}/outbox.db"}) as setup:
        setup.relay.cut()
        large = observation()[:-1] + b', "note": [{"text": "%s"}]}' % (b"x" * 10_000_000)
        kept = [(await setup.enqueue("PUT", "/Observation/99", large)).location]
        kept += await queue_small(setup, 5)
        fill(place)
        await setup.relay.restore()
        await delivered(setup, kept)


async def test_without_the_reserve_deliveries_wait_for_disk_space(
    opened: Open, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "STANDSTILL_SECONDS", 0.5)
    place = volume(24)
    async with opened(outbox={"url": f"sqlite:///{place}/outbox.db"}) as setup:
        setup.relay.cut()
        kept = await wait_until_full(setup)
        (place / "outbox.db-reserve").unlink()
        taken = fill(place)
        assert (await write(setup, 9999))[1] == "outbox-full"
        await setup.relay.restore()
        while True:
            ready = (await setup.gateway.ready())[1]
            if ready["degraded"].get("outbox") == "outbox-standstill":
                break
            # The gateway learns that the platform can be reached.
            await setup.ask("GET", "/Patient/1")
            await asyncio.sleep(0.1)
        assert await setup.gateway.metric("dhp_gateway_outbox_stalled_seconds") > 0
        page = await setup.ask("GET", f"{setup.gateway.admin_url}/status")
        assert b"deliveries stand still" in page.body
        assert len(setup.sent) < len(kept)
        taken.unlink()
        await delivered(setup, kept)


@pytest.mark.parametrize("end", ["kill", "end"])
async def test_a_gateway_restarts_on_a_disk_that_stays_full(
    platform: Platform, volume: Volume, tmp_path: Path, end: str
) -> None:
    place, count = volume(24), 120
    remembering, slow = RememberingPlatform(), 0.02

    async def respond(connection: PlatformConnection) -> None:
        if connection.request.method != "GET":
            await asyncio.sleep(slow)
        await remembering.respond(connection)

    platform.respond(respond)
    async with Sso() as sso, Relay(platform.port) as line, aiohttp.ClientSession() as session:
        settings = gateway_settings(
            f"http://127.0.0.1:{line.port}{platform.base_path}",
            sso.token_url,
            retries={"max_attempts": 1},
            audit={"sink": "off"},
            outbox=outbox_in(place),
        )
        replica = Replica("gateway", tmp_path, settings, [sys.executable, "-m", "gateway"])
        await replica.start()
        try:
            line.cut()
            kept = []
            for number in range(count):
                url = f"{replica.url}/Observation/{number}"
                fields = {**ASYNC, "Content-Type": "application/fhir+json"}
                fields[REQUEST_ID] = f"h-{number}"
                body = observation(number, number)
                async with session.put(url, data=body, headers=fields) as reply:
                    assert reply.status == 202
                    kept.append(reply.headers["Content-Location"].rpartition("/")[2])
            fill(place)
            await line.restore()
            for effects in (10, 40):
                while len(remembering.effects) < effects:  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.02)
                if end == "kill":
                    replica.kill()
                else:
                    await replica.end()
                await replica.start()
            for entry in kept:
                while True:
                    async with session.get(f"{replica.url}/_outbox/{entry}") as reply:
                        if reply.status == 200:
                            break
                    await asyncio.sleep(0.05)
        finally:
            replica.kill()
    # An update whose answer was lost is repeated; all are there.
    assert {name for name, _ in remembering.effects} == {f"h-{n}" for n in range(count)}


async def test_a_restart_on_a_full_disk_delivers(opened: Open, volume: Volume) -> None:
    place = volume(24)
    outbox = {"url": f"sqlite:///{place}/outbox.db"}
    async with opened(outbox=outbox) as setup:
        setup.relay.cut()
        kept = await wait_until_full(setup)
        fill(place)
    async with opened(outbox=outbox) as setup:
        assert (await setup.ask("GET", "/Patient/1")).status == 200
        await delivered(setup, kept)


async def test_a_gateway_starts_while_its_outbox_is_unavailable(
    opened: Open, tmp_path: Path
) -> None:
    place = tmp_path / "later"
    async with opened(outbox={"url": f"sqlite:///{place}/outbox.db"}) as setup:
        assert (await setup.ask("GET", "/Patient/1")).status == 200
        refused = await setup.write()
        assert (refused.status, refused.headers["X-Gateway-Error"]) == (503, "outbox-full")
        assert await setup.gateway.ready() == (
            200,
            {
                "ready": True,
                "failing": [],
                "checks": dict.fromkeys(
                    ("token", "circuit", "platform", "audit", "shutdown"), "ok"
                ),
                "degraded": {"outbox": "outbox-away"},
            },
        )
        assert await setup.gateway.metric("dhp_gateway_outbox_available") == 0
        shown = await setup.ask("GET", f"{setup.gateway.admin_url}/status.json")
        assert shown.json["care"]["reason"] == "outbox-away"
        page = await setup.ask("GET", f"{setup.gateway.admin_url}/status")
        assert b"cannot be reached" in page.body
        place.mkdir()
        await setup.gateway.wait_for_metric(1, "dhp_gateway_outbox_available")
        setup.relay.cut()
        kept = await setup.write()
        assert kept.status == 202
        assert (await setup.deliver(kept.location)).status == 200
    assert (place / "outbox.db").stat().st_mode & 0o777 == 0o600


async def test_a_gateway_starts_on_a_disk_that_is_full(opened: Open, volume: Volume) -> None:
    place = volume(16)
    taken = fill(place)
    async with opened(outbox={"url": f"sqlite:///{place}/outbox.db"}) as setup:
        assert (await setup.ask("GET", "/Patient/1")).status == 200
        assert (await write(setup, 1))[1] == "outbox-full"
        shown = await setup.ask("GET", f"{setup.gateway.admin_url}/status.json")
        assert shown.json["care"]["reason"] == "outbox-away"
        taken.unlink()
        await setup.gateway.wait_for_metric(1, "dhp_gateway_outbox_available")
        setup.relay.cut()
        kept = await setup.write()
        assert kept.status == 202
        assert (await setup.deliver(kept.location)).status == 200


@pytest.mark.parametrize(
    "content", [None, b"SQLite format 3\0" + b"x" * 8176, b"no database" * 100]
)
async def test_what_is_no_database_affects_the_outbox_only(
    opened: Open, tmp_path: Path, content: bytes | None
) -> None:
    """A folder, a damaged database, and a file of another program."""
    path = tmp_path / "outbox"
    path.mkdir() if content is None else path.write_bytes(content)
    async with opened(outbox={"url": f"sqlite:///{path}"}) as setup:
        assert (await setup.ask("GET", "/Patient/1")).status == 200
        assert (await setup.write()).headers["X-Gateway-Error"] == "outbox-full"
        assert await setup.gateway.metric("dhp_gateway_outbox_available") == 0
