"""`/status/events` over real sockets: what open pages are sent, when, how many, how they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.admin.status_events import StatusEvents
from gateway.guidance import REASON_GUIDANCE
from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.platform import Platform
from tests.doubles.sections import CLIENT_SECRET
from tests.doubles.sso import Sso

# Seconds. Every event comes soon; only a broken stream takes that long.
PATIENCE = 120.0


class ChangingFacts:
    """Facts that a test changes."""

    def __init__(self) -> None:
        self.now: dict[str, Any] = {"care": "yes", "at": 0}
        self.asked = 0
        self.size = 0

    def facts(self, language: str) -> dict[str, Any]:
        self.asked += 1
        return {**self.now, "at": self.asked, "language": language, "bulk": "#" * self.size}


def render(facts: Any) -> dict[str, str]:
    return {"title": facts["care"], "main": f"{facts['language']} {facts['at']} {facts['bulk']}"}


@pytest.fixture
def facts() -> ChangingFacts:
    return ChangingFacts()


Serve = Callable[..., AbstractAsyncContextManager[tuple[str, StatusEvents]]]


@pytest.fixture
def serve(facts: ChangingFacts) -> Serve:
    """Return a function that serves streams and yields their URL and the sender."""

    @contextlib.asynccontextmanager
    async def one(**options: Any) -> AsyncIterator[tuple[str, StatusEvents]]:
        events = StatusEvents(facts, render, **{"interval": 0.01, **options})

        async def handle(request: web.Request) -> web.StreamResponse:
            return await events.serve(request, request.query.get("lang", "en"))

        application = web.Application()
        application.on_shutdown.append(events.close)
        application.router.add_get("/status/events", handle)
        # A server of pytest-aiohttp would cancel the handlers of lost connections; ours does not.
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=PATIENCE)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        try:
            yield f"http://{host}:{port}/status/events", events
        finally:
            await runner.cleanup()

    return one


async def next_event(answer: aiohttp.ClientResponse) -> dict[str, str]:
    async with asyncio.timeout(PATIENCE):
        line = await answer.content.readline()
        blank = await answer.content.readline()
    assert line.startswith(b"data: ")
    assert blank == b"\n"
    data: dict[str, str] = json.loads(line[6:])
    return data


@contextlib.asynccontextmanager
async def listening(url: str) -> AsyncIterator[aiohttp.ClientResponse]:
    async with (
        aiohttp.ClientSession(read_bufsize=2**20) as session,
        session.get(url, timeout=aiohttp.ClientTimeout()) as answer,
    ):
        yield answer


async def test_the_stream_has_the_media_type_of_server_sent_events(serve: Serve) -> None:
    async with serve() as (url, _), listening(f"{url}?lang=uz") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert (await next_event(answer))["main"].startswith("uz 1")


async def test_changes_are_sent_at_once_and_times_seldom(
    serve: Serve, facts: ChangingFacts
) -> None:
    async with serve() as (url, _), listening(url) as answer:
        sent = [await next_event(answer) for _ in range(3)]
        assert [each["main"].split()[1] for each in sent] == ["1", "6", "11"]
        facts.now["care"] = "no"
        changed = await next_event(answer)
        while changed["title"] != "no":
            changed = await next_event(answer)
        assert changed["title"] == "no"


async def test_the_number_of_streams_is_bounded(serve: Serve) -> None:
    async with serve(max_streams=2) as (url, _), listening(url) as first:
        await next_event(first)
        async with listening(url) as second:
            await next_event(second)
            async with listening(url) as third:
                assert third.status == 503
        await wait_for_status(url, 200)


async def test_a_stream_that_is_not_read_is_closed(serve: Serve, facts: ChangingFacts) -> None:
    facts.size = 2**20
    # Long enough to find the place taken before it is free again, also on a busy machine.
    async with serve(max_streams=1, send_timeout=2) as (url, _):
        host, port = url.split("/")[2].split(":")
        with socket.create_connection((host, int(port))) as sleeper:
            sleeper.sendall(f"GET /status/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            # Taken first by the sleeper, then free again.
            for status in (503, 200):
                await wait_for_status(url, status)


async def wait_for_status(url: str, status: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            async with listening(url) as other:
                if other.status == status:
                    return
            await asyncio.sleep(0.01)


async def test_streams_end_regularly_at_shutdown(serve: Serve) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with serve(interval=PATIENCE) as (url, _):
            answers = [await stack.enter_async_context(listening(url)) for _ in range(3)]
            for answer in answers:
                await next_event(answer)
        async with asyncio.timeout(PATIENCE / 2):
            rest = [await answer.content.read() for answer in answers]
        assert rest == [b"", b"", b""]


async def test_a_rejected_request_is_in_the_next_event(gateway: RunningGateway) -> None:
    async with listening(f"{gateway.admin_url}/status/events?lang=ru") as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        event = await next_event(answer)
        assert event["title"].startswith("?")
        async with aiohttp.ClientSession() as session:
            await session.get(f"{gateway.url}/Patient/{'long' * 2**11}")
        while "url-too-long" not in event["main"]:
            event = await next_event(answer)
        meaning = REASON_GUIDANCE["url-too-long"].meaning.in_language("ru")
        assert meaning.replace("`", "") in re.sub("</?code[^>]*>", "", event["main"])
        assert CLIENT_SECRET not in event["main"]


async def test_head_is_not_allowed(gateway: RunningGateway) -> None:
    """HEAD would never end, and is not served."""
    url = f"{gateway.admin_url}/status/events"
    async with aiohttp.request("HEAD", url, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")


async def test_an_open_stream_does_not_delay_a_shutdown(platform: Platform, sso: Sso) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with running_gateway(platform.url, sso.token_url) as started:
            url = f"{started.admin_url}/status/events"
            answer = await stack.enter_async_context(listening(url))
            await next_event(answer)
        async with asyncio.timeout(PATIENCE / 2):
            while await answer.content.read(2**16):
                pass
