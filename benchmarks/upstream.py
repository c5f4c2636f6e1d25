"""The benchmark's SSO, and a platform that accepts any request with a valid token.

    upstream.py PORT TOKEN PUBLIC_KEY

`POST /oauth/token` issues TOKEN for an hour, `POST /oauth/short-lived` one that contains its
expiry: `until-` and the time (monotonic, milliseconds), after which the response is 401. Every
other request gets a small Patient (201 for POST) once its body, chunked or not, is complete. `GET
/counts` returns how many tokens were issued, how many different ones were seen since, and how many
requests had no valid one, and how many others than GET had one.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import cast

import uvloop

LIFETIME = 2.0
PATIENT = (Path(__file__).parent / "patient.json").read_bytes()
FHIR, JSON = b"application/fhir+json", b"application/json"


class Memory:
    """The state that all connections share."""

    def __init__(self, token: str, public_key: str) -> None:
        self.token, self.public_key = token, public_key
        self.counts: Counter[str] = Counter(tokens=0, seen=0, unauthorized=0, writes=0)
        self._last = b""

    def answer(self, method: bytes, target: bytes, head: bytes) -> bytes:
        """Return the response to a request whose body is complete."""
        if target.startswith(b"/oauth/"):
            self.counts["tokens"] += 1
            return _answer(b"200 OK", JSON, self._issue(target))
        if target == b"/counts":
            return _answer(b"200 OK", JSON, json.dumps(self.counts).encode())
        bearer = head.lower().partition(b"\r\nauthorization: bearer ")[2].partition(b"\r\n")[0]
        if not bearer or (bearer.startswith(b"until-") and _over(bearer)):
            self.counts["unauthorized"] += 1
            return _answer(b"401 Unauthorized", FHIR, b"")
        if bearer != self._last:
            self._last = bearer
            self.counts["seen"] += 1
        self.counts["writes"] += method != b"GET"
        return _answer(b"201 Created" if method == b"POST" else b"200 OK", FHIR, PATIENT)

    def _issue(self, target: bytes) -> bytes:
        token, lifetime = self.token, 3600.0
        if target == b"/oauth/short-lived":
            lifetime = LIFETIME
            end = int((time.monotonic() + lifetime) * 1000)
            token = f"until-{end}-{self.token[len(f'until-{end}-') :]}"
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": lifetime}
        answer["public_key"] = self.public_key  # Where fhir-gateway looks for it.
        return json.dumps(answer).encode()


def _over(bearer: bytes) -> bool:
    return time.monotonic() * 1000 > int(bearer.split(b"-", 2)[1])


def _answer(status: bytes, kind: bytes, body: bytes) -> bytes:
    head = (
        b"HTTP/1.1 %s\r\nContent-Type: %s\r\nCache-Control: no-store\r\nContent-Length: %d\r\n\r\n"
    )
    return head % (status, kind, len(body)) + body


class Connection(asyncio.BufferedProtocol):
    """One connection; bodies are counted and discarded in the receive buffer."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._space = bytearray(256 * 1024)
        self._text = b""  # An incomplete header section or chunk size.
        self._head: bytes | None = None
        self._left = 0  # Octets left of the body or of the chunk.
        self._chunked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport (asyncio.Protocol)."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return the receive buffer (asyncio.BufferedProtocol)."""
        return self._space

    def buffer_updated(self, nbytes: int) -> None:
        """Skip the octets of a body and parse the rest (asyncio.BufferedProtocol)."""
        skipped = min(self._left, nbytes)
        self._left -= skipped
        if nbytes > skipped:
            self._text += self._space[skipped:nbytes]
        while self._left == 0 and self._step():
            pass

    def _step(self) -> bool:
        """Parse one more element; return False when more octets are needed."""
        if self._head is None:
            return self._begin()
        if self._chunked:
            return self._next_chunk()
        self._end()
        return True

    def _begin(self) -> bool:
        head, found, rest = self._text.partition(b"\r\n\r\n")
        if not found:
            return False
        fields = head.lower()
        self._head, self._text = head + b"\r\n", rest
        self._chunked = b"\r\ntransfer-encoding: chunked" in fields
        length = fields.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        self._skip(int(length or 0))
        return True

    def _next_chunk(self) -> bool:
        text = self._text.removeprefix(b"\r\n")
        size, found, rest = text.partition(b"\r\n")
        if not found:
            return False
        if int(size, 16):
            self._text = rest
            self._skip(int(size, 16))
            return True
        if len(rest) < 2:
            return False
        self._text = rest[2:]
        self._end()
        return True

    def _skip(self, length: int) -> None:
        here = min(length, len(self._text))
        self._text = self._text[here:]
        self._left = length - here

    def _end(self) -> None:
        assert self._head is not None
        method, target, _ = self._head.split(b" ", 2)
        self._transport.write(self._memory.answer(method, target, self._head))
        self._head = None


async def _serve(port: int, token: str, public_key: str) -> None:
    memory = Memory(token, public_key)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(memory), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), *sys.argv[2:]))
