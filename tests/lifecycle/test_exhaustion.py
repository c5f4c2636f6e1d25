"""A process without file descriptors, or without standard output."""

from __future__ import annotations

import asyncio
import os
import resource

import pytest

from tests.doubles.platform import Platform, after, fhir
from tests.doubles.processes import free_port
from tests.doubles.wire import Response, Wire, fetch, get
from tests.lifecycle.conftest import PATIENCE, Service, StartService

LIMIT = 64


def limited(start_service: StartService, **sections: object) -> Service:
    return start_service("prlimit", f"--nofile={LIMIT}:{LIMIT}", "--", **sections)


async def test_three_times_as_many_callers_as_descriptors_are_served(
    start_service: StartService, platform: Platform
) -> None:
    platform.respond(after(0.05, fhir()))
    service = limited(start_service)
    await service.wait_until_ready()

    async def call() -> Response:
        # Like a caller without persistent connections.
        return await fetch(service.address, get("/fhir/Patient/1", "Connection: close"))

    async with asyncio.timeout(PATIENCE):
        responses = await asyncio.gather(*(call() for _ in range(3 * LIMIT)))
    assert {(response.status, response.reason) for response in responses} == {(200, None)}
    assert (await service.operators("/readyz"))[0] == 200


async def test_idle_connections_are_closed_for_new_callers(start_service: StartService) -> None:
    service = limited(start_service)
    await service.wait_until_ready()
    wires = [await Wire.open(service.address) for _ in range(LIMIT)]
    async with asyncio.timeout(PATIENCE):
        for wire in wires[:5]:
            assert (await wire.fetch(get("/fhir/Patient/1"))).status == 200
        assert (await fetch(service.address, get("/fhir/Patient/1"))).status == 200
    for wire in wires:
        wire.writer.transport.abort()


async def test_without_descriptors_the_platform_is_unreachable(
    start_service: StartService, platform: Platform
) -> None:
    """Descriptors are taken from a running gateway, and given back."""
    service = await start_service.ready(platform={"max_connections": 4})
    async with await Wire.open(service.address) as wire:
        assert (await wire.fetch(get("/fhir/nothing"))).status < 500
        platform.drop_connections()
        set_limit(service, 3)
        refused = await wire.fetch(get("/fhir/Patient/1"))
        assert (refused.status, refused.reason) == (503, "upstream-unreachable")
        waiting = [asyncio.ensure_future(fetch(service.address, get("/fhir/Patient/2")))
                   for _ in range(20)]  # fmt: skip
        await service.wait_until(lambda: bool(service.logged("out of file descriptors")), "the log")
        await asyncio.sleep(0.5)
        set_limit(service, 1024)
        async with asyncio.timeout(PATIENCE):
            assert {(await response).status for response in waiting} == {200}
            assert (await fetch(service.address, get("/fhir/Patient/3"))).status == 200
    assert len(service.logged("out of file descriptors")) == 1
    assert len(service.process.stderr.splitlines()) < 40
    await service.end()


def set_limit(service: Service, number: int) -> None:
    resource.prlimit(service.process.popen.pid, resource.RLIMIT_NOFILE, (number, 4096))


def shell(script: str) -> tuple[str, ...]:
    """Return a shell that replaces itself by what follows the script's redirections."""
    return ("sh", "-c", f'exec "$@" {script}', "sh")


async def test_a_closed_stdout_for_the_audit_ends_the_start(start_service: StartService) -> None:
    """A socket would get its number."""
    service = start_service(*shell(">&-"))
    assert await service.ended() == 3
    assert "audit.sink: stdout is closed" in service.process.stderr


@pytest.mark.parametrize("script", ["<&-", "2>&-", "<&- >&- 2>&-"])
async def test_other_closed_standard_files_do_not_matter(
    start_service: StartService, script: str
) -> None:
    sink = "off" if ">&- " in script else "stdout"
    # An address that is known without the log.
    listen = {"address": f"127.0.0.1:{free_port()}"}
    service = await start_service.ready(*shell(script), audit={"sink": sink}, listen=listen)
    assert (await fetch(service.address, get("/fhir/Patient/1"))).status == 200
    await service.end()


@pytest.mark.parametrize(("on_failure", "status"), [("block", 503), ("drop", 200)])
async def test_a_broken_pipe_on_stdout_is_a_failure_of_the_audit(
    start_service: StartService, on_failure: str, status: int
) -> None:
    read, write = os.pipe()
    service = start_service(
        *shell(f">/dev/fd/{write}"), pass_fds=(write,), audit={"on_failure": on_failure}
    )
    os.close(write)
    await service.wait_until_ready()
    assert (await fetch(service.address, get("/fhir/Patient/1"))).status == 200
    os.close(read)
    await fetch(service.address, get("/fhir/Patient/1"))
    await service.wait_until(
        lambda: bool(service.logged("audit records cannot be written")), "the log"
    )
    response = await fetch(service.address, get("/fhir/Patient/1"))
    assert response.status == status
    assert response.reason == ("audit-unavailable" if on_failure == "block" else None)
    await service.end()
