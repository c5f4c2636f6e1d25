"""The audit of real gateway processes: on full disks, over deaths, with a second one beside."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.auditevent import AuditEvent

from gateway import __version__, exchange
from gateway.app.observability_setup import open_trail, open_trail_when_free
from gateway.config.settings import Settings
from gateway.errors import StartError
from tests.audit.chained import files, lines, open_sink, records, require_chain
from tests.audit.test_syslog_sink import Receiver
from tests.doubles.clock import FakeClock
from tests.doubles.command import dhp
from tests.doubles.load import Load
from tests.doubles.platform import Platform
from tests.doubles.wire import ask, get
from tests.lifecycle.conftest import Service, StartService

READ = get("/fhir/Patient/1")
MEMORY_DISK = "1m"


async def verify(*paths: Path) -> tuple[int, str]:
    """Exit code and output of `dhp-gateway audit verify`."""
    done = await dhp("audit", "verify", *paths)
    return done.code, done.out + done.err


def to_file(path: Path, **more: Any) -> dict[str, Any]:
    """Settings for an audit file."""
    return {"sink": "file", "path": str(path), **more}


def exchanges(path: Path) -> list[dict[str, Any]]:
    """The records of requests."""
    return [record for record in records(path) if record["event"] == "exchange"]


async def test_the_start_tells_what_runs(start_service: StartService) -> None:
    """Its version, and whether the request path is compiled: here as it is in the tests."""
    service = await start_service.ready()
    await service.end()
    [start] = service.audit("start")
    assert start["version"] == __version__
    assert start["compiled"] == Path(str(exchange.__file__)).match("*.so")


async def test_one_chain_over_rotations_and_restarts(
    start_service: StartService, tmp_path: Path
) -> None:
    """Three runs with small files leave one chain, which `audit verify` confirms."""
    path = tmp_path / "audit.jsonl"
    for _ in range(3):
        service = await start_service.ready(audit=to_file(path, rotate_bytes="4KiB"))
        for _ in range(10):
            assert (await ask(service.address, READ)).status == 200
        await service.end()
    assert len(files(path)) > 3
    require_chain(records(path))
    assert len(exchanges(path)) == 30
    assert service.process.stdout == ""
    code, told = await verify(*files(path))
    assert code == 0, told
    assert str(len(records(path))) in told
    touched = files(path)[1]
    touched.write_bytes(touched.read_bytes().replace(b'"status":200', b'"status":404', 1))
    code, told = await verify(*files(path))
    assert (code, told.partition(":")[0]) == (1, str(touched))


async def test_a_kill_leaves_a_chain_that_can_be_verified(
    start_service: StartService, tmp_path: Path
) -> None:
    """Whenever SIGKILL comes, the next start goes on with the chain; nothing is called changed."""
    path = tmp_path / "audit.jsonl"
    for _ in range(3):
        service = await start_service.ready(audit=to_file(path))
        load = Load(service.address, 10)
        load.start()
        await load.until_served(200)
        before = len(exchanges(path))
        service.process.popen.kill()
        await service.ended()
        await load.until_refused()
        code, told = await verify(path)
        assert code == 0 or ": torn: " in told
        assert len(exchanges(path)) >= before
    service = await start_service.ready(audit=to_file(path))
    await service.end()
    code, told = await verify(path)
    assert code == 0, told


async def test_a_second_gateway_does_not_start(start_service: StartService, tmp_path: Path) -> None:
    """One that would write to the same file ends with code 3 and says why."""
    path = tmp_path / "audit.jsonl"
    service = await start_service.ready(audit=to_file(path))
    second = start_service(audit=to_file(path))
    assert await second.ended() == 3
    assert "another gateway writes there" in second.process.stderr
    await service.end()


async def test_a_start_waits_for_a_command(start_service: StartService, tmp_path: Path) -> None:
    """An audit file that a command has in hand for a moment does not keep the gateway from care."""
    path = tmp_path / "audit.jsonl"
    command = open_sink(path)
    service = start_service(audit=to_file(path))
    await service.until(lambda: bool(service.logged("waiting for its end")), "its patience")
    command.write(lines(1))
    command.close()
    await service.until_ready()
    await service.end()
    code, told = await verify(*files(path))
    assert code == 0, told


async def test_a_start_does_not_wait_for_ever(tmp_path: Path) -> None:
    """After some seconds the file is another gateway's, and nothing is left open."""
    path = tmp_path / "audit.jsonl"
    settings = Settings.model_validate(
        {
            "environment": "dhp-playground",
            "credentials": {"default": {"client_id": "a", "client_secret": "b"}},
            "audit": to_file(path),
        }
    )
    clock = FakeClock()

    async def sleep(seconds: float) -> None:
        clock.now += seconds

    began, other = clock.now, open_sink(path)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StartError, match="another gateway writes there"):
        await open_trail_when_free(lambda: open_trail(settings, lambda *_: None), clock, sleep)
    assert 2 < clock.now - began < 10
    assert len(os.listdir("/proc/self/fd")) == descriptors
    other.close()


@pytest.mark.parametrize(
    ("place", "trouble"),
    [
        ("none/audit.jsonl", "/none is not there. Make it"),
        ("text", "/text: is no audit file"),
        (".", " is a folder. Give another audit.path"),
    ],
)
async def test_a_place_that_cannot_be_used(
    start_service: StartService, tmp_path: Path, place: str, trouble: str
) -> None:
    """Wrong paths end the start with code 3 and the key."""
    (tmp_path / "text").write_text("something else\n")
    service = start_service(audit=to_file(tmp_path / place))
    assert await service.ended() == 3
    assert f"audit.path: {tmp_path}{trouble}" in service.process.stderr


