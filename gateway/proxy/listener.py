"""The callers' side: aiohttp's low-level server, told to hand over raw bytes and to stay silent.

aiohttp parses and queues; what its parser refuses, what takes too long and what it would answer in
plain text is answered by the gateway instead. Nothing here decides where a request goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiohttp import StreamReader, web
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import ERROR, RequestHandler, RequestPayloadError, _ErrInfo

from gateway import errors, system
from gateway.errors import GatewayError
from gateway.proxy import refusals
from gateway.proxy.callers import Peer, peer_of
from gateway.proxy.incoming import Answered, IncomingRequest

_SWEEP_INTERVAL: Final = 0.25
_KEEP_ALIVE: Final = 75.0
# How long an answered connection stays open for what the caller is still sending: closing at once
# would reset it, and the reset could erase the answer (RFC 9112 section 9.6).
_LINGER: Final = 1.0
# How long a connection that was let in may take to say what it wants, when others wait for its
# place or for the end.
_FIRST_REQUEST: Final = 1.0


@dataclass(frozen=True, slots=True)
class ListenLimits:
    """What a caller may send before it is refused: sizes in bytes, times in seconds."""

    url_bytes: int
    header_bytes: int
    headers: int
    header_timeout: float

    @property
    def all_header_bytes(self) -> int:
        """All fields together."""
        return 4 * self.header_bytes


class RequestSink(Protocol):
    """The handler, as the listener sees it."""

    async def handle(self, request: IncomingRequest) -> Answered:
        """Answer one request."""
        ...

    async def refuse(self, request: IncomingRequest, error: GatewayError) -> Answered:
        """Answer what could not be parsed."""
        ...


class CallerConnection(RequestHandler):
    """One connection of a caller."""

    __slots__ = (
        "_broken_body",
        "_discarding",
        "_head_bytes",
        "_header_since",
        "_on_lost",
        "_peer_done",
        "_sink",
        "_writable",
        "kept",
        "opened_at",
        "payload",
        "peer",
        "secure",
    )

    def __init__(self, server: CallerServer, sink: RequestSink, **options: Any) -> None:
        super().__init__(server, **options)
        self._sink = sink
        self._header_since: float | None = None
        self._head_bytes = b""
        self._discarding = False
        self._broken_body: StreamReader | None = None
        self._peer_done: asyncio.Event | None = None
        self._writable: asyncio.Future[None] | None = None
        self._on_lost: Callable[[], None] | None = None
        self.peer = Peer("")
        self.secure = False
        self.kept = False
        self.opened_at = 0.0
        # Of the request under way, set when it is made.
        self.payload = EMPTY_PAYLOAD

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who it is; the time for the first header runs from here."""
        self.peer = peer_of(transport)
        self.secure = transport.get_extra_info("sslcontext") is not None
        self.opened_at = self._loop.time()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Parse, and note since when a header is incomplete."""
        if self._discarding:
            return
        # These may be the rest of a body, which has its own clock.
        in_body = not self.payload.is_eof()
        # Only a refused message looks at these bytes again.
        self._head_bytes = data[:64] if self._header_since is None else self._head_bytes
        super().data_received(data)
        if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
            self._break_body()
        if in_body or self.busy or self._messages:
            self._header_since = None
        elif data and self._header_since is None:
            self._header_since = self._loop.time()

    def eof_received(self) -> None:
        """The caller sends no more; one that left and one that half-closed look the same here."""
        if self._peer_done is not None:
            self._peer_done.set()
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the exchange in flight, if it wants to know."""
        if self._peer_done is not None:
            self._peer_done.set()
        super().connection_lost(exc)
        self._wake_writer()
        if self._on_lost is not None:
            self._on_lost()

    def _break_body(self) -> None:
        """Tell who reads the body in which the parser failed; aiohttp leaves it waiting."""
        for payload in (self.payload, *(payload for _, payload in self._messages)):
            if not payload.is_eof():
                payload.set_exception(RequestPayloadError("broken"))
                self._broken_body = payload

    # What the handler and the server call.

    @property
    def busy(self) -> bool:
        """Whether an exchange is under way."""
        return self._request_in_progress

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What serves this connection."""
        return self._task_handler

    @property
    def queued(self) -> bool:
        """Whether further requests were read already and wait for their turn."""
        return bool(self._messages)

    def idle(self, now: float) -> bool:
        """Whether nothing is under way and nothing has begun to arrive, for a moment at least."""
        if self.transport is None or self.transport.is_closing():
            return False
        if self.busy or self._messages or self._header_since is not None:
            return False
        return self.kept or now - self.opened_at > _FIRST_REQUEST

    def unfinished(self, now: float) -> bool:
        """Whether the gateway owes something here.

        An answer, the rest of one that a slow caller has not taken yet, or, for a moment, the
        chance to send the first request on a connection that was accepted.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return self.busy
        if self.busy or self._messages or transport.get_write_buffer_size():
            return True
        began = self.opened_at if not self.kept else self._header_since
        return began is not None and now - began < _FIRST_REQUEST

    def notify_lost(self, callback: Callable[[], None] | None) -> None:
        """Call back when the connection is lost; None takes that back."""
        self._on_lost = callback

    def abort(self, *, reset: bool = False) -> None:
        """End the connection so that no answer looks complete; `reset` sends RST.

        A caller of HTTP/1.0 cannot tell a cut answer from a complete one by a plain end.
        """
        transport = self.transport
        if transport is None:
            return
        raw = transport.get_extra_info("socket")
        if reset and raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, system.RESET_ON_CLOSE)
        self._force_close = True
        transport.abort()

    async def drained(self) -> None:
        """Wait until the transport takes more or is lost.

        aiohttp's own way to wait cannot be tried again after a time-out.
        """
        self._writable = self._loop.create_future()
        if self._paused and self.transport is not None:
            await self._writable

    def resume_writing(self) -> None:
        """The transport takes more (asyncio.Protocol)."""
        super().resume_writing()
        self._wake_writer()

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    async def linger(self) -> None:
        """Half-close and discard what still comes, for a moment."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self._discarding = True
        if self._broken_body is not None:
            # Or aiohttp would read on, to drain it.
            self._broken_body.feed_eof()
        self._resume_transport_reading()
        self._peer_done = asyncio.Event()
        # The caller may have reset the connection a moment ago.
        with contextlib.suppress(OSError):
            if transport.can_write_eof():
                transport.write_eof()
            async with asyncio.timeout(_LINGER):
                await self._peer_done.wait()

    @property
    def unsent(self) -> int:
        """How many bytes wait to be taken by the caller, those in the kernel included."""
        transport = self.transport
        if transport is None:
            return 0
        return transport.get_write_buffer_size() + _queued(transport.get_extra_info("socket"))

    def overdue(self, now: float, header_timeout: float) -> bool:
        """Whether a header has been incomplete for too long."""
        since = self._header_since
        return since is not None and not self.busy and now - since > header_timeout

    def silent(self, now: float, header_timeout: float) -> bool:
        """Whether nothing at all has come since the connection was made, for too long."""
        began = self.kept or self.busy or self._messages or self._header_since is not None
        return not began and now - self.opened_at > header_timeout

    def refuse_header(self) -> None:
        """Answer a header that did not come in time, and close."""
        self._header_since = None
        self._discarding = True
        error = GatewayError(errors.HEADER_TIMEOUT, "incomplete header", close=True)
        server = self._manager
        if isinstance(server, CallerServer):
            server.spawn(self._refuse_and_close(error))

    async def _refuse_and_close(self, error: GatewayError) -> None:
        request = IncomingRequest(ERROR, EMPTY_PAYLOAD, self)
        answered = await self._sink.refuse(request, error)
        await answered.write_eof()
        self.force_close()

    def handle_error(
        self,
        request: Any,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> Any:
        """Replaced by `_make_error_handler`; what still arrives here is a bug of ours."""
        self.force_close()
        raise ConnectionError("the handler failed")

    def _make_error_handler(self, err_info: Any) -> Callable[[Any], Awaitable[Any]]:
        """Answer what the parser refused, without echoing any of it."""
        error = refusals.translate(err_info.exc, self._head_bytes)

        async def refuse(request: IncomingRequest) -> Answered:
            return await self._sink.refuse(request, error)

        return refuse


def _queued(raw: Any) -> int:
    """Bytes that the kernel has not delivered yet, where it tells."""
    try:
        return 0 if raw is None else system.unacknowledged(raw)
    except (OSError, ValueError):
        return 0


class CallerServer(web.Server):
    """Makes connections and looks after those that keep their header to themselves."""

    def __init__(self, sink: RequestSink, limits: ListenLimits) -> None:
        super().__init__(
            sink.handle,  # type: ignore[arg-type]
            request_factory=IncomingRequest,  # type: ignore[arg-type]
            handler_cancellation=False,
        )
        self._sink = sink
        self.limits = limits  # of connections to come
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._sweep()

    def __call__(self) -> CallerConnection:
        """A connection with our limits; aiohttp's factory would drop them all after one typo."""
        return CallerConnection(
            self,
            self._sink,
            loop=self._loop,
            keepalive_timeout=_KEEP_ALIVE,
            access_log=None,
            max_line_size=self.limits.url_bytes,
            max_field_size=self.limits.header_bytes,
            max_headers=self.limits.headers,
            auto_decompress=False,
            lingering_time=_LINGER,
        )

    @property
    def open_connections(self) -> int:
        """How many callers are connected."""
        return len(self._connections)

    @property
    def unfinished(self) -> int:
        """On how many connections the gateway still owes something."""
        now = self._loop.time()
        return sum(
            isinstance(connection, CallerConnection) and connection.unfinished(now)
            for connection in self._connections
        )

    def drop_idle(self) -> bool:
        """Close the longest open of the idle connections to make room; False if there is none."""
        now = self._loop.time()
        for connection in self._connections:
            if isinstance(connection, CallerConnection) and connection.idle(now):
                connection.force_close()
                return True
        return False

    async def abort_exchanges(self) -> None:
        """Cancel every exchange in flight, and wait until each is accounted for."""
        tasks = [
            connection.task
            for connection in self._connections
            if isinstance(connection, CallerConnection) and connection.busy
        ]
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)

    def spawn(self, work: Any) -> None:
        """Run a coroutine that the server owns."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stop_sweep(self) -> None:
        """No more looking after deadlines; called when the server closes."""
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        now = self._loop.time()
        timeout = self.limits.header_timeout
        for connection in self.connections:
            if not isinstance(connection, CallerConnection):
                continue
            if connection.overdue(now, timeout):
                connection.refuse_header()
            elif connection.silent(now, timeout):
                connection.force_close()
        self._timer = self._loop.call_later(_SWEEP_INTERVAL, self._sweep)
