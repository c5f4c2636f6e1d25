"""Callers: each lane is a connection that sends its requests one after the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from tests.simulation.history import History, Outcome
from tests.simulation.hosts import IDENTIFIERS, Sso
from tests.simulation.http_messages import Message, MessageReader, request
from tests.simulation.plan import Call, Plan
from tests.simulation.simulated_loop import START, SimulatedLoop

# Seconds after which a caller gives up.
_PATIENCE = 30.0
_STATUS_PAUSE = 1.0
_HOST = "localhost:8080"


class Connection(asyncio.Protocol):
    """The caller's end of a connection to the gateway."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.is_lost = False
        self._reader = MessageReader()
        self._arrived: asyncio.Queue[Message | None] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            self._arrived.put_nowait(message)

    def eof_received(self) -> None:
        self._arrived.put_nowait(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self._arrived.put_nowait(None)

    async def response(self) -> Message | None:
        """Return the next response, None at the end of the connection."""
        return await self._arrived.get()


class Browser:
    """The cookies of one user, whose tabs are lanes."""

    def __init__(self, user: int, sso: Sso) -> None:
        self.user = f"user-{user}"
        self._sso = sso
        self._cookie = ""
        self._signing_in = asyncio.Lock()

    def forget(self, cookie: str) -> None:
        """Sign in again before the next request, unless another tab has done so."""
        if self._cookie == cookie:
            self._cookie = ""

    async def cookie(self, get: Callable[[str, str], Awaitable[Message | None]]) -> str:
        """Return the cookie of the session; `get` sends a request with a path and a cookie."""
        async with self._signing_in:
            if not self._cookie:
                self._cookie = await self._sign_in(get)
        return self._cookie

    async def _sign_in(self, get: Callable[[str, str], Awaitable[Message | None]]) -> str:
        begun = await get("/auth/login?return_to=/", "")
        if begun is None or begun.status not in (302, 303):
            return ""
        binding = begun.fields.get("set-cookie", "").partition(";")[0]
        state = parse_qs(urlsplit(begun.fields["location"]).query)["state"][0]
        code = self._sso.authorize(self.user)
        done = await get(f"/auth/callback?code={code}&state={state}", binding)
        if done is None or done.status not in (302, 303):
            return ""
        # The first of the two fields; the second removes the cookie of the sign-in.
        return done.fields.get("set-cookie", "").partition(";")[0]


class Lane:
    """A connection of one caller, and what it sends. `process` returns the gateway's host."""

    def __init__(
        self,
        number: int,
        plan: Plan,
        loop: SimulatedLoop,
        history: History,
        process: Callable[[], str],
        browser: Browser | None,
    ) -> None:
        self.name = f"lane-{number}"
        self._number = number
        self._credential = plan.lanes[number]
        self._calls = [call for call in plan.calls if call.lane == number]
        self._loop = loop
        self._history = history
        self._process = process
        self._browser = browser
        self._connection: Connection | None = None
        self._versions: dict[str, int] = {}
        self._count = 0

    async def run(self) -> None:
        """Send the requests of the plan."""
        for call in self._calls:
            await self._until(START + call.at)
            await self._call(call)

    async def learn_outcomes(self) -> None:
        """Ask what became of the accepted writes."""
        for outcome in self._history.outcomes:
            if outcome.lane == self._number and outcome.status == 202:
                outcome.final = await self._final(outcome)

    async def _until(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - self._loop.now()))

    async def _final(self, outcome: Outcome) -> str:
        path = urlsplit(outcome.fields.get("content-location", "")).path
        for _ in range(5):
            response = await self._exchange(request("GET", path, _HOST, b"", self._key()))
            if response is not None and response.status == 200:
                part = orjson.loads(response.body)["entry"][0]
                return _state_of(part)
            if response is not None and response.status != 202:
                return f"status {response.status}"
            await asyncio.sleep(_STATUS_PAUSE)
        return "waiting" if response is not None else "no response"

    def _key(self) -> str:
        return f"X-Api-Key: key-of-caller-{self._credential}"

    async def _get(self, path: str, cookie: str) -> Message | None:
        return await self._exchange(request("GET", path, _HOST, b"", _cookie(cookie)))

    async def _authentication(self) -> list[str]:
        if self._browser is None:
            return [self._key()]
        cookie = await self._browser.cookie(self._get)
        return [_cookie(cookie), "X-Requested-With: fetch", f"Origin: http://{_HOST}"]

    async def _call(self, call: Call) -> None:
        self._count += 1
        request_id = f"{self.name}-{self._count}"
        authentication = await self._authentication()
        resource, data, content = self._request(call, request_id, authentication)
        outcome = Outcome(
            lane=self._number,
            credential=(
                f"client-{self._credential}" if self._browser is None else self._browser.user
            ),
            kind=call.kind,
            resource=resource,
            content=content,
            request_id=request_id,
            is_async=call.is_async,
            manner=call.manner,
            process=self._process(),
            sent_at=self._loop.now(),
            is_signed_in=self._browser is not None and authentication[0] != _cookie(""),
        )
        self._history.outcomes.append(outcome)
        self._tell(f"sends {call.kind} {resource} {content} [{request_id}] {call.manner}")
        response = await self._exchange(data, call)
        outcome.ended_at = self._loop.now()
        if response is not None:
            outcome.status, outcome.fields = response.status, response.fields
            outcome.body = response.body
        if outcome.status == 401 and self._browser is not None:
            self._browser.forget(authentication[0].removeprefix("Cookie: "))
        reason = outcome.fields.get("x-gateway-error", "")
        self._tell(f"[{request_id}] got {outcome.status or 'no response'} {reason}")

    def _request(
        self, call: Call, request_id: str, authentication: list[str]
    ) -> tuple[str, bytes, str]:
        fields = [*authentication, f"X-Request-Id: {request_id}"]
        if call.is_async:
            fields.append("Prefer: respond-async")
        resource = f"Patient/p{call.patient}"
        if call.kind == "read":
            return resource, request("GET", f"/fhir/{resource}", _HOST, b"", *fields), ""
        if call.kind != "write":
            resource = f"Observation/{request_id}"
        version = self._versions[resource] = self._versions.get(resource, 0) + 1
        content = f"{resource}-{version}"
        body: dict[str, Any] = {
            "resourceType": resource.partition("/")[0],
            "identifier": [{"system": IDENTIFIERS, "value": content}],
        }
        if call.kind != "write":
            body["status"] = "final"
            body["subject"] = {"reference": f"Patient/p{call.patient}"}
            if call.kind == "create":
                fields.append(f"If-None-Exist: identifier={IDENTIFIERS}|{content}")
            else:
                # By nothing can it be found out whether it took effect.
                del body["identifier"][0]["system"]
            data = request("POST", "/fhir/Observation", _HOST, orjson.dumps(body), *fields)
            return resource, data, content
        body["id"] = f"p{call.patient}"
        data = request("PUT", f"/fhir/{resource}", _HOST, orjson.dumps(body), *fields)
        return resource, data, content

    async def _exchange(self, data: bytes, call: Call | None = None) -> Message | None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                response = await self._send(data, call)
            if response is not None and response.fields.get("connection") != "close":
                return response
            self._close()
            return response
        self._close()
        return None

    async def _send(self, data: bytes, call: Call | None) -> Message | None:
        connection = self._connection
        if connection is None or connection.is_lost or connection.transport.is_closing():
            _, connection = await self._loop.create_connection(Connection, self._process(), 8080)
        self._connection = connection
        manner = call.manner if call is not None else ""
        connection.transport.write(data)
        if manner == "half-closes":
            connection.transport.write_eof()
            self._connection = None
        elif manner == "reads slowly":
            connection.transport.pause_reading()
            self._loop.call_later(call.value if call else 0.0, connection.transport.resume_reading)
        elif manner == "leaves":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(call.value if call else 0.0):
                    return await connection.response()
            self._close()
            return None
        return await connection.response()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.transport.abort()
            self._connection = None

    def close(self) -> None:
        self._close()

    def _tell(self, what: str) -> None:
        self._history.tell(self._loop.now(), f"{self.name}: {what}")


def _cookie(cookie: str) -> str:
    return f"Cookie: {cookie}"


def _state_of(part: dict[str, Any]) -> str:
    """Return the outcome of a write from its entry of a batch-response."""
    status = part["response"]["status"].partition(" ")[0]
    issues = part["response"].get("outcome", {}).get("issue", [])
    codes = [
        coding["code"] for issue in issues for coding in issue.get("details", {}).get("coding", [])
    ]
    return " ".join([status, *codes])
