"""A caller's connection as answers are written to it: by one exchange at a time."""

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
    """One caller's connection for the time of one exchange, and how to speak to it.

    `admission` tells, when the answer's header is written, whether the gateway is about to end.
    `stall` is how long, in seconds, a caller may take nothing at all of what waits.
    `extra_field_lines` are fields for every answer of the exchange; `expired_session_responder` is
    what a person is told in the place of caller-unauthenticated.
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
        stall: float,
        lines: bytes = b"",
        login_expired: LocalResponder | None = None,
    ) -> None:
        message = request.message
        self._request = request
        self._admission = admission
        self._stall_timeout = stall
        self._keep_alive = not message.should_close
        version = message.version
        self.is_http10 = version is not HttpVersion11 and version < HttpVersion11
        request.connection.aborts_by_reset = self.is_http10
        self.is_head_request = message.method == "HEAD"
        self.extra_field_lines = lines
        self.expired_session_responder = login_expired
        self.has_started = False
        # Set while a connection to the platform is held for this caller.
        self.slow_readers: SlowReaders | None = None
        self.caller = ""
        self._slow_reader: ResponseReader | None = None

    @property
    def buffer_budget(self) -> MemoryBudget:
        """The memory that answers share which are collected for callers of HTTP/1.0."""
        return self._admission.buffer_budget

    def is_closed(self) -> bool:
        """Whether nobody is there any more to read an answer."""
        transport = self._request.connection.transport
        return transport is None or transport.is_closing()

    def is_half_closed(self) -> bool:
        """Whether that cannot be told without writing: it sends no more."""
        return self._request.connection.is_half_closed

    def close_after_response(self) -> None:
        """Let this answer be the connection's last one."""
        self._keep_alive = False

    def abort(self) -> None:
        """End the connection so that nothing sent looks complete."""
        self._keep_alive = False
        self._request.connection.abort()

    def send_100_continue(self) -> None:
        """Ask for a body that the caller holds back (RFC 9110 section 10.1.1)."""
        if not self.has_started and not self.is_http10:
            self._request.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport. Raises `CallerDisconnectedError`."""
        self._start_response().write(data)

    def write_message(self, message: bytes) -> None:
        """Hand an answer that is whole to the transport. Raises `CallerDisconnectedError`."""
        self._start_response().write_batched(message)

    def _start_response(self) -> CallerConnection:
        connection = self._request.connection
        transport = connection.transport
        if transport is None or transport.is_closing():
            raise CallerDisconnectedError
        self.has_started = connection.answering = True
        return connection

    @property
    def is_write_paused(self) -> bool:
        """Whether the caller has yet to take what was written."""
        return self._request.connection.is_write_paused

    async def drain(self) -> None:
        """Wait until a slow caller took enough.

        Raises `CallerDisconnectedError`, also after a long stall.
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
            waiting = connection.unsent_bytes
            try:
                async with asyncio.timeout(self._stall_timeout):
                    await connection.drain()
            except TimeoutError:
                # Slow is allowed, on a bad line as well; only who takes nothing is given up.
                if connection.unsent_bytes >= waiting:
                    self.abort()
                    raise CallerDisconnectedError from None

    def connection_field(self) -> bytes:
        """The Connection field that tells the caller what happens next (RFC 9112 section 9.3)."""
        # A body that was not read would be taken for the next request. At the end of the gateway
        # requests that were sent ahead are still answered.
        connection = self._request.connection
        closing = self._admission.is_draining() and not connection.has_pipelined_requests
        if closing or connection.is_last_request or not self._request.payload.is_eof():
            self._keep_alive = False
        if not self._keep_alive:
            return b"Connection: close\r\n"
        return connection.keep_alive_lines

    async def await_delivery(self) -> ConnectionDisposition:
        """Everything is written. Raises `CallerDisconnectedError` where that reached nobody."""
        if self.is_write_paused:
            await self.drain()
        connection = self._request.connection
        if connection.is_half_closed and await connection.has_left():
            raise CallerDisconnectedError
        return self.finish()

    def finish(self) -> ConnectionDisposition:
        """How it goes on with the connection."""
        return ConnectionDisposition.KEEP_ALIVE if self._keep_alive else ConnectionDisposition.CLOSE
