"""A platform with its SSO that records each write that took effect, in order.

Its `weather` has one word for each of the next writes: `busy` is a 503, `lost` breaks off before
the effect, `answer-lost` after it, `slow` delays the response.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Self

REQUEST_ID = "X-Request-Id"
_TOKEN = b'{"access_token":"t","token_type":"Bearer","expires_in":3600}'
_STATEMENT: dict[str, Any] = {
    "resourceType": "CapabilityStatement",
    "fhirVersion": "5.0.0",
    "rest": [
        {
            "mode": "server",
            "resource": [
                {
                    "type": "Observation",
                    "searchParam": [{"name": "identifier", "type": "token"}],
                }
            ],
        }
    ],
}


class RememberingPlatform:
    """The server; `effects` has request id and content of each write."""

    def __init__(self) -> None:
        self.effects: list[tuple[str, bytes]] = []
        self.weather: list[str] = []
        self.port = 0
        self._created: list[dict[str, Any]] = []
        self._stored: dict[str, dict[str, Any]] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request. Return whether the connection continues."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        if target == "/oauth/token":
            writer.write(_message(200, _TOKEN, b"application/json"))
        elif method == "GET":
            writer.write(self._read(target))
        else:
            key = fields[REQUEST_ID.lower()]
            weather = self.weather.pop(0) if self.weather else "fine"
            if weather == "lost":
                return False
            if weather == "busy":
                writer.write(_message(503, b'{"resourceType":"OperationOutcome"}', retry_after=30))
                return True
            answer = self._write(method, target.removeprefix("/fhir/"), key, body)
            if weather == "answer-lost":
                return False
            if weather == "slow":
                await asyncio.sleep(0.7)
            writer.write(answer)
        return True

    def _read(self, target: str) -> bytes:
        path, _, query = target.removeprefix("/fhir/").partition("?")
        if path == "metadata":
            return _message(200, json.dumps(_STATEMENT).encode())
        if query:
            return self._search(target, query)
        found = self._stored.get(path)
        if found is None:
            return _message(404, b'{"resourceType":"OperationOutcome"}')
        return _message(200, json.dumps(found).encode())

    def _search(self, target: str, query: str) -> bytes:
        value = query.split("&")[0].rpartition("%7C")[2]
        matches = [
            {"resource": each}
            for each in self._created
            if value in [identifier["value"] for identifier in each.get("identifier", ())]
        ]
        bundle = {
            "resourceType": "Bundle",
            "type": "searchset",
            "total": len(matches),
            "link": [{"relation": "self", "url": f"http://127.0.0.1{target}"}],
            "entry": matches,
        }
        return _message(200, json.dumps(bundle).encode())

    def _write(self, method: str, path: str, key: str, body: bytes) -> bytes:
        self.effects.append((key, body))
        if method == "DELETE":
            self._stored.pop(path, None)
            return _message(204, b"")
        resource = json.loads(body)
        if method == "POST":
            resource["id"] = str(len(self._created))
            self._created.append(resource)
        else:
            self._stored[path] = resource
        return _message(201 if method == "POST" else 200, json.dumps(resource).encode())


def _message(
    status: int,
    body: bytes,
    kind: bytes = b"application/fhir+json",
    *,
    retry_after: int | None = None,
) -> bytes:
    head = b"HTTP/1.1 %d X\r\nContent-Type: %s\r\n" % (status, kind)
    if retry_after is not None:
        head += b"Retry-After: %d\r\n" % retry_after
    if status != 204:
        head += b"Content-Length: %d\r\n" % len(body)
    return head + b"\r\n" + body