def memory_disk(directory: Path) -> tuple[str, ...]:
    """A prefix that runs a program with a small disk of its own at a directory."""
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    mount = f"mount -t tmpfs -o size={MEMORY_DISK} none {directory}"
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    tried = subprocess.run([*unshare, "sh", "-c", mount], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no file system can be mounted here, it needs root: {tried.stderr.strip()}")
    return (*unshare, "sh", "-c", f'{mount} && exec "$@"', "sh")


def seen_by(service: Service, path: Path) -> Path:
    """A path as the gateway, which has a file system of its own, sees it."""
    return Path(f"/proc/{service.process.popen.pid}/root{path}")


async def fill(service: Service, disk: Path) -> Path:
    """Leave no room on the gateway's disk."""
    filling = disk / "filling"
    with filling.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"-" * 512)
            except OSError:
                return filling


async def until_status(service: Service, status: int) -> int:
    """Ask until the answer has a status; how many have been served until then."""
    served = 0
    async with asyncio.timeout(60):
        while (reply := await ask(service.address, READ)).status != status:
            served += reply.status == 200
            # Refused requests are recorded too, and the disk is small.
            await asyncio.sleep(0.02)
    return served + (status == 200)


async def test_a_full_disk_refuses_and_recovers(
    start_service: StartService, platform: Platform, tmp_path: Path
) -> None:
    """With `block` a full disk means 503 audit-unavailable; once there is room all is written."""
    directory = tmp_path / "disk"
    directory.mkdir()
    path = directory / "audit.jsonl"
    service = await start_service.ready(*memory_disk(directory), audit=to_file(path))
    disk = seen_by(service, directory)
    served = await until_status(service, 200)
    filling = await fill(service, disk)
    served += await until_status(service, 503)
    refused = await ask(service.address, READ)
    assert (refused.status, refused.reason) == (503, "audit-unavailable")
    asked = len(platform.seen)
    assert (await ask(service.address, READ)).status == 503
    assert len(platform.seen) == asked
    filling.unlink()
    served += await until_status(service, 200)
    assert await service.metric("dhp_gateway_audit_records_total", outcome="dropped") == 0
    await service.until_metric(served, "dhp_gateway_audit_records_total", outcome="written")
    await service.until(
        lambda: sum(r["status"] == 200 for r in exchanges(disk / path.name)) == served, "all"
    )
    require_chain(records(disk / path.name))
    await service.end()


async def test_a_full_disk_with_drop_is_only_counted(
    start_service: StartService, tmp_path: Path
) -> None:
    """With `drop` requests go on; the chain that is left is whole."""
    directory = tmp_path / "disk"
    directory.mkdir()
    audit = to_file(directory / "audit.jsonl", on_failure="drop")
    service = await start_service.ready(*memory_disk(directory), audit=audit)
    disk = seen_by(service, directory)
    filling = await fill(service, disk)
    async with asyncio.timeout(60):
        while not await service.metric("dhp_gateway_audit_records_total", outcome="dropped"):
            assert (await ask(service.address, READ)).status == 200
    filling.unlink()
    before = len(exchanges(disk / "audit.jsonl"))
    assert (await ask(service.address, READ)).status == 200
    await service.until(lambda: len(exchanges(disk / "audit.jsonl")) > before, "a record")
    require_chain(records(disk / "audit.jsonl"))
    await service.end()


async def test_audit_events_stand_beside_the_records(
    start_service: StartService, tmp_path: Path
) -> None:
    """With fhir_audit_events each record is followed by a valid R5 AuditEvent."""
    path = tmp_path / "audit.jsonl"
    service = await start_service.ready(audit=to_file(path, fhir_audit_events=True))
    search = get("/fhir/Patient?name=planted-name&identifier=30101901234567")
    assert (await ask(service.address, search)).status == 200
    await service.end()
    found = records(path)
    require_chain(found)
    events = [record["resource"] for record in found if record["event"] == "audit-event"]
    assert len(events) * 2 == len(found)
    for event in events:
        AuditEvent.model_validate_json(json.dumps(event))
    assert b"planted-name" not in path.read_bytes()
    assert b"30101901234567" not in path.read_bytes()


async def test_syslog_that_is_away_blocks_and_recovers(start_service: StartService) -> None:
    """Without its syslog server a gateway refuses; once it is there all records arrive."""
    away = Receiver()
    away.close()
    audit = {"sink": "syslog", "syslog_url": f"tcp://127.0.0.1:{away.port}"}
    service = start_service(audit=audit)
    await service.until_ready(503)
    # The first token may be awaited as well.
    while json.loads((await service.operators("/readyz"))[1])["failing"] != ["audit"]:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    refused = await ask(service.address, READ)
    assert (refused.status, refused.reason) == (503, "audit-unavailable")
    receiver = Receiver(port=away.port)
    await until_status(service, 200)
    await service.end()
    events = [message.record["event"] for message in receiver.received]
    assert events[0] == "start"
    assert events[-1] == "stop"
    assert [message.sequence for message in receiver.received] == list(range(1, len(events) + 1))
    statuses = [m.record["status"] for m in receiver.received if m.kind == "exchange"]
    assert statuses[0] == 503
    assert statuses[-1] == 200
    receiver.close()
