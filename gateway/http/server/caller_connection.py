"""One connection of a caller: reads requests, serves them in order, writes responses, and ends.

aiohttp's parser parses what arrives, and the messages are queued. Two kinds of data bypass it: the
bytes of a body of known length, which are counted, and requests whose fields are those of the one
before. Requests are served one after the other in one task, without a task, a writer or a
timer for each. Messages that the parser rejects and headers that take too long get a response, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from gateway import errors, os_support
from gateway.errors import GatewayError
from gateway.http.request_target import bad_request
from gateway.http.server import request_checks
from gateway.http.server.peer import Peer, transport_peer
from gateway.http.server.request_parser import (
    EMPTY_PAYLOAD,
    ConnectionDisposition,
    HttpProcessingError,
    MalformedMessage,
    RepeatedHeaderCache,
    RequestMessage,
    announced_length,
    ends_connection,
    is_repeatable,
    new_request_parser,
)
from gateway.http.server.request_payload import FixedLengthBody
from gateway.http.server.task_root import run_task_root
from gateway.http.write_batching import MAX_BATCHED_BYTES
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.inbound_settings import LimitsSettings
    from gateway.exchange import Exchange
    from gateway.http.server.request_payload import Payload
    from gateway.http.write_batching import WriteBatcher

_log = get_logger(__name__)

# Pipelined requests. Reading pauses at the first number of queued requests and resumes at the
# second: without a limit their headers alone could fill the memory.
_MAX_QUEUED_MESSAGES: Final = 4
_LOW_QUEUED_MESSAGES: Final = 2
# Bytes of a header that are retained to find out why the parser rejected it.
_ERROR_PREFIX_BYTES: Final = 64
_EMPTY_LINE: Final = b"\r\n\r\n"
# Seconds for which a connection stays open after its last response, for what the caller is still
# sending. Closing at once would reset the connection, and the reset could erase the response
# (RFC 9112 section 9.6).
_LINGER_TIMEOUT: Final = 1.0
# Seconds that an accepted connection has to send its first request, when new connections wait for
# its slot or the shutdown waits for its end.
_FIRST_REQUEST_TIMEOUT: Final = 1.0
# Bytes buffered for a caller above which nothing more is read for it. The event loop's own limit
# over TLS is half a megabyte, which would add up to too much memory with hundreds of callers.
_MAX_WRITE_BUFFER: Final = 32 * 1024


class IncomingRequest:
    """A parsed request for the handler; used instead of aiohttp's request object."""

    __slots__ = ("connection", "message", "payload")

    def __init__(
        self, message: RequestMessage, payload: Payload, connection: CallerConnection
    ) -> None:
        self.message = message
        self.payload = payload
        self.connection = connection

    @property
    def has_body(self) -> bool:
        """Whether the message announced a body."""
        return self.payload is not EMPTY_PAYLOAD

    @property
    def remote(self) -> str:
        """The address of the caller's end of the connection; "unix" for a unix socket."""
        return self.connection.peer.address

    @property
    def scheme(self) -> str:
        """`https` when the request arrived over TLS, else `http`."""
        return "https" if self.connection.is_tls else "http"


class RequestHandler(Protocol):
    """The interface of the handler that connections use."""

    async def handle(self, request: IncomingRequest) -> ConnectionDisposition:
        """Send the response to one request; return what happens to the connection."""
        ...

    async def reject_malformed(
        self, request: IncomingRequest, error: GatewayError
    ) -> ConnectionDisposition:
        """Send `error` in response to a message that could not be parsed; return as `handle`."""
        ...


class ConnectionOwner(ABC):
    """What connections need of the server that creates them."""

    handler: RequestHandler
    limits: LimitsSettings
    batching: WriteBatcher

    @abstractmethod
    def on_connection_opened(self, connection: CallerConnection) -> None:
        """Register a connection that was opened."""

    @abstractmethod
    def on_connection_lost(self, connection: CallerConnection) -> None:
        """Remove a lost connection after its exchange: a write is still carried out."""

    @abstractmethod
    def close_transport(self, connection: CallerConnection, transport: asyncio.Transport) -> None:
        """Close a connection's transport; buffered data is sent as long as the caller reads it."""

    @abstractmethod
    def yield_turn(self, future: asyncio.Future[None]) -> None:
        """Complete `future` when other connections have had their turn."""


