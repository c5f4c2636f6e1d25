"""A platform's answer on its way to the caller: its head and what has arrived of its body."""

from __future__ import annotations

import math
import time
from typing import Final

from gateway.http.client.connection import UpstreamConnection
from gateway.http.client.framing import Framing, ResponseHead
from gateway.http.client.pool import UpstreamPool
from gateway.http.client.response_header import ResponseFields
from gateway.http.content_coding import parse_content_encoding
from gateway.http.slow_readers import SlowReaders

# So much of a body is awaited before its first byte goes on: up to here a broken answer still
# becomes a clean 502, and a read can be repeated.
PREFETCH: Final = 64 * 1024
# An answer that only trickles goes on after so many seconds as it comes.
_TRICKLE: Final = 2.0


class UpstreamResponse:
    """Owns its connection, if it has one, until it was read to the end or closed; then `pool` does.

    `content_coding` as `parse_content_encoding` calls it, `content_length` as announced, also for
    HEAD.
    """

    __slots__ = (
        *("_connection", "_chunks", "_pool"),
        *("content_coding", "content_length", "content_type", "fields", "framing", "status"),
    )

    def __init__(
        self,
        head: ResponseHead,
        connection: UpstreamConnection | None = None,
        pool: UpstreamPool | None = None,
    ) -> None:
        self.status = head.status
        self.framing = head.framing
        self.content_length = head.content_length
        self.fields = head.fields
        self.content_type = self.field(b"content-type")
        self.content_coding = parse_content_encoding(self.field(b"content-encoding"))
        self._connection = connection
        self._pool = pool
        self._chunks: list[bytes] = []

    @classmethod
    def synthetic(
        cls, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b""
    ) -> UpstreamResponse:
        """An answer of the gateway's own, in the platform's place."""
        head = ResponseHead(status, ResponseFields.from_pairs(headers), Framing.LENGTH, len(body))
        answer = cls(head)
        answer._chunks.append(body)
        return answer

    def field(self, name: bytes) -> str | None:
        """A field's first value as text; `name` in lower case."""
        value = self.fields.values.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def is_complete(self) -> bool:
        """Whether all of the body is in memory."""
        return self._connection is None

    @property
    def slow_readers(self) -> SlowReaders | None:
        """Whom its reader belongs to while a connection is held for it."""
        return None if self._connection is None or self._pool is None else self._pool.slow_readers

    @property
    def buffered_body(self) -> bytes:
        """What is in memory of the body and was not read yet."""
        if len(self._chunks) != 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0]

    def take_complete_body(self) -> bool:
        """Take the whole body, if it has arrived already. Only to be called first."""
        connection = self._connection
        if connection is None:
            return True
        if not connection.complete:
            return False
        self._chunks = connection.take_chunks()
        self._release_connection()
        return True

    async def prefetch(self, limit: int = PREFETCH) -> None:
        """Wait for the whole body or its first `limit` bytes. Raises `UpstreamConnectionError`.

        Up to `PREFETCH` bytes a body that trickles is not waited for longer than a moment.
        """
        size = sum(map(len, self._chunks))
        patience = _TRICKLE if limit <= PREFETCH else math.inf
        given_up = time.monotonic() + patience
        while self._connection is not None and size < limit:
            pieces = await self._receive(self._connection)
            size += sum(map(len, pieces))
            if pieces:
                self._chunks += pieces
                if time.monotonic() >= given_up:
                    return

    async def read(self) -> bytes:
        """What arrived of the body, b"" at the end. Raises `UpstreamConnectionError`."""
        return b"".join(await self.read_chunks())

    async def read_chunks(self) -> list[bytes]:
        """The same without putting the pieces together; none at the end.

        Raises `UpstreamConnectionError`.
        """
        pieces, self._chunks = self._chunks, []
        if any(pieces):
            return pieces
        return [] if self._connection is None else await self._receive(self._connection)

    async def _receive(self, connection: UpstreamConnection) -> list[bytes]:
        pieces = await connection.read()
        if connection.complete and not connection.has_pending_body:
            self._release_connection()
        return pieces

    def close(self) -> None:
        """Let go of the connection; it is kept only if the answer was read to its end."""
        self._release_connection()

    def _release_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._pool is not None:
            self._pool.release(connection)
