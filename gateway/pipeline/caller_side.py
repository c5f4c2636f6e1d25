"""Writes to a caller's connection, for one exchange at a time."""

from __future__ import annotations

import asyncio

from gateway.http.server.aiohttp_parser import HttpVersion11
from gateway.http.server.connection import CallerConnection, IncomingRequest
from gateway.http.server.messages import ConnectionDisposition
from gateway.http.slow_readers import ResponseReader, SlowReaders
from gateway.pipeline.admission import Admission
from gateway.pipeline.own_replies import LocalResponder
from gateway.pipeline.request_body import CallerDisconnectedError, MemoryBudget


class DownstreamWriter:
    """The downstream connection for the duration of one exchange.

    * `admission` shows, when the response head is written, whether the gateway is shutting down.
    * `stall_timeout`: seconds for which a caller may read nothing at all of the unsent bytes.
    * `extra_field_lines`: field lines that are added to every response of the exchange.
    * `expired_session_responder`: responds to a signed-in user in place of caller-unauthenticated.
    """

    __slots__ = (
        *("_admission", "_keep_alive", "_slow_reader", "_request", "_stall_timeout"),
        *(
            "caller",
            "is_head_request",
            "is_http10",
            "extra_field_lines",
            "expired_session_responder",
            "slow_readers",
            "has_started",
        ),
    )

    def __init__(
        self,
        request: IncomingRequest,
        admission: Admission,
        *,
        stall_timeout: float,
        extra_field_lines: bytes = b"",
        expired_session_responder: LocalResponder | None = None,
    ) -> None:
        message = request.message
        self._request = request
        self._admission = admission
        self._stall_timeout = stall_timeout
        self._keep_alive = not message.should_close
        version = message.version
        self.is_http10 = version is not HttpVersion11 and version < HttpVersion11
        request.connection.aborts_by_reset = self.is_http10
        self.is_head_request = message.method == "HEAD"
        self.extra_field_lines = extra_field_lines
        self.expired_session_responder = expired_session_responder
        self.has_started = False
        # Set while this exchange holds an upstream connection.
        self.slow_readers: SlowReaders | None = None
        self.caller = ""
        self._slow_reader: ResponseReader | None = None

    @property
    def buffer_budget(self) -> MemoryBudget:
        """The memory budget shared by responses that are buffered for HTTP/1.0 callers."""
        return self._admission.buffer_budget

    def is_closed(self) -> bool:
        """Return whether the connection is closed, so that no response can be read any more."""
        transport = self._request.connection.transport
        return transport is None or transport.is_closing()

    def is_half_closed(self) -> bool:
        """Return whether the caller has half-closed: it sends no more.

        Whether it still reads is known only after a write.
        """
        return self._request.connection.is_half_closed

    def close_after_response(self) -> None:
        """Close the connection after this response."""
        self._keep_alive = False

    def abort(self) -> None:
        """Abort the connection so that a truncated response does not look complete."""
        self._keep_alive = False
        self._request.connection.abort()

    def send_100_continue(self) -> None:
        """Send 100 Continue to a caller that withholds its body (RFC 9110 section 10.1.1)."""
        if not self.has_started and not self.is_http10:
            self._request.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def write(self, data: bytes) -> None:
        """Write bytes to the transport. Raises `CallerDisconnectedError`."""
        self._start_response().write(data)

    def write_message(self, message: bytes) -> None:
        """Write a complete response to the transport. Raises `CallerDisconnectedError`."""
        self._start_response().write_batched(message)

    def _start_response(self) -> CallerConnection:
        connection = self._request.connection
        transport = connection.transport
        if transport is None or transport.is_closing():
            raise CallerDisconnectedError
        self.has_started = connection.has_started_response = True
        return connection

    @property
    def is_write_paused(self) -> bool:
        """Whether writing is paused until the caller has read more of what was written."""
        return self._request.connection.is_write_paused

    async def drain(self) -> None:
        """Wait until a slow caller has read enough.

        Raises `CallerDisconnectedError`, also after `stall_timeout` seconds without progress.
        """
        readers = self.slow_readers
        if readers is None:
            await self._drained()
            return
        reader = self._slow_reader
        if reader is None:
            connection = self._request.connection
            reader = self._slow_reader = ResponseReader(connection, self.caller)
        readers.add(reader)
        try:
            await self._drained()
        finally:
            readers.remove(reader)

    async def _drained(self) -> None:
        connection = self._request.connection
        while connection.is_write_paused:
            if connection.transport is None:
                raise CallerDisconnectedError
            unsent_before = connection.unsent_bytes
            try:
                async with asyncio.timeout(self._stall_timeout):
                    await connection.drain()
            except TimeoutError:
                # A slow caller is allowed, also on a slow network; only one that reads nothing at
                # all is disconnected.
                if connection.unsent_bytes >= unsent_before:
                    self.abort()
                    raise CallerDisconnectedError from None

    def connection_field(self) -> bytes:
        """Return the Connection field line, which announces what follows (RFC 9112 section 9.3)."""
        # A body that was not read would be parsed as the next request. During shutdown, pipelined
        # requests are still answered.
        connection = self._request.connection
        closing = self._admission.is_draining() and not connection.has_pipelined_requests
        if closing or connection.is_last_request or not self._request.payload.is_eof():
            self._keep_alive = False
        if not self._keep_alive:
            return b"Connection: close\r\n"
        return connection.keep_alive_lines

    async def await_delivery(self) -> ConnectionDisposition:
        """Wait until everything written is sent; return the connection's disposition.

        Raises `CallerDisconnectedError` if the caller was gone before it could read the response.
        """
        if self.is_write_paused:
            await self.drain()
        connection = self._request.connection
        if connection.is_half_closed and await connection.has_left():
            raise CallerDisconnectedError
        return self.finish()

    def finish(self) -> ConnectionDisposition:
        """Return whether the connection is kept or closed after this exchange."""
        return ConnectionDisposition.KEEP_ALIVE if self._keep_alive else ConnectionDisposition.CLOSE
