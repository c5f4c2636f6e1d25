"""What the listener hands to the handler and gets back, in the place of aiohttp's own objects."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import StreamReader
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD

if TYPE_CHECKING:
    from gateway.proxy.listener import CallerConnection


class IncomingRequest:
    """A parsed request as the handler wants it; in the place of aiohttp's own request object."""

    __slots__ = ("_task", "connection", "message", "payload")

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        connection: CallerConnection,
        _writer: AbstractStreamWriter | None = None,
        task: asyncio.Task[None] | None = None,
    ) -> None:
        self.message = message
        self.payload = connection.payload = payload
        self.connection = connection
        self._task = task

    @property
    def has_body(self) -> bool:
        """Whether the message announced a body."""
        return self.payload is not EMPTY_PAYLOAD

    @property
    def remote(self) -> str:
        """The address of the caller's end of the connection; "unix" for a unix socket."""
        return self.connection.peer.address

    @property
    def fresh(self) -> bool:
        """Whether it is the first one on its connection."""
        return not self.connection.kept

    @property
    def scheme(self) -> str:
        """`https` when it came over TLS, else `http`."""
        return "https" if self.connection.secure else "http"

    def _finish(self) -> None:
        """aiohttp tells that the handler is done; there is nothing to clear."""

    def _cancel(self, exc: BaseException) -> None:
        """aiohttp tells that the connection is lost: whoever reads the body learns it."""
        # A body that arrived in full is not lost with the connection: a write takes its course.
        if not self.payload.is_eof():
            self.payload.set_exception(exc)


class Answered:
    """What the handler returns to aiohttp: everything is on the wire already."""

    __slots__ = ("_connection", "keep_alive")

    def __init__(self, connection: CallerConnection, *, keep_alive: bool) -> None:
        self._connection = connection
        self.keep_alive = keep_alive

    async def prepare(self, _request: object) -> None:
        """Nothing is left to send; what comes next is a further request."""
        self._connection.kept = True

    async def write_eof(self) -> None:
        """Before the connection closes, give the caller time to read the answer."""
        if not self.keep_alive:
            await self._connection.linger()
