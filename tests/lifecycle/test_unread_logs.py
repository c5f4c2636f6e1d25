"""A standard error without a reader does not block anything."""

from __future__ import annotations

import asyncio
import json

from tests.doubles.processes import free_port
from tests.doubles.wire import Wire, fetch, get
from tests.lifecycle.conftest import PATIENCE, Service, StartService
from tests.telemetry.conftest import Pipe, pipe

__all__ = ["pipe"]

BROKEN = b"GET /fhir/Patient/1 HTTP/1.1\r\nHost gateway\r\n\r\n"


def start_into(pipe: Pipe, start_service: StartService, **sections: object) -> Service:
    """Start a gateway whose standard error is the pipe, with an address known without the log."""
    prefix = ("sh", "-c", f'exec "$@" 2>/dev/fd/{pipe.writer}', "sh")
    listen = {"address": f"127.0.0.1:{free_port()}"}
    return start_service(*prefix, pass_fds=(pipe.writer,), listen=listen, **sections)


async def test_a_gateway_runs_with_a_full_pipe_for_its_log(
    start_service: StartService, pipe: Pipe
) -> None:
    pipe.fill()
    service = start_into(pipe, start_service)
    await service.wait_until_ready()
    async with asyncio.timeout(PATIENCE):
        for _ in range(300):
            assert (await fetch(service.address, BROKEN)).status == 400
            assert (await fetch(service.address, get("/nowhere"))).status == 404
        assert (await service.operators("/livez"))[0] == 200
    await service.end()


async def test_the_log_lines_of_invalid_requests_are_limited(
    start_service: StartService, pipe: Pipe
) -> None:
    """Ten of a thousand are logged and the others counted. A late reader gets everything."""
    filling = pipe.fill()
    service = start_into(pipe, start_service)
    await service.wait_until_ready()
    for _ in range(1000):
        assert (await fetch(service.address, BROKEN)).status == 400
    async with await Wire.open(service.address) as wire:
        assert (await wire.fetch(get("/nowhere"))).status == 404
    reading = asyncio.ensure_future(asyncio.to_thread(pipe.read_to_end))
    await service.end()
    lines = [json.loads(line) for line in (await reading)[filling:].splitlines()]
    refused = [line for line in lines if "bad-request" in line["event"]]
    shown = [line for line in refused if not line["event"].startswith("left out")]
    periods = 1 + sum("suppressed" in line for line in shown)
    assert len(shown) <= 10 * periods
    assert len(shown) + sum(line.get("suppressed", 0) for line in refused) == 1000
    assert sum("unknown-path" in line["event"] for line in lines) == 1
    assert any("serving" in line["event"] for line in lines)