class CallerConnection:
    """One connection of a caller, and the task that serves the requests on it.

    asyncio calls it as a protocol, and aiohttp's streams as their reader. Small responses are
    written in a batch with those of other connections. `aborts_by_reset`: the current request is
    one of HTTP/1.0, whose callers cannot distinguish a truncated response from a complete one if
    the connection just ends.
    """

    __slots__ = (
        "_at_start",
        "_batching",
        "_beginning",
        "_cancel_on_disconnect",
        "_counted",
        "_discarding",
        "_edge",
        "_ended",
        "_half_closed_timeout",
        "_half_closed_timer",
        "_handler",
        "_head_bytes",
        "_header_since",
        "_held_bytes",
        "_is_full",
        "_is_input_ignored",
        "_limits",
        "_loop",
        "_messages",
        "_parser",
        "_peer_closed",
        "_queued_before",
        "_reading_paused",
        "_repeated",
        "_server",
        "_unparsed",
        "_waiter",
        "_writable",
        "aborts_by_reset",
        "busy",
        "cached_context",
        "has_started_response",
        "idle_since",
        "is_half_closed",
        "is_reused",
        "is_tls",
        "is_write_paused",
        "keep_alive_lines",
        "payload",
        "peer",
        "task",
        "transport",
    )

    def __init__(self, server: ConnectionOwner, address: str) -> None:
        limits = server.limits
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._handler = server.handler
        self._batching = server.batching
        self._limits = limits
        self.task: asyncio.Task[None] | None = None  # serves the requests, None after its end
        self.transport: asyncio.Transport | None = None
        self.peer = Peer(address)
        self.is_tls = self.is_reused = False
        # Field lines of a response after which the connection stays open. Java's HTTP client uses
        # the second only together with the first.
        self.keep_alive_lines = (
            b"Connection: keep-alive\r\nKeep-Alive: timeout=%d\r\n" % limits.announced_keep_alive
        )
        self.idle_since = 0.0  # the end of the last response, the opening before the first
        self.cached_context: object = None  # the handler's data about earlier requests
        self._parser: Any = self._new_parser()  # None after the end
        self._at_start = True  # whether the parser is certainly at the beginning of a message
        self._edge = b""  # the last three bytes that the parser was given
        self._unparsed = b""  # data for the parser when the queue and the body have room
        self._repeated = RepeatedHeaderCache(limits.max_url_bytes)
        self._messages: deque[tuple[RequestMessage, Payload]] = deque()
        self._queued_before = 0  # messages in the queue before the last data arrived
        self._beginning = b""  # of that data
        self._waiter: asyncio.Future[None] | None = None
        self._counted: FixedLengthBody | None = None
        self._header_since: float | None = None
        self._head_bytes = b""
        self._is_full = False  # whether the queue has reached its limit, so that reading pauses
        self._reading_paused = False  # by a body that is not consumed
        self._is_input_ignored = False  # because nothing that follows can be a request
        self._discarding = self._ended = False  # whether no further request is served
        # Whether an exchange is running, the body of its request, the read that is cancelled when
        # its caller disconnects, what learns of half-closed reads, whether its response has begun.
        self.busy = False
        self.payload: Payload = EMPTY_PAYLOAD
        self._cancel_on_disconnect: Exchange | None = None
        self._half_closed_timeout = 0.0
        self._half_closed_timer: asyncio.TimerHandle | None = None
        self.has_started_response = False
        self._held_bytes = b""
        self._writable: asyncio.Future[None] | None = None
        self.is_write_paused = self.aborts_by_reset = False
        self.is_half_closed = False  # by the caller, which sends no more
        self._peer_closed: asyncio.Event | None = None

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Record the peer and start serving; the time for the first header begins here."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(_MAX_WRITE_BUFFER)
        self.peer = transport_peer(transport, self.peer.address)
        self.is_tls = transport.get_extra_info("sslcontext") is not None
        self.idle_since = self._loop.time()
        self._server.on_connection_opened(self)
        self.task = self._loop.create_task(run_task_root(self._serve()))

    def eof_received(self) -> bool:
        """Handle the end of the caller's data; return whether to stay open for responses.

        A caller that has disconnected and one that has half-closed look the same here: only writing
        to them shows the difference (asyncio.Protocol).
        """
        self.is_half_closed = True
        if self._peer_closed is not None:
            self._peer_closed.set()
        transport = self.transport
        if transport is None:
            return False
        # The event loop's TLS transport can only be closed in both directions at once.
        if transport.can_write_eof() and self._has_complete_request():
            self._note_half_close()
            return True
        # Otherwise the event loop would close the transport, and no timeout would apply to the data
        # that is still buffered.
        self._server.close_transport(self, transport)
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel the exchange if it must end with its caller, and clean up (asyncio.Protocol)."""
        del exc  # the connection is lost with or without an error
        if self._peer_closed is not None:
            self._peer_closed.set()
        # The methods of a lost TLS transport raise.
        self.transport = None
        self.force_close()
        self._server.on_connection_lost(self)
        # Release what refers back to this connection.
        self._fail_body(ConnectionResetError("connection lost"))
        self._parser = self._counted = None
        self._unparsed = b""
        self._messages.clear()
        if not self.busy:
            self._release_body()
        self._wake_writer()
        # Between two requests the task would continue and take a message from the emptied queue.
        between = self._waiter is not None and not self.busy
        if self.task is not None and (self._cancel_on_disconnect is not None or between):
            self.task.cancel()
        self._untie()

    # Reading requests.

    @property
    def connected(self) -> bool:
        """Whether more data may arrive (aiohttp's StreamReader)."""
        return self.transport is not None

    def data_received(self, data: bytes) -> None:
        """Parse the data and record since when a header is incomplete (asyncio.Protocol)."""
        if self._discarding:
            return
        is_next = not (self._messages or self._unparsed or self._ended or self._is_input_ignored)
        if self._at_start and is_next and (repeated := self._repeated.match(data)) is not None:
            message, end = repeated
            payload: Payload = EMPTY_PAYLOAD
            if end < len(data):
                payload = body = self._new_body(len(data) - end)
                body.feed(bytes(data[end:]))
            self._receive(message, payload)
            return
        if not data and self._counted is None:
            # The bytes that the parser has retained come first.
            self._read_chunk(data)
        # The proactor event loop of Windows delivers bytearrays. For bytes there is no copy.
        data, at = bytes(data), 0
        if self._unparsed:
            data, self._unparsed = self._unparsed + data, b""
        self._queued_before, self._beginning = len(self._messages), data[:_ERROR_PREFIX_BYTES]
        while at < len(data):
            if self._is_full or self._reading_paused:
                self._unparsed = data[at:]
                return
            if self._counted is not None:
                at = self._feed_fixed_length(self._counted, data, at)
                continue
            end = self._next_empty_line(data, at)
            chunk = data if end - at == len(data) else data[at:end]
            self._edge = (self._edge + chunk[-3:])[-3:]
            self._read_chunk(chunk)
            at = end

    def _feed_fixed_length(self, body: FixedLengthBody, data: bytes, at: int) -> int:
        """Feed a counted body; return the offset in `data` at which the body's bytes end."""
        rest = body.feed(data[at:])
        if body.is_eof():
            # The old parser still waits for the body, whose bytes it was not given.
            self._counted, self._parser, self._edge = None, self._new_parser(), b""
            self._at_start = True
        return len(data) - len(rest)

    def _next_empty_line(self, data: bytes, at: int) -> int:
        """Return the offset after the next empty line, which may begin in the data before.

        Without an empty line that is the end of the data. The parser gets one header at a time: it
        needs no body of known length, and after a request with an Upgrade it drops the bytes that
        it was given together with its end.
        """
        edge = self._edge
        seam = (edge + data[at : at + 3]).find(_EMPTY_LINE)
        if seam >= 0:
            return at + seam + len(_EMPTY_LINE) - len(edge)
        found = data.find(_EMPTY_LINE, at)
        return len(data) if found < 0 else found + len(_EMPTY_LINE)

    def _read_chunk(self, data: bytes) -> None:
        if self._parser is None or self._ended or self._is_input_ignored:
            return
        # The bytes may be the rest of a body, which has a timeout of its own.
        in_body = self._is_in_body
        header_ended = self._parse(self._parser, data)
        if self._messages:
            self._inspect_last_message()
        if (
            data
            and self._header_since is None
            and not (header_ended or in_body)
            # Some callers send an empty line after a request (RFC 9112 section 2.2).
            and (not (self.busy or self._messages) or data.strip(b"\r\n"))
        ):
            self._header_since = self._loop.time()
            self._head_bytes = data[:_ERROR_PREFIX_BYTES]

    def _parse(self, parser: Any, data: bytes) -> bool:
        """Parse the data; return whether a header ended or was rejected."""
        was_at_start, self._at_start = self._at_start, False
        try:
            parsed, switched, _ = parser.feed_data(data)
        except HttpProcessingError as error:
            self._is_input_ignored = True
            if len(self._messages) > self._queued_before and ends_connection(*self._messages[-1]):
                return True
            # What arrived together is refused together: no request is served whose body is known to
            # be broken, or that something else than a request follows, unless it has an Upgrade.
            while len(self._messages) > self._queued_before and not self._messages[-1][0].upgrade:
                self._messages.pop()
            self._receive(MalformedMessage(error), EMPTY_PAYLOAD)
            return True
        if switched:
            # An Upgrade is ignored (RFC 9110 section 7.8): the HTTP clients of Java and Apache send
            # one with every request. The protocol after a CONNECT is unknown.
            parser.set_upgraded(False)
            self._is_input_ignored = bool(parsed) and parsed[-1][0].method == "CONNECT"
        if not parsed:
            return False
        for message, payload in parsed:
            self._receive(RequestMessage.from_parsed(message), payload)
        self._header_since = None
        last, payload = self._messages[-1]
        if is_repeatable(last):
            self._at_start = is_read = last.method == "GET"
            if was_at_start and is_read == (payload is EMPTY_PAYLOAD):
                self._repeated.store(data, last)
        return True

    def _receive(self, message: RequestMessage, payload: Payload) -> None:
        self._messages.append((message, payload))
        # If other messages are queued, the task waits for the scheduler and not for a message.
        if self._waiter is not None and not self._waiter.done() and len(self._messages) == 1:
            self._waiter.set_result(None)
        if len(self._messages) >= _MAX_QUEUED_MESSAGES and not self._is_full:
            self._is_full = True
            self._pause_transport()

    def _inspect_last_message(self) -> None:
        message, payload = self._messages[-1]
        if isinstance(message, MalformedMessage):
            if self._header_since is None:
                self._head_bytes = self._beginning
            self._header_since = None
            # aiohttp would leave the reader of the body waiting in which the parser failed.
            for body in (self.payload, *(queued for _, queued in self._messages)):
                if not body.is_eof():
                    body.set_exception(bad_request("body: broken framing, such as a bad chunk"))
        elif payload is not EMPTY_PAYLOAD and not payload.is_eof():
            length = announced_length(message)
            if length:
                # The message is still in the queue, so that its body can be replaced.
                self._counted = self._new_body(length)
                self._messages[-1] = (message, self._counted)

    def _new_body(self, length: int) -> FixedLengthBody:
        return FixedLengthBody(length, pause=self._pause_body, resume=self._resume_body)

    def _new_parser(self) -> Any:
        return new_request_parser(self, self._loop, self._limits)

    def pause_reading(self) -> None:
        """Pause because too much of a body is buffered (aiohttp's StreamReader)."""
        if self._parser is not None and not self._is_input_ignored:
            self._parser.pause_reading()
        self._pause_body()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Resume because enough of a body was consumed (aiohttp's StreamReader).

        Bytes that the parser has retained are parsed first; it has none of a counted body.
        """
        self._reading_paused = False
        if resume_parser or self._unparsed:
            self.data_received(b"")
        # The bytes that were parsed may have paused the body again.
        if not self._reading_paused and not self._is_full:
            self._resume_transport()

    def _resume_body(self) -> None:
        """Resume reading for a counted body."""
        self.resume_reading(resume_parser=False)

    def _pause_body(self) -> None:
        """Pause reading for a counted body."""
        self._reading_paused = True
        self._pause_transport()

    def _pause_transport(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def _resume_transport(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def _fail_body(self, error: BaseException) -> None:
        """Let the reader of the current request's body fail with `error` if it is incomplete."""
        # A complete body is not lost with the connection: a write is still carried out.
        if self.busy and not self.payload.is_eof():
            self.payload.set_exception(error)

    def _has_complete_request(self) -> bool:
        """Return whether a request has arrived completely; drop an incomplete one after it."""
        payloads = [payload for _, payload in self._messages]
        if self.busy:
            payloads.insert(0, self.payload)
        if not payloads or not payloads[0].is_eof():
            return False
        if not payloads[-1].is_eof():
            self._messages.pop()
        return True

    def _release_body(self) -> None:
        """Release the last request's body, and the frames that the traceback of its error holds."""
        error = self.payload.exception()
        if error is not None:
            error.__traceback__ = None
        self.payload = EMPTY_PAYLOAD

    def _take_message(self) -> tuple[RequestMessage, Payload]:
        """Take the next message from the queue; continue to read where the queue was full."""
        taken = self._messages.popleft()
        if self._is_full and len(self._messages) <= _LOW_QUEUED_MESSAGES:
            self._is_full = False
            self.data_received(b"")
            if not (self._is_full or self._reading_paused):
                self._resume_transport()
        return taken

    @property
    def _is_in_body(self) -> bool:
        """Whether the body of the last request has not ended."""
        payload = self._messages[-1][1] if self._messages else self.payload
        return payload is not EMPTY_PAYLOAD and not payload.is_eof()

    @property
    def _is_quiescent(self) -> bool:
        """Whether no request is running or queued and none has begun to arrive."""
        return not (self.busy or self._messages) and self._header_since is None

    # Serving requests.

    async def _serve(self) -> None:
        """Serve requests one after the other until the connection ends."""
        try:
            while not self._ended:
                await self._wait_for_message()
                exchange = self._dispatch(*self._take_message())
                self.busy = True
                try:
                    disposition = await exchange
                    self._untie()
                    self.is_reused = True
                    closes = disposition is ConnectionDisposition.CLOSE
                    if closes:
                        # The caller gets time to read the response.
                        await self.lingering_close()
                finally:
                    self.busy = False
                    if self._ended:
                        self._release_body()
                if self.is_last_request or closes or self._ended:
                    break
                self.idle_since = self._loop.time()
        except asyncio.CancelledError:
            self.force_close()
            raise
        except Exception as error:
            # The handler deals with all expected errors; an exception that arrives here is a bug.
            _log.error("internal error", exc_info=error, reason="internal")
            self.force_close()
        finally:
            # The traceback of the task would keep the connection alive.
            self.task = None
        if not self._ended:
            self.flush()
            if self.transport is not None:
                self._server.close_transport(self, self.transport)

    async def _wait_for_message(self) -> None:
        """Wait until a message is queued.

        After a response, a message that is queued already waits for the scheduler, so that other
        connections are served. The first message needs no wait if it is queued already.
        """
        if self._messages and not self.is_reused:
            return
        self._waiter = event = self._loop.create_future()
        if self._messages:
            self._server.yield_turn(event)
        await event

    def _dispatch(
        self, message: RequestMessage, payload: Payload
    ) -> Coroutine[Any, Any, ConnectionDisposition]:
        self.payload = payload
        request = IncomingRequest(message, payload, self)
        if isinstance(message, MalformedMessage):
            return self._handler.reject_malformed(
                request, request_checks.parse_error_outcome(message.error, self._head_bytes)
            )
        return self._handler.handle(request)

    # Writing responses.

    def write(self, data: bytes) -> None:
        """Write bytes to the transport, after batched ones. Does nothing without a transport."""
        if self._held_bytes:
            self.flush()
        if self.transport is not None:
            self.transport.write(data)

    def write_batched(self, data: bytes) -> None:
        """Write bytes at the end of the loop iteration, or earlier before the next bytes."""
        if self._held_bytes or len(data) > MAX_BATCHED_BYTES:
            self.write(data)
        else:
            self._held_bytes = data
            self._batching.schedule_flush(self.flush)

    def flush(self) -> None:
        """Write the batched bytes to the transport."""
        held, self._held_bytes = self._held_bytes, b""
        if held and self.transport is not None:
            self.transport.write(held)

    async def drain(self) -> None:
        """Wait until the transport accepts more or is lost; may be called again after a timeout."""
        self._writable = self._loop.create_future()
        if self.is_write_paused and self.transport is not None:
            await self._writable

    def pause_writing(self) -> None:
        """Record that the transport's buffer is full (asyncio.Protocol)."""
        self.is_write_paused = True

    def resume_writing(self) -> None:
        """Record that the transport accepts more and wake `drain` (asyncio.Protocol)."""
        self.is_write_paused = False
        self._wake_writer()

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    @property
    def unsent_bytes(self) -> int:
        """How many bytes the caller has not acknowledged, including those in the kernel."""
        transport, held = self.transport, len(self._held_bytes)
        return 0 if transport is None else held + os_support.unsent_bytes(transport)

    # Ending the connection.

    def force_close(self) -> None:
        """Close the connection; buffered data is sent as long as the caller reads it."""
        self.flush()
        self._ended = True
        if self._waiter is not None:
            self._waiter.cancel()
        if self.transport is not None:
            self._server.close_transport(self, self.transport)
            self.transport = None

    def close_if_idle(self) -> bool:
        """Close between two requests. Return False, and stay open, if data has just arrived."""
        raw = None if self.transport is None else self.transport.get_extra_info("socket")
        # The caller may have closed the connection a moment ago.
        with contextlib.suppress(OSError, ValueError):
            if raw is not None and os_support.readability_check(raw.fileno())():
                return False
        self.force_close()
        return True

    async def shutdown(self, timeout: float) -> None:
        """Close the connection after its exchange.

        The exchange gets `timeout` seconds, and after the failure of its request's body `timeout`
        seconds more; then it is cancelled.
        """
        self._ended = True
        task = self.task
        if task is not None and self.busy:
            await asyncio.wait((task,), timeout=timeout)
            self._fail_body(asyncio.CancelledError())
            await asyncio.wait((task,), timeout=timeout)
        if task is not None:
            task.cancel()
        self.force_close()

    def abort(self) -> None:
        """End the connection so that no truncated response looks complete."""
        transport = self.transport
        if transport is None:
            return
        raw = transport.get_extra_info("socket")
        if self.aborts_by_reset and raw is not None:
            # The caller may have closed the connection a moment ago.
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, os_support.RESET_ON_CLOSE)
        self._ended = True
        self._held_bytes = b""
        transport.abort()

    # Called by the handler and the server.

    def set_cancel_on_disconnect(self, read: Exchange | None, half_closed_timeout: float) -> None:
        """Set whether the current request is cancelled when the caller disconnects.

        `read` is the current request if it is a read, which is cancelled then; None if it is not.
        A caller that half-closes may have disconnected: its read is cancelled after so many seconds
        unless the response has begun. From then on writing shows whether the caller is connected.
        """
        self._cancel_on_disconnect = read
        self._half_closed_timeout = half_closed_timeout
        self.has_started_response = False
        if self.is_half_closed:
            self._note_half_close()

    def _note_half_close(self) -> None:
        if self._cancel_on_disconnect is not None:
            self._cancel_on_disconnect.half_closed = True
            self._half_closed_timer = self._loop.call_later(
                self._half_closed_timeout, self._end_half_closed
            )

    def _end_half_closed(self) -> None:
        if not self.has_started_response:
            self.abort()

    def _untie(self) -> None:
        self._cancel_on_disconnect = None
        if self._half_closed_timer is not None:
            self._half_closed_timer.cancel()

    @property
    def has_pipelined_requests(self) -> bool:
        """Whether further requests have been read and are queued."""
        return bool(self._messages)

    @property
    def is_last_request(self) -> bool:
        """Whether no request can follow the current one."""
        return self.is_half_closed and not self._messages

    def is_idle(self, now: float) -> bool:
        """Return whether no request is running and none has begun to arrive.

        A new connection is idle only after a second. `now` is the event loop's time.
        """
        if self.transport is None or self.transport.is_closing():
            return False
        had_time = self.is_reused or now - self.idle_since > _FIRST_REQUEST_TIMEOUT
        return had_time and self._is_quiescent

    def has_unfinished_work(self, now: float) -> bool:
        """Return whether the gateway still owes this caller something.

        That is a response, the rest of one that a slow caller has not read yet, or, for a second,
        the chance to send the first request of an accepted connection or the rest of a header.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return self.busy
        if self.busy or self._messages or self._held_bytes or transport.get_write_buffer_size():
            return True
        started_at = self.idle_since if not self.is_reused else self._header_since
        return started_at is not None and now - started_at < _FIRST_REQUEST_TIMEOUT

    async def lingering_close(self) -> None:
        """Half-close and discard further data for at most a second.

        TLS cannot be half-closed, so that the caller would learn of the end only after that time:
        the method returns at once where everything was read and sent.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        # Whether the caller has sent an incomplete request or one that could not be parsed.
        is_still_sending = self._is_input_ignored or self._header_since is not None
        is_still_sending |= bool(self._messages) or not self.payload.is_eof()
        self._discarding = True
        self._header_since = None
        self.flush()
        if self.is_half_closed or not (
            is_still_sending or transport.can_write_eof() or transport.get_write_buffer_size()
        ):
            return
        self._resume_transport()
        self._peer_closed = asyncio.Event()
        # The caller may have reset the connection a moment ago.
        with contextlib.suppress(OSError):
            if transport.can_write_eof():
                transport.write_eof()
            async with asyncio.timeout(_LINGER_TIMEOUT):
                await self._peer_closed.wait()

    def is_header_overdue(self, now: float, header_timeout: float) -> bool:
        """Return whether a header has been incomplete for more than `header_timeout` seconds.

        The time in which other requests were served does not count.
        """
        since = self._header_since
        if since is None or self.busy or self._messages or self._ended:
            return False
        return now - max(since, self.idle_since) > header_timeout

    def is_idle_too_long(self, now: float, header_timeout: float) -> bool:
        """Return whether it is idle beyond `limits.keep_alive`, or silent since it was opened."""
        return self._is_quiescent and (
            now - self.idle_since > self._limits.keep_alive
            or (not self.is_reused and now - self.idle_since > header_timeout)
        )

    async def send_header_timeout(self) -> None:
        """Send the error response for a header that is overdue, and close."""
        self._discarding = self.busy = True
        self.payload = EMPTY_PAYLOAD
        error = GatewayError(errors.HEADER_TIMEOUT, "incomplete header", close_connection=True)
        request = IncomingRequest(MalformedMessage(error), EMPTY_PAYLOAD, self)
        await self._handler.reject_malformed(request, error)
        await self.lingering_close()
        self.busy = False
        self.force_close()
