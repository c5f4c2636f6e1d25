"""Attacks by unidentified clients and bad callers, beside a caller that is served."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.attack import FAR, KINDS, LAB, PIPELINED, SequentialCaller, attack
from tests.doubles.platform import Platform, fhir
from tests.doubles.wire import Wire
from tests.lifecycle.conftest import Service, StartService

MIB = 1024 * 1024
MOST_GROWTH = 64 * MIB
# Of some thousands of small requests; a quarter of it is usual.
SMALL_GROWTH = 40 * MIB


def memory(service: Service) -> int:
    """Return the peak memory of the gateway in octets."""
    status = Path(f"/proc/{service.process.popen.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


async def attacked(service: Service, kind: str, pipelined: int = PIPELINED) -> SequentialCaller:
    """Attack on 40 connections; return a caller that sent requests meanwhile."""
    caller = SequentialCaller(service.address)
    await caller.send_one()
    asking = asyncio.ensure_future(caller.send_continuously())
    before = memory(service)
    data = KINDS[kind] * pipelined
    await attack(service.address.port, data, connections=40, seconds=0)
    asking.cancel()
    grown = memory(service) - before
    assert set(caller.statuses) == {200}
    assert grown < SMALL_GROWTH
    return caller


def sinks(tmp_path: Path) -> dict[str, dict[str, Any]]:
    return {"file": {"sink": "file", "path": str(tmp_path / "audit.jsonl")}, "stdout": {}}


@pytest.mark.parametrize(
    ("kind", "sink"), [*((kind, "file") for kind in KINDS), ("unknown-path", "stdout")]
)
async def test_thousands_of_pipelined_requests_do_not_affect_callers(
    start_service: StartService, tmp_path: Path, kind: str, sink: str
) -> None:
    service = await start_service.ready(callers=[LAB, FAR], audit=sinks(tmp_path)[sink])
    caller = await attacked(service, kind)
    records = tmp_path / "audit.jsonl" if sink == "file" else service.process.stdout_file
    assert records.stat().st_size < caller.statuses.total() * 1024 + MIB


async def test_without_configured_callers_others_are_served_too(
    start_service: StartService, tmp_path: Path
) -> None:
    service = await start_service.ready(audit=sinks(tmp_path)["file"])
    await attacked(service, "unknown-path", 500)


async def test_200_unread_long_responses_take_320_kib_each(
    start_service: StartService, platform: Platform
) -> None:
    service = await start_service.ready(callers=[LAB])
    caller = SequentialCaller(service.address)
    await caller.send_one()
    before = memory(service)
    platform.respond(fhir(b'{"resourceType":"Binary","data":"%s"}' % (b"A" * 4_000_000)))
    received = len(platform.requests)
    wires = [await Wire.open(service.address) for _ in range(200)]
    for wire in wires:
        wire.writer.transport.pause_reading()
        await wire.send(caller.request)
    await platform.wait_for_requests(received + len(wires))
    platform.respond(fhir())
    for _ in range(10):
        await caller.send_one()
        await asyncio.sleep(0.1)
    assert set(caller.statuses) == {200}
    assert memory(service) - before < MOST_GROWTH
    for wire in wires:
        wire.writer.transport.abort()


@pytest.mark.ci
async def test_an_unread_audit_takes_bounded_memory(
    start_service: StartService, tmp_path: Path
) -> None:
    read, write = os.pipe()  # it has no reader
    shell = ("sh", "-c", f'exec "$@" >/dev/fd/{write}', "sh")
    service = start_service(*shell, pass_fds=(write,))
    os.close(write)
    await service.wait_until_ready()
    before = memory(service)
    await attack(service.address.port, KINDS["unknown-path"] * 1000, connections=40, seconds=0)
    assert memory(service) - before < SMALL_GROWTH
    caller = SequentialCaller(service.address)
    await caller.send_one()
    assert set(caller.statuses) == {503}
    assert await service.metric("dhp_gateway_audit_records_total", outcome="dropped") > 0
    os.close(read)
