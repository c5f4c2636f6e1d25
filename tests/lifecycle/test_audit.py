"""The audit of real gateway processes: on full disks, after kills, and beside a second process."""

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
from tests.doubles.wire import fetch, get
from tests.lifecycle.conftest import Service, StartService

READ = get("/fhir/Patient/1")
MEMORY_DISK = "1m"


async def verify(*paths: Path) -> tuple[int, str]:
    """Return exit code and output of `dhp-gateway audit verify`."""
    done = await dhp("audit", "verify", *paths)
    return done.code, done.out + done.err


def to_file(path: Path, **more: Any) -> dict[str, Any]:
    return {"sink": "file", "path": str(path), **more}


def exchanges(path: Path) -> list[dict[str, Any]]:
    return [record for record in records(path) if record["event"] == "exchange"]


async def test_the_start_record_names_version_and_compilation(start_service: StartService) -> None:
    service = await start_service.ready()
    await service.end()
    [start] = service.audit("start")
    assert start["version"] == __version__
    assert start["compiled"] == Path(str(exchange.__file__)).match("*.so")


async def test_rotations_and_restarts_continue_one_chain(
    start_service: StartService, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(3):
        service = await start_service.ready(audit=to_file(path, rotate_bytes="4KiB"))
        for _ in range(10):
            assert (await fetch(service.address, READ)).status == 200
        await service.end()
    assert len(files(path)) > 3
    require_chain(records(path))
    assert len(exchanges(path)) == 30
    assert service.process.stdout == ""
    code, output = await verify(*files(path))
    assert code == 0, output
    assert str(len(records(path))) in output
    touched = files(path)[1]
    touched.write_bytes(touched.read_bytes().replace(b'"status":200', b'"status":404', 1))
    code, output = await verify(*files(path))
    assert (code, output.partition(":")[0]) == (1, str(touched))


async def test_a_kill_leaves_a_chain_that_can_be_verified(
    start_service: StartService, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(3):
        service = await start_service.ready(audit=to_file(path))
        load = Load(service.address, 10)
        load.start()
        await load.wait_until_served(200)
        before = len(exchanges(path))
        service.process.popen.kill()
        await service.ended()
        await load.wait_until_refused()
        code, output = await verify(path)
        assert code == 0 or ": torn: " in output
        assert len(exchanges(path)) >= before
    service = await start_service.ready(audit=to_file(path))
    await service.end()
    code, output = await verify(path)
    assert code == 0, output


async def test_a_second_writer_of_an_audit_file_ends_with_code_3(
    start_service: StartService, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    service = await start_service.ready(audit=to_file(path))
    second = start_service(audit=to_file(path))
    assert await second.ended() == 3
    assert "another gateway writes there" in second.process.stderr
    await service.end()


async def test_a_start_waits_for_a_command_that_holds_the_audit_file(
    start_service: StartService, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    command = open_sink(path)
    service = start_service(audit=to_file(path))
    await service.wait_until(lambda: bool(service.logged("waiting for its end")), "its patience")
    command.write(lines(1))
    command.close()
    await service.wait_until_ready()
    await service.end()
    code, output = await verify(*files(path))
    assert code == 0, output


async def test_a_start_waits_for_the_audit_file_a_few_seconds(tmp_path: Path) -> None:
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


def memory_disk(directory: Path) -> tuple[str, ...]:
    """Return a prefix that runs a program with a small disk of its own at a directory."""
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    mount = f"mount -t tmpfs -o size={MEMORY_DISK} none {directory}"
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    tried = subprocess.run([*unshare, "sh", "-c", mount], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no file system can be mounted here, it needs root: {tried.stderr.strip()}")
    return (*unshare, "sh", "-c", f'{mount} && exec "$@"', "sh")


def seen_by(service: Service, path: Path) -> Path:
    """Return a path as the gateway sees it, which has its own mount namespace."""
    return Path(f"/proc/{service.process.popen.pid}/root{path}")


async def fill(service: Service, disk: Path) -> Path:
    filling = disk / "filling"
    with filling.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"-" * 512)
            except OSError:
                return filling


async def fetch_until(service: Service, status: int) -> int:
    """Send requests until a response has a status; return how many succeeded before."""
    served = 0
    async with asyncio.timeout(60):
        while (response := await fetch(service.address, READ)).status != status:
            served += response.status == 200
            # Refused requests are recorded too, and the disk is small.
            await asyncio.sleep(0.02)
    return served + (status == 200)


async def test_a_full_disk_with_block_is_a_503_until_there_is_space(
    start_service: StartService, platform: Platform, tmp_path: Path
) -> None:
    directory = tmp_path / "disk"
    directory.mkdir()
    path = directory / "audit.jsonl"
    service = await start_service.ready(*memory_disk(directory), audit=to_file(path))
    disk = seen_by(service, directory)
    served = await fetch_until(service, 200)
    filling = await fill(service, disk)
    served += await fetch_until(service, 503)
    refused = await fetch(service.address, READ)
    assert (refused.status, refused.reason) == (503, "audit-unavailable")
    asked = len(platform.requests)
    assert (await fetch(service.address, READ)).status == 503
    assert len(platform.requests) == asked
    filling.unlink()
    served += await fetch_until(service, 200)
    assert await service.metric("dhp_gateway_audit_records_total", outcome="dropped") == 0
    await service.wait_for_metric(served, "dhp_gateway_audit_records_total", outcome="written")
    await service.wait_until(
        lambda: sum(r["status"] == 200 for r in exchanges(disk / path.name)) == served, "all"
    )
    require_chain(records(disk / path.name))
    await service.end()


async def test_fhir_audit_events_follow_their_records(
    start_service: StartService, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    service = await start_service.ready(audit=to_file(path, fhir_audit_events=True))
    search = get("/fhir/Patient?name=planted-name&identifier=30101901234567")
    assert (await fetch(service.address, search)).status == 200
    await service.end()
    found = records(path)
    require_chain(found)
    events = [record["resource"] for record in found if record["event"] == "audit-event"]
    assert len(events) * 2 == len(found)
    for event in events:
        AuditEvent.model_validate_json(json.dumps(event))
    assert b"planted-name" not in path.read_bytes()
    assert b"30101901234567" not in path.read_bytes()


async def test_without_its_syslog_server_a_gateway_responds_with_503(
    start_service: StartService,
) -> None:
    away = Receiver()
    away.close()
    audit = {"sink": "syslog", "syslog_url": f"tcp://127.0.0.1:{away.port}"}
    service = start_service(audit=audit)
    await service.wait_until_ready(503)
    # The first token may be awaited as well.
    while json.loads((await service.operators("/readyz"))[1])["failing"] != ["audit"]:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    refused = await fetch(service.address, READ)
    assert (refused.status, refused.reason) == (503, "audit-unavailable")
    receiver = Receiver(port=away.port)
    await fetch_until(service, 200)
    await service.end()
    events = [message.record["event"] for message in receiver.received]
    assert events[0] == "start"
    assert events[-1] == "stop"
    assert [message.sequence for message in receiver.received] == list(range(1, len(events) + 1))
    statuses = [m.record["status"] for m in receiver.received if m.kind == "exchange"]
    assert statuses[0] == 503
    assert statuses[-1] == 200
    receiver.close()
