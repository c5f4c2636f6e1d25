"""A caller that sends and receives octets, for what no HTTP library would send or show."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import Any, Self


@dataclass
class Response:
    """A response as it was received, with its body decoded from its framing."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the only value of a field, None without one."""
        values = self.all(name)
        assert len(values) < 2, f"{name} is repeated: {values}"
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str | None:
        """Return the reason of a local error, None for other responses.

        The OperationOutcome is checked against it.
        """
        reason = self.header("x-gateway-error")
        if reason is not None and self.body[:1] == b"{":
            outcome = self.json()
            assert outcome["resourceType"] == "OperationOutcome"
            assert outcome["issue"][0]["details"]["coding"][0]["code"] == reason
            assert self.header("cache-control") == "no-store"
            assert outcome["id"] == self.header("x-request-id")
        return reason


class TruncatedResponseError(Exception):
    """The connection ended before the response was complete; `received` is its first part."""

    def __init__(self, received: bytes) -> None:
        super().__init__(f"{len(received)} bytes")
        self.received = received


class Wire:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, address: Any, *, tls: ssl.SSLContext | None = None) -> Self:
        """Connect to a gateway's address; with TLS as `localhost`."""
        if address.path is not None:
            return cls(*await asyncio.open_unix_connection(address.path, limit=2**22))
        name = None if tls is None else "localhost"
        return cls(
            *await asyncio.open_connection(
                address.host, address.port, limit=2**22, ssl=tls, server_hostname=name
            )
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def fetch(self, data: bytes, *, head: bool = False) -> Response:
        await self.send(data)
        return await self.read_response(head=head)

    async def read_response(self, *, head: bool = False) -> Response:
        """Read one final response; `head` says that it responds to a HEAD.

        Raises `TruncatedResponseError`.
        """
        while True:
            status, headers = await self._head()
            if status >= 200:
                break
        reply = Response(status, headers, b"")
        if not head and status not in (204, 304):
            reply.body = await self._body(reply)
        return reply

    async def read_interim_status(self) -> int:
        """Read the head of the next response, also of an interim one, and return its status."""
        return (await self._head())[0]

    async def at_end(self) -> bool:
        """Return whether the gateway closes the connection and sends nothing more."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    async def _head(self) -> tuple[int, list[tuple[str, str]]]:
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise TruncatedResponseError(error.partial) from None
        except ConnectionError:
            raise TruncatedResponseError(b"") from None
        line, *fields = raw[:-4].decode("latin-1").split("\r\n")
        return int(line.split(" ")[1]), [tuple(each.split(": ", 1)) for each in fields]  # type: ignore[misc]

    async def _body(self, reply: Response) -> bytes:
        received = b""
        try:
            if reply.header("transfer-encoding") == "chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    received += await self.reader.readexactly(size)
                    await self.reader.readexactly(2)
                await self.reader.readexactly(2)
                return received
            length = reply.header("content-length")
            assert length is not None, "an answer without framing"
            return await self.reader.readexactly(int(length))
        except asyncio.IncompleteReadError as error:
            raise TruncatedResponseError(received + error.partial) from None
        except ConnectionError:
            raise TruncatedResponseError(received) from None


def close_by_reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def get(target: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: gateway", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def post(target: str, body: bytes, *headers: str, method: str = "POST") -> bytes:
    """Return a request with a Content-Length; its type is FHIR JSON unless `headers` set it."""
    typed = any(header.lower().startswith("content-type:") for header in headers)
    kind = () if typed else ("Content-Type: application/fhir+json",)
    length = f"Content-Length: {len(body)}"
    return get(target, *kind, length, *headers, method=method) + body


async def fetch(address: Any, data: bytes, *, head: bool = False) -> Response:
    """Send one request on a new connection and return its response."""
    async with await Wire.open(address) as wire:
        return await wire.fetch(data, head=head)
