"""A process that gets no more file descriptors, or whose standard output is gone."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.doubles.platform import Platform, after, fhir
from tests.doubles.wire import Reply, Wire, ask, get
from tests.lifecycle.conftest import PATIENCE, Service, StartService

LIMIT = 64


def limited(start_service: StartService, **sections: object) -> Service:
    """A gateway that may open few files."""
    return start_service("prlimit", f"--nofile={LIMIT}:{LIMIT}", "--", **sections)


async def test_more_callers_than_descriptors_wait_for_their_turn(
    start_service: StartService, platform: Platform
) -> None:
    """Three times as many callers as files: all are served, one after the other."""
    platform.answer(after(0.05, fhir()))
    service = limited(start_service)
    await service.until_ready()

    async def call() -> Reply:
        # As a caller does who does not keep its connection.
        return await ask(service.address, get("/fhir/Patient/1", "Connection: close"))

    async with asyncio.timeout(PATIENCE):
        replies = await asyncio.gather(*(call() for _ in range(3 * LIMIT)))
    assert {(reply.status, reply.reason) for reply in replies} == {(200, None)}
    assert (await service.operators("/readyz"))[0] == 200


async def test_idle_and_silent_callers_make_room(start_service: StartService) -> None:
    """Idle connections, and connections without any request, do not keep new callers out."""
    service = limited(start_service)
    await service.until_ready()
    wires = [await Wire.open(service.address) for _ in range(LIMIT)]
    async with asyncio.timeout(PATIENCE):
        for wire in wires[:5]:
            assert (await wire.ask(get("/fhir/Patient/1"))).status == 200
        assert (await ask(service.address, get("/fhir/Patient/1"))).status == 200
    for wire in wires:
        wire.writer.transport.abort()


async def test_without_descriptors_the_platform_is_unreachable(
    start_service: StartService, platform: Platform
) -> None:
    """A connection to the platform that cannot be opened is 503 upstream-unreachable; it recovers.

    The descriptors are taken away and given back from outside, under a running gateway.
    """
    service = await start_service.ready(platform={"max_connections": 4})
    async with await Wire.open(service.address) as wire:
        assert (await wire.ask(get("/fhir/nothing"))).status < 500
        platform.drop_connections()
        set_limit(service, 3)
        refused = await wire.ask(get("/fhir/Patient/1"))
        assert (refused.status, refused.reason) == (503, "upstream-unreachable")
        waiting = [asyncio.ensure_future(ask(service.address, get("/fhir/Patient/2")))
                   for _ in range(20)]  # fmt: skip
        await service.until(lambda: bool(service.logged("out of file descriptors")), "the log")
        await asyncio.sleep(0.5)
        set_limit(service, 1024)
        async with asyncio.timeout(PATIENCE):
            assert {(await reply).status for reply in waiting} == {200}
            assert (await ask(service.address, get("/fhir/Patient/3"))).status == 200
    assert len(service.logged("out of file descriptors")) == 1
    assert len(service.process.stderr.splitlines()) < 40
    await service.end()


def set_limit(service: Service, number: int) -> None:
    """Change the soft limit of open files of a running process."""
    import resource

    resource.prlimit(service.process.popen.pid, resource.RLIMIT_NOFILE, (number, 4096))


def shell(script: str) -> tuple[str, ...]:
    """A shell that replaces itself by what comes after the script's redirections."""
    return ("sh", "-c", f'exec "$@" {script}', "sh")


async def test_a_closed_stdout_is_no_place_for_the_audit(start_service: StartService) -> None:
    """Without standard output the gateway does not start: a socket would take its number."""
    service = start_service(*shell(">&-"))
    assert await service.ended() == 3
    assert "audit.sink: stdout is closed" in service.process.stderr


@pytest.mark.parametrize("script", ["<&-", "2>&-", "<&- >&- 2>&-"])
async def test_other_closed_files_do_no_harm(start_service: StartService, script: str) -> None:
    """What needs no standard file serves without."""
    sink = "off" if ">&- " in script else "stdout"
    service = await start_service.ready(
        *shell(script), audit={"sink": sink}, listen=address_of_its_own()
    )
    assert (await ask(service.address, get("/fhir/Patient/1"))).status == 200
    await service.end()


def address_of_its_own() -> dict[str, str]:
    """A listener that is known without the log."""
    from tests.doubles.processes import free_port

    return {"address": f"127.0.0.1:{free_port()}"}


@pytest.mark.parametrize(("on_failure", "status"), [("block", 503), ("drop", 200)])
async def test_a_reader_of_the_audit_that_leaves_ends_nothing(
    start_service: StartService, on_failure: str, status: int
) -> None:
    """A broken pipe on standard output is a failure of the audit, not of the process."""
    read, write = os.pipe()
    service = start_service(
        *shell(f">/dev/fd/{write}"), pass_fds=(write,), audit={"on_failure": on_failure}
    )
    os.close(write)
    await service.until_ready()
    assert (await ask(service.address, get("/fhir/Patient/1"))).status == 200
    os.close(read)
    await ask(service.address, get("/fhir/Patient/1"))
    await service.until(lambda: bool(service.logged("audit records cannot be written")), "the log")
    reply = await ask(service.address, get("/fhir/Patient/1"))
    assert reply.status == status
    assert reply.reason == ("audit-unavailable" if on_failure == "block" else None)
    await service.end()
