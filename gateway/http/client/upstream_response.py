"""A platform's response on its way to the caller, with what has arrived of its body."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from gateway.http.client.response_head import Framing, ResponseFields, ResponseHead
from gateway.http.content_coding import parse_content_encoding

if TYPE_CHECKING:
    from gateway.http.client.upstream_connection import UpstreamConnection
    from gateway.http.client.upstream_pool import UpstreamPool
    from gateway.http.slow_readers import SlowReaders

# Bytes of a body that are awaited before its first byte is forwarded: until then a broken response
# still becomes a clean 502, and a read can be retried.
PREFETCH: Final = 64 * 1024
# Seconds after which a response that arrives slowly is forwarded as it arrives.
_PREFETCH_TIMEOUT: Final = 2.0


class UpstreamResponse:
    """A platform's response, or one in its place.

    It holds its connection, if it has one, until the body was received completely or `close` is
    called; then the connection is released to `pool`. `content_coding` is named as by
    `parse_content_encoding`, `content_length` is as announced, also for HEAD.
    """

    __slots__ = (
        "_chunks",
        "_connection",
        "_pool",
        "content_coding",
        "content_length",
        "content_type",
        "fields",
        "framing",
        "status",
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
        if self.content_coding is not None or self.status == 304:
            self.fields.restore_etag()
        self._connection = connection
        self._pool = pool
        self._chunks: list[bytes] = []

    @classmethod
    def synthetic(
        cls, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b""
    ) -> UpstreamResponse:
        """Return a response that the gateway itself creates in place of the platform's."""
        head = ResponseHead(status, ResponseFields.from_pairs(headers), Framing.LENGTH, len(body))
        response = cls(head)
        response._chunks.append(body)
        return response

    def field(self, name: bytes) -> str | None:
        """Return a field's first value as text, or None; `name` is in lower case."""
        value = self.fields.values.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def is_complete(self) -> bool:
        """Whether all of the body has been received, so that no connection is held."""
        return self._connection is None

    @property
    def slow_readers(self) -> SlowReaders | None:
        """Where the reader of this response is registered, None if no connection is held."""
        return None if self._connection is None or self._pool is None else self._pool.slow_readers

    @property
    def buffered_body(self) -> bytes:
        """The part of the body that is buffered and was not read yet."""
        if len(self._chunks) != 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0]

    def take_complete_body(self) -> bool:
        """Buffer the body and release the connection if it has arrived completely.

        Return whether it has. Must be called before any other method that reads.
        """
        connection = self._connection
        if connection is not None and connection.complete:
            self._chunks = connection.take_chunks()
            self.close()
        return self._connection is None

    async def prefetch(self, limit: int = PREFETCH) -> None:
        """Wait for the complete body or its first `limit` bytes. Raises `UpstreamConnectionError`.

        With a `limit` of at most `PREFETCH`, the wait for a body that arrives slowly ends after
        about two seconds.
        """
        size = sum(map(len, self._chunks))
        timeout = _PREFETCH_TIMEOUT if limit <= PREFETCH else math.inf
        connection = self._connection
        if connection is None:
            return
        deadline = connection.clock() + timeout
        while not self.is_complete and size < limit:
            chunks = await self._receive(connection)
            size += sum(map(len, chunks))
            if chunks:
                self._chunks += chunks
                if connection.clock() >= deadline:
                    return

    async def read(self) -> bytes:
        """Return the next bytes of the body, b"" at the end. Raises `UpstreamConnectionError`."""
        return b"".join(await self.read_chunks())

    async def read_chunks(self) -> list[bytes]:
        """Return the next chunks of the body without joining them, [] at the end.

        Raises `UpstreamConnectionError`.
        """
        chunks, self._chunks = self._chunks, []
        if any(chunks):
            return chunks
        return [] if self._connection is None else await self._receive(self._connection)

    async def _receive(self, connection: UpstreamConnection) -> list[bytes]:
        chunks = await connection.read()
        if connection.complete:
            self.close()
        return chunks

    def close(self) -> None:
        """Release the connection; it is reused only if the response was received completely."""
        connection, self._connection = self._connection, None
        if connection is not None and self._pool is not None:
            self._pool.release(connection)
