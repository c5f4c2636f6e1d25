"""Reloads of settings, secrets and certificates: all or nothing."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.load import Load
from tests.doubles.platform import Platform, after, chunked, fhir
from tests.doubles.sso import Sso, oauth_error, token
from tests.doubles.wire import Wire, fetch, get
from tests.lifecycle.conftest import Service, StartService, secret_in
from tests.lifecycle.test_drain import Gate

RELOADS = "dhp_gateway_config_reload_total"


async def wait_until_reloaded(service: Service, count: int, outcome: str = "ok") -> None:
    await service.wait_for_metric(count, RELOADS, outcome=outcome)


async def problems_of(service: Service, number: int = 1) -> list[str]:
    await wait_until_reloaded(service, number, "failed")
    # The log is written by another thread.
    await service.wait_until(lambda: bool(service.logged("reload refused")), "the log")
    return service.logged("reload refused")


async def test_reloads_under_load_lose_nothing(
    start_service: StartService, platform: Platform, sso: Sso
) -> None:
    platform.respond(after(0.1, fhir()))
    service = await start_service.ready()
    load = Load(service.address, 200)
    load.start()
    await load.wait_until_inflight(200)
    for number in range(1, 11):
        service.change(limits={"max_headers": 100 + number % 2}, retries={"backoff": 0.2})
        before = load.served
        service.send(signal.SIGHUP)
        await wait_until_reloaded(service, number)
        await load.wait_until_served(before + 200)
    service.file.write_text("listen: {adress: 1}\n")
    service.send(signal.SIGHUP)
    await problems_of(service)
    await load.wait_until_served(load.served + 200)
    await load.finish()
    assert (load.failures, load.max_inflight) == ({}, 200)
    assert len(sso.requests) == 1
    await service.end()
    assert len(service.audit("exchange")) == load.served
    outcomes = [record["outcome"] for record in service.audit("reload")]
    assert outcomes == ["ok"] * 10 + ["failed"]


async def test_new_requests_get_the_new_settings(
    start_service: StartService, platform: Platform
) -> None:
    """A request in flight keeps the old ones; the next one on its connection has the new ones."""
    gate = Gate()
    platform.respond(gate)
    service = await start_service.ready()
    async with await Wire.open(service.address) as wire:
        await wire.send(get("/fhir/Patient/1"))
        await platform.wait_for_requests(1)
        service.change(listen={"base_path": "/other"})
        service.send(signal.SIGHUP)
        await wait_until_reloaded(service, 1)
        gate.open()
        assert (await wire.read_response()).status == 200
        assert (await wire.fetch(get("/fhir/Patient/1"))).reason == "unknown-path"
        assert (await wire.fetch(get("/other/Patient/1"))).status == 200


async def test_a_new_user_header_applies_to_open_connections(
    start_service: StartService, platform: Platform
) -> None:
    caller: dict[str, Any] = {"name": "his", "networks": ["127.0.0.1"]}
    listed = {"forward_headers": ["X-User"]}
    service = await start_service.ready(callers=[caller], platform=listed)
    request = get("/fhir/Patient/1", "X-User: dilnoza")
    async with await Wire.open(service.address) as wire:
        await wire.fetch(request)
        service.change(callers=[{**caller, "user_header": "X-User"}])
        service.send(signal.SIGHUP)
        await wait_until_reloaded(service, 1)
        await wire.fetch(request)
    assert [request.header("x-user") for request in platform.requests] == ["dilnoza", None]
    await service.end()
    assert [record["user"] for record in service.audit("exchange")] == [None, "dilnoza"]


async def test_connections_to_the_old_platform_close_after_its_last_response(
    start_service: StartService, platform: Platform, sso: Sso
) -> None:
    gate = Gate()
    service = await start_service.ready()
    async with Platform() as other, await Wire.open(service.address) as wire:
        platform.script(after(0.1, fhir()), after(0.1, fhir()))
        await asyncio.gather(*(fetch(service.address, get("/fhir/Patient/1")) for _ in "12"))
        assert platform.open_connections == 2
        platform.respond(gate)
        await wire.send(get("/fhir/Patient/2"))
        await platform.wait_for_requests(3)
        service.change(platform={"fhir_base_url": other.url})
        service.send(signal.SIGHUP)
        await wait_until_reloaded(service, 1)
        assert (await fetch(service.address, get("/fhir/Patient/3"))).status == 200
        # Sooner than idle connections are closed in any case: 15 s after their last response.
        async with asyncio.timeout(14):
            await service.wait_until(lambda: platform.open_connections == 1, "the idle line's end")
        gate.open()
        assert (await wire.read_response()).status == 200
        await service.wait_until(lambda: not platform.open_connections, "the old lines' end")
        assert [request.target for request in other.requests] == ["/r5/Patient/3"]
        assert other.requests[0].header("authorization") != platform.requests[0].header(
            "authorization"
        )
    assert await service.metric("dhp_gateway_inflight_requests") == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("listen: {adress: 1}\n", "listen.adress: is not a known key"),
        ("a: [1\n", "reload refused"),
        ("", "credentials: is empty"),
    ],
)
async def test_an_invalid_file_changes_nothing(
    start_service: StartService, content: str, words: str
) -> None:
    service = await start_service.ready()
    service.file.write_text(content)
    service.send(signal.SIGHUP)
    lines = await problems_of(service)
    assert any(words in line for line in lines)
    assert (await fetch(service.address, get("/fhir/Patient/1"))).status == 200
    await service.wait_until(lambda: bool(service.audit("reload")), "the record")
    assert service.audit("reload")[0]["outcome"] == "failed"
    assert await service.metric(RELOADS, outcome="ok") == 0


@pytest.mark.parametrize(
    ("section", "values", "key"),
    [
        ("listen", {"address": "127.0.0.1:1"}, "listen.address"),
        ("admin", {"address": "127.0.0.1:1"}, "admin.address"),
        ("audit", {"on_failure": "drop"}, "audit.on_failure"),
    ],
)
async def test_a_change_that_needs_a_restart_is_rejected(
    start_service: StartService, section: str, values: Any, key: str
) -> None:
    service = await start_service.ready()
    service.change(**{section: values}, limits={"max_url_bytes": 20})
    service.send(signal.SIGHUP)
    lines = await problems_of(service)
    assert [f"{key}: cannot change while the gateway runs" in line for line in lines] == [True]
    long = get("/fhir/Patient/a-longer-name-than-the-new-limit")
    assert (await fetch(service.address, long)).status == 200


async def test_unreadable_file_rejects_reload(start_service: StartService, tmp_path: Path) -> None:
    service = await start_service.ready()
    late = tmp_path / "late"
    service.change(**secret_in(late), listen={"base_path": "/other"})
    service.send(signal.SIGHUP)
    assert f"{late}: no such file" in (await problems_of(service))[0]
    assert (await fetch(service.address, get("/fhir/Patient/1"))).status == 200
    late.write_text("planted-client-secret\n")
    await wait_until_reloaded(service, 1)
    assert (await fetch(service.address, get("/other/Patient/1"))).status == 200


def mount(directory: Path, version: int, secret: str) -> None:
    """Swap a directory the way Kubernetes updates a mounted secret."""
    data = directory / f"..version-{version}"
    data.mkdir(parents=True)
    (data / "secret").write_text(secret)
    link = directory / "..data.new"
    link.symlink_to(data.name)
    os.replace(link, directory / "..data")
    if not (directory / "secret").is_symlink():
        (directory / "secret").symlink_to("..data/secret")


async def test_a_changed_secret_is_noticed_without_a_signal(
    start_service: StartService, platform: Platform, sso: Sso, tmp_path: Path
) -> None:
    mount(tmp_path / "mount", 1, "first")
    service = await start_service.ready(**secret_in(tmp_path / "mount" / "secret"))
    mount(tmp_path / "mount", 2, "second")
    await sso.wait_for_requests(2)
    assert [r.form["client_secret"] for r in sso.requests] == ["first", "second"]
    await wait_until_reloaded(service, 1)
    while (await fetch(service.address, get("/fhir/Patient/1"))).status == 200:
        if platform.requests[-1].header("authorization") == "Bearer token-2":
            break
    assert platform.requests[-1].header("authorization") == "Bearer token-2"


async def test_a_rejected_secret_is_read_again_before_an_error(
    start_service: StartService, sso: Sso, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("old")
    sso.hold()
    sso.script(oauth_error("invalid_client", 401), token("good"))
    service = start_service(**secret_in(secret))
    await sso.wait_for_requests(1)
    secret.write_text("new")
    sso.release()
    await service.wait_until_ready()
    assert [r.form["client_secret"] for r in sso.requests][:2] == ["old", "new"]
    assert await service.metric("dhp_gateway_token_requests_total", outcome="refused") == 0


async def test_a_reload_keeps_a_valid_token_while_the_sso_is_down(
    start_service: StartService, platform: Platform, sso: Sso
) -> None:
    sso.script(token("old", expires_in=30))
    service = await start_service.ready()
    service.change(sso={"timeout": 3})
    service.send(signal.SIGHUP)
    await wait_until_reloaded(service, 1)
    assert (await fetch(service.address, get("/fhir/Patient/1"))).status == 200
    assert len(sso.requests) == 1


async def write_slowly(path: Path, text: str) -> float:
    """Write for more than two seconds, and return the longest interval between two characters."""
    written, longest = time.monotonic(), 0.0
    with path.open("w") as file:
        for character in text:
            file.write(character)
            file.flush()
            await asyncio.sleep(2.5 / len(text))
            longest = max(longest, time.monotonic() - written)
            written = time.monotonic()
    return longest


async def test_a_file_is_read_once_it_stops_changing(
    start_service: StartService, tmp_path: Path
) -> None:
    service = await start_service.ready()
    whole = service.file.read_text() + "limits: {max_url_bytes: 20}\n"
    gap = math.inf
    # On a busy machine the writing itself may come to a halt for a moment: then it begins anew.
    while gap > 0.9:
        failed = await service.metric(RELOADS, outcome="failed")
        gap = await write_slowly(service.file, whole)
    await wait_until_reloaded(service, 1)
    assert await service.metric(RELOADS, outcome="failed") == failed
    long = get("/fhir/Patient/a-longer-name-than-the-new-limit")
    assert (await fetch(service.address, long)).reason == "url-too-long"


async def test_a_streamed_response_is_complete_after_reloads(
    start_service: StartService, platform: Platform
) -> None:
    gate = Gate()

    async def in_two(line: Any) -> None:
        first = chunked(b'{"resourceType":"Binary","data":"', b"A" * 300_000, end=False)
        line.writer.write(first)
        await gate.wait()
        line.writer.write(b'2\r\n"}\r\n0\r\n\r\n')
        await line.writer.drain()

    platform.respond(in_two)
    service = await start_service.ready()
    async with await Wire.open(service.address) as wire:
        await wire.send(get("/fhir/Binary/1"))
        await wire.reader.readexactly(1000)
        for number in (1, 2, 3):
            service.send(signal.SIGHUP)
            await wait_until_reloaded(service, number)
        gate.open()
        received = await wire.reader.readuntil(b"0\r\n\r\n")
    assert received.endswith(b'"}\r\n0\r\n\r\n')
