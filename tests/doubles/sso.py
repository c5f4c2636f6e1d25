"""An SSO that responds as a test specifies, and records the requests.

    async with Sso() as sso:
        sso.script(status(503), token("first", expires_in=3))   # the next two responses
        sso.respond(token("second"))                            # all others
        ... use sso.token_url ...
        assert sso.requests[0].form["grant_type"] == "client_credentials"

Without a script it issues `token-1`, `token-2`, … for 300 seconds. It implements HTTP itself, with
one request per connection, so that a response can be any octets, late, broken or missing.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import parse_qsl, unquote_plus

from multidict import CIMultiDict

from tests.doubles.wire import close_by_reset

End = Literal["close", "reset", "hang"]


@dataclass(frozen=True)
class ScriptedResponse:
    """Octets to send, and what happens to the connection after them."""

    raw: bytes = b""
    end: End = "close"


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as it was received."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        """Return the decoded form. A repeated name is an error of the client and fails."""
        items = parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True)
        assert len({name for name, _ in items}) == len(items), "repeated form parameter"
        return dict(items)

    @property
    def basic(self) -> tuple[str, str] | None:
        """Return the decoded client id and secret of Basic authentication (RFC 6749 2.3.1)."""
        scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if scheme != "Basic":
            return None
        client_id, _, secret = base64.b64decode(encoded).decode().partition(":")
        return unquote_plus(client_id), unquote_plus(secret)


def http(
    status: int, body: bytes = b"", *headers: tuple[str, str], content_type: str = "text/html"
) -> ScriptedResponse:
    """Return a response with a body and valid framing."""
    lines = [f"HTTP/1.1 {status} Any", f"Content-Type: {content_type}", "Connection: close"]
    lines += [f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ScriptedResponse("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def status(code: int, *headers: tuple[str, str]) -> ScriptedResponse:
    """Return the response of a load balancer: a status and an HTML page."""
    return http(code, b"<html><body>Something is wrong</body></html>", *headers)


def json_body(value: object, code: int = 200, *headers: tuple[str, str]) -> ScriptedResponse:
    return http(code, json.dumps(value).encode(), *headers, content_type="application/json")


def token(value: str, **members: object) -> ScriptedResponse:
    """Return a token response; `members` add to or replace the usual ones, None omits one."""
    plain: dict[str, object] = {"access_token": value, "token_type": "Bearer", "expires_in": 300}
    merged = {**plain, **members}
    return json_body({name: value for name, value in merged.items() if value is not None})


def oauth_error(error: str, code: int = 400) -> ScriptedResponse:
    return json_body({"error": error, "error_description": "as the test wants it"}, code)


RESET = ScriptedResponse(end="reset")
HANG = ScriptedResponse(end="hang")
CLOSE = ScriptedResponse()


class Sso:
    """The server; an async context manager that listens on a free port.

    `open_now` and `most_at_once` count requests without a response yet: now, and at most.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[ReceivedRequest] = []
        self.open_requests = 0
        self.max_concurrent = 0
        self._tls = tls
        self._refused: set[str] = set()
        self._script: deque[ScriptedResponse] = deque()
        self._default: Callable[[], ScriptedResponse] = self._numbered
        self._issued = 0
        self._gate = asyncio.Event()
        self._gate.set()
        self._changed = asyncio.Condition()
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def token_url(self) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}/oauth/token"

    def respond(self, response: ScriptedResponse | None) -> None:
        """Set the response for every request after the script; None: numbered tokens again."""
        self._default = self._numbered if response is None else lambda: response

    def script(self, *responses: ScriptedResponse) -> None:
        """Give each of the next requests one of these responses."""
        self._script.extend(responses)

    def reject_client(self, client_id: str) -> None:
        """Refuse every request of a client from now on."""
        self._refused.add(client_id)

    def hold(self) -> None:
        """Receive requests but send no response before `release`."""
        self._gate.clear()

    def release(self) -> None:
        """Send the responses held back, and all later ones at once."""
        self._gate.set()

    async def wait_for_requests(self, count: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= count)

    def response_to(self, request: ReceivedRequest) -> ScriptedResponse:
        """Return the response to a request after the script; subclasses may examine the request."""
        if self._refused and request.form.get("client_id") in self._refused:
            return oauth_error("invalid_client", 401)
        return self._default()

    def _numbered(self) -> ScriptedResponse:
        self._issued += 1
        return token(f"token-{self._issued}")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._exchange(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The client closed the connection, or the test is over.
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read_request(reader)
        answer = self._script.popleft() if self._script else self.response_to(request)
        self.open_requests += 1
        self.max_concurrent = max(self.max_concurrent, self.open_requests)
        try:
            async with self._changed:
                self.requests.append(request)
                self._changed.notify_all()
            await self._gate.wait()
            writer.write(answer.raw)
            await writer.drain()
            if answer.end == "hang":
                await reader.read()
            if answer.end == "reset":
                close_by_reset(writer)
        finally:
            self.open_requests -= 1


async def _read_request(reader: asyncio.StreamReader) -> ReceivedRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines:
        name, _, value = line.partition(":")
        headers.add(name, value.strip())
    body = await reader.readexactly(int(headers.get("Content-Length", "0")))
    return ReceivedRequest(method, target, headers, body)
