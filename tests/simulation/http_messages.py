"""HTTP/1.1 messages of the simulated hosts, which read what the gateway and callers write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """A complete message: its start line, its body, its fields with names in lower
    case: the first of each name.
    """

    start: str
    fields: dict[str, str]
    body: bytes

    @property
    def method(self) -> str:
        return self.start.partition(" ")[0]

    @property
    def target(self) -> str:
        return self.start.split(" ")[1]

    @property
    def status(self) -> int:
        return int(self.start.split(" ")[1])


class MessageReader:
    """Collects bytes to messages. Raises ValueError for what is no HTTP."""

    def __init__(self) -> None:
        self._data = b""

    @property
    def has_part(self) -> bool:
        """Whether a message has begun and is not complete."""
        return bool(self._data)

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes, yield the messages that they complete."""
        self._data += data
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> Message | None:
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            return None
        start, *lines = head.decode("latin-1").split("\r\n")
        fields = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields.setdefault(name.strip().lower(), value.strip())
        if "chunked" in fields.get("transfer-encoding", ""):
            found = _dechunked(rest)
        else:
            length = int(fields.get("content-length", "0"))
            found = (rest[:length], rest[length:]) if len(rest) >= length else None
        if found is None:
            return None
        body, self._data = found
        return Message(start, fields, body)


def _dechunked(data: bytes) -> tuple[bytes, bytes] | None:
    """Return the content of a complete chunked body and what follows it."""
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            return None
        size = int(line.partition(b";")[0], 16)
        if len(data) < size + 2:
            return None
        body += data[:size]
        data = data[size + 2 :]
        if size == 0:
            return body, data


def response(status: int, body: bytes, *fields: str, kind: str = "application/fhir+json") -> bytes:
    """Return a response with its length."""
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *fields]
    if body:
        lines.append(f"Content-Type: {kind}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def request(method: str, target: str, host: str, body: bytes, *fields: str) -> bytes:
    """Return a request with its length."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
    if body:
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/fhir+json"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
