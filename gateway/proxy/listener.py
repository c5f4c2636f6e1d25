"""The callers' side: aiohttp's low-level server, told to hand over raw bytes and to stay silent.

aiohttp parses and queues; what its parser refuses, what takes too long and what it would answer in
plain text is answered by the gateway instead. Nothing here decides where a request goes.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import ERROR, RequestHandler

from gateway import errors
from gateway.errors import GatewayError
from gateway.proxy import strict
from gateway.proxy.callers import Peer, certificate_names

_SWEEP_INTERVAL: Final = 0.25
_KEEP_ALIVE: Final = 75.0
# How long an answered connection stays open for what the caller is still sending: closing at once
# would reset it, and the reset could erase the answer (RFC 9112 section 9.6).
_LINGER: Final = 1.0
_ORIGIN_FORM = re.compile(rb"\r*\n*[!#$%&'*+\-.^_`|~0-9A-Za-z]+ /[^ \r\n]* HTTP/1\.[01]\r\n")


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
        self.payload = payload
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

    def _finish(self) -> None:
        """aiohttp tells that the handler is done; there is nothing to clear."""

    def _cancel(self, exc: BaseException) -> None:
        """aiohttp tells that the connection is lost: whoever reads the body learns it."""
        if self.has_body:
            self.payload.set_exception(exc)


class Answered:
    """What the handler returns to aiohttp: everything is on the wire already."""

    __slots__ = ("_connection", "keep_alive")

    def __init__(self, connection: CallerConnection, *, keep_alive: bool) -> None:
        self._connection = connection
        self.keep_alive = keep_alive

    async def prepare(self, _request: object) -> None:
        """Nothing is left to send."""

    async def write_eof(self) -> None:
        """Before the connection closes, give the caller time to read the answer."""
        if not self.keep_alive:
            await self._connection.linger()


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
        "_discarding",
        "_head_bytes",
        "_header_since",
        "_on_lost",
        "_peer_done",
        "_sink",
        "peer",
    )

    def __init__(self, server: CallerServer, sink: RequestSink, **options: Any) -> None:
        super().__init__(server, **options)
        self._sink = sink
        self._header_since: float | None = None
        self._head_bytes = b""
        self._discarding = False
        self._peer_done: asyncio.Event | None = None
        self._on_lost: Callable[[], None] | None = None
        self.peer = Peer("")

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who it is; the time for the first header runs from here."""
        self.peer = _peer(transport)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Parse, and note since when a header is incomplete."""
        if self._discarding:
            return
        # Only a refused message looks at these bytes again.
        self._head_bytes = data[:64] if self._header_since is None else self._head_bytes
        super().data_received(data)
        if self.busy or self._messages:
            self._header_since = None
        elif data and self._header_since is None:
            self._header_since = self._loop.time()

    def eof_received(self) -> None:
        """The caller sends no more."""
        if self._peer_done is not None:
            self._peer_done.set()
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the exchange in flight, if it wants to know."""
        if self._peer_done is not None:
            self._peer_done.set()
        super().connection_lost(exc)
        if self._on_lost is not None:
            self._on_lost()

    # What the handler and the server call.

    @property
    def busy(self) -> bool:
        """Whether an exchange is under way."""
        return self._request_in_progress

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
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._force_close = True
        transport.abort()

    async def drained(self) -> None:
        """Wait until the transport takes more. Raises ConnectionError when it is lost."""
        await self._drain_helper()

    async def linger(self) -> None:
        """Half-close and discard what still comes, for a moment."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self._discarding = True
        self._resume_transport_reading()
        self._peer_done = asyncio.Event()
        if transport.can_write_eof():
            transport.write_eof()
        try:
            async with asyncio.timeout(_LINGER):
                await self._peer_done.wait()
        except TimeoutError:
            pass

    def overdue(self, now: float, header_timeout: float) -> bool:
        """Whether a header has been incomplete for too long."""
        since = self._header_since
        return since is not None and not self.busy and now - since > header_timeout

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
        error = self._translate(err_info.exc)

        async def refuse(request: IncomingRequest) -> Answered:
            return await self._sink.refuse(request, error)

        return refuse

    def _translate(self, exc: BaseException) -> GatewayError:
        text = str(exc)
        if isinstance(exc, LineTooLong):
            reason = errors.URL_TOO_LONG if _is_target(exc) else errors.HEADER_TOO_LARGE
            return GatewayError(reason, "line over the limit", close=True)
        if "Too many headers" in text:
            return GatewayError(errors.HEADER_TOO_LARGE, "too many fields", close=True)
        if "Invalid method" in text and _ORIGIN_FORM.match(self._head_bytes):
            return strict.unknown_method()
        return GatewayError(errors.BAD_REQUEST, type(exc).__name__, hint="HTTP message", close=True)


def _peer(transport: asyncio.BaseTransport) -> Peer:
    name = transport.get_extra_info("peername")
    address = name[0] if isinstance(name, tuple) and name else "unix"
    tls = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert() if tls is not None else None
    return Peer(address, certificate_names(certificate) if certificate else frozenset())


def _is_target(exc: LineTooLong) -> bool:
    """Whether the overlong line is the request target; aiohttp says so only in its first byte."""
    line = exc.args[0] if exc.args else b""
    return bytes(line[:1]) == b"/"


class CallerServer(web.Server):
    """Makes connections and looks after those that keep their header to themselves."""

    def __init__(self, sink: RequestSink, limits: ListenLimits) -> None:
        super().__init__(
            sink.handle,  # type: ignore[arg-type]
            request_factory=IncomingRequest,  # type: ignore[arg-type]
            handler_cancellation=False,
        )
        self._sink = sink
        self._limits = limits
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
            max_line_size=self._limits.url_bytes,
            max_field_size=self._limits.header_bytes,
            max_headers=self._limits.headers,
            auto_decompress=False,
            lingering_time=_LINGER,
        )

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
        for connection in self.connections:
            if isinstance(connection, CallerConnection) and connection.overdue(
                now, self._limits.header_timeout
            ):
                connection.refuse_header()
        self._timer = self._loop.call_later(_SWEEP_INTERVAL, self._sweep)
