"""A caller that sends writes and polls their status."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import IO, Any, Self

import aiohttp

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import (
    Platform,
    PlatformConnection,
    ReceivedRequest,
    ScriptedResponse,
    fhir,
    read_body,
    then_close,
)
from tests.doubles.relay import Relay
from tests.doubles.sso import Sso
from tests.doubles.waiting import wait_until

ASYNC = {"Prefer": "respond-async"}
JSON = {"Content-Type": "application/fhir+json"}
_POLL = 0.02
_LONGEST_POLL = 0.5
_PATIENCE = 120.0


@dataclass(frozen=True)
class Response:
    """A complete response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def location(self) -> str:
        return self.headers["Content-Location"]

    @property
    def state(self) -> str:
        """Return the state of the entry as the status response codes it."""
        return str(self.json["issue"][0]["details"]["coding"][0]["code"])


class OutboxSetup:
    """The caller, with the platform, the SSO, and the relay to the platform."""

    def __init__(self, gateway: RunningGateway, platform: Platform, sso: Sso, relay: Relay) -> None:
        self.gateway = gateway
        self.platform = platform
        self.sso = sso
        self.relay = relay

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(
        self, method: str, path: str, body: bytes | IO[bytes] | None = None, **headers: str
    ) -> Response:
        """Send one request.

        `path` is below the base, or a whole URL. `_` in names stands for `-`.
        """
        url = path if path.startswith("http") else self.gateway.url + path
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            fields = {**JSON, **fields}
        async with self._session.request(method, url, data=body, headers=fields) as answer:
            named = {key.title(): value for key, value in answer.headers.items()}
            return Response(answer.status, named, await answer.read())

    async def write(
        self, patient: int = 1, number: int = 1, method: str = "PUT", **headers: str
    ) -> Response:
        fields = {**ASYNC, **headers}
        path = "/Observation" if method == "POST" else f"/Observation/{number}"
        return await self.ask(method, path, observation(patient, number), **fields)

    async def enqueue(self, method: str, path: str, body: bytes, **headers: str) -> Response:
        """Send a large write until it is queued; return that response.

        A busy machine may need longer to judge its body than the gateway waits, so that it fails.
        """
        async with asyncio.timeout(_PATIENCE):
            while True:
                reply = await self.ask(method, path, io.BytesIO(body), **{**ASYNC, **headers})
                if reply.status == 202:
                    return reply
                assert reply.headers["X-Gateway-Error"] in {"upstream-unreachable", "circuit-open"}

    @contextlib.asynccontextmanager
    async def late_failure(self) -> AsyncIterator[asyncio.Task[Response]]:
        """Send a write that hangs at the platform, and fails when the block ends."""
        fails = asyncio.Event()

        async def broken_off(connection: PlatformConnection) -> None:
            await fails.wait()
            connection.writer.close()

        seen = len(self.platform.requests)
        self.platform.script(broken_off)
        async with asyncio.TaskGroup() as group:
            hanging = group.create_task(self.write())
            await self.platform.wait_for_requests(seen + 1)
            yield hanging
            fails.set()

    async def final_response(self, location: str, **headers: str) -> Response:
        """Poll the status, less and less often, until the write has ended; return that response.

        A busy outbox answers 503, after which callers ask again; one that answers nothing else for
        long fails.
        """
        loop = asyncio.get_running_loop()
        pause, heard = _POLL, loop.time()
        while True:
            reply = await self.ask("GET", location, **headers)
            if reply.status not in (202, 503):
                return reply
            if reply.status == 202:
                heard = loop.time()
            assert loop.time() - heard < _PATIENCE, f"still busy: {reply.body!r}"
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, _LONGEST_POLL)

    async def deliver(self, location: str, **headers: str) -> Response:
        await self.relay.restore()
        return await self.final_response(location, **headers)

    async def unclear_write(self) -> str:
        """Send a create whose outcome stays unknown; its status URL once that is told."""
        self.relay.cut()
        location = (await self.write(method="POST")).location
        self.answer_writes(then_close(b""))
        await self.deliver(location)
        return location

    def answer_writes(self, *answers: ScriptedResponse) -> None:
        """Give each of the next writes one of these responses.

        While writes wait, the gateway may ask the platform for its metadata at any time.
        """
        left = list(answers)

        async def respond(connection: PlatformConnection) -> None:
            given = left.pop(0) if left and connection.request.method != "GET" else fhir()
            if not isinstance(given, bytes):
                await given(connection)
                return
            await read_body(connection.reader, connection.request)
            connection.writer.write(given)

        self.platform.respond(respond)

    async def wait_until_state(self, state: str, location: str) -> Response:
        """Wait until the outbox reports `state` for a waiting write, and return that response."""
        while True:
            reply = await self.ask("GET", location)
            if reply.state == state:
                return reply
            await asyncio.sleep(_POLL)

    @property
    def sent(self) -> list[ReceivedRequest]:
        """Return what the platform received, without the reads of the gateway's own."""
        return [each for each in self.platform.requests if each.method != "GET"]

    def writes(self) -> list[tuple[str, str]]:
        """Return method and target of what the platform received, without reads."""
        return [(each.method, each.target) for each in self.sent]

    async def wait_until_sent(self, count: int) -> None:
        await wait_until(lambda: len(self.sent) >= count)


def observation(patient: int = 1, number: int = 1) -> bytes:
    return json.dumps(
        {
            "resourceType": "Observation",
            "id": str(number),
            "status": "final",
            "subject": {"reference": f"Patient/{patient}"},
        }
    ).encode()
