"""Attacks by those who are no callers, or bad ones, beside a caller who is one."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.attack import FAR, KINDS, LAB, PIPELINED, Patient, attack
from tests.doubles.platform import Platform, fhir
from tests.doubles.wire import Wire
from tests.lifecycle.conftest import Service, StartService

MIB = 1024 * 1024
MOST_GROWTH = 64 * MIB
# Of some thousands of small requests; a quarter of it is usual.
SMALL_GROWTH = 40 * MIB


def memory(service: Service) -> int:
    """How much memory the gateway has had at most, in bytes."""
    status = Path(f"/proc/{service.process.popen.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


async def attacked(service: Service, kind: str, pipelined: int = PIPELINED) -> Patient:
    """Attack it by 40 connections while a caller asks on; that caller, who was served always."""
    patient = Patient(service.address)
    await patient.served()
    asking = asyncio.ensure_future(patient.ask_on())
    before = memory(service)
    data = KINDS[kind] * pipelined
    await attack(service.address.port, data, connections=40, seconds=0)
    asking.cancel()
    grown = memory(service) - before
    assert set(patient.statuses) == {200}
    assert grown < SMALL_GROWTH
    return patient


def sinks(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Settings for the audit by the name of its sink."""
    return {"file": {"sink": "file", "path": str(tmp_path / "audit.jsonl")}, "stdout": {}}


@pytest.mark.parametrize(
    ("kind", "sink"), [*((kind, "file") for kind in KINDS), ("unknown-path", "stdout")]
)
async def test_what_strangers_send_ahead_costs_callers_nothing(
    start_service: StartService, tmp_path: Path, kind: str, sink: str
) -> None:
    """40 connections with thousands of requests each: callers are served, memory stays."""
    service = await start_service.ready(callers=[LAB, FAR], audit=sinks(tmp_path)[sink])
    patient = await attacked(service, kind)
    records = tmp_path / "audit.jsonl" if sink == "file" else service.process.stdout_file
    assert records.stat().st_size < patient.statuses.total() * 1024 + MIB


async def test_so_it_is_where_anybody_may_call(start_service: StartService, tmp_path: Path) -> None:
    """Without configured callers there is no limit; others are served and memory stays."""
    service = await start_service.ready(audit=sinks(tmp_path)["file"])
    await attacked(service, "unknown-path", 500)


async def test_answers_that_nobody_takes_keep_little(
    start_service: StartService, platform: Platform
) -> None:
    """200 callers who take nothing of a long answer cost 320 KiB each; others are served."""
    service = await start_service.ready(callers=[LAB])
    patient = Patient(service.address)
    await patient.served()
    before = memory(service)
    platform.answer(fhir(b'{"resourceType":"Binary","data":"%s"}' % (b"A" * 4_000_000)))
    seen = len(platform.seen)
    wires = [await Wire.open(service.address) for _ in range(200)]
    for wire in wires:
        wire.writer.transport.pause_reading()
        await wire.send(patient.request)
    await platform.until_seen(seen + len(wires))
    platform.answer(fhir())
    for _ in range(10):
        await patient.served()
        await asyncio.sleep(0.1)
    assert set(patient.statuses) == {200}
    assert memory(service) - before < MOST_GROWTH
    for wire in wires:
        wire.writer.transport.abort()


async def test_an_audit_that_is_not_taken_keeps_little(
    start_service: StartService, tmp_path: Path
) -> None:
    """While nothing can be written new requests are refused, and the memory stays as it is."""
    read, write = os.pipe()  # it has no reader
    shell = ("sh", "-c", f'exec "$@" >/dev/fd/{write}', "sh")
    service = start_service(*shell, pass_fds=(write,))
    os.close(write)
    await service.until_ready()
    before = memory(service)
    await attack(service.address.port, KINDS["unknown-path"] * 600, connections=40, seconds=0)
    assert memory(service) - before < SMALL_GROWTH
    patient = Patient(service.address)
    await patient.served()
    assert set(patient.statuses) == {503}
    assert await service.metric("dhp_gateway_audit_records_total", outcome="dropped") > 0
    os.close(read)
