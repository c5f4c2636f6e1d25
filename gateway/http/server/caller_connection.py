"""One connection of a caller: the task that serves its requests, and how the connection ends.

Requests are served one after the other in one task, without a task, a writer or a timer for each.
Messages that the parser rejects and headers that take too long get a response as well.
`FairScheduler` distributes the event loop's time among connections with pipelined requests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from gateway import errors, os_support
from gateway.errors import GatewayError
from gateway.http.server import request_checks
from gateway.http.server.connection_writer import ConnectionWriter
from gateway.http.server.peer import Peer, transport_peer
from gateway.http.server.request_parser import (
    EMPTY_PAYLOAD,
    ConnectionDisposition,
    MalformedMessage,
)
from gateway.http.server.task_root import run_task_root
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.inbound_settings import LimitsSettings
    from gateway.http.server.request_parser import RequestMessage
    from gateway.http.server.request_payload import Payload
    from gateway.http.slow_readers import Read, SlowReaders
    from gateway.http.write_batching import WriteBatcher

# Requests per loop iteration, each of which takes a fraction of a millisecond.
_MAX_BATCH: Final = 4


class FairScheduler:
    """Resumes at most four waiting tasks in each iteration of the event loop, in FIFO order.

    Without it, callers that pipeline requests on many connections would starve all others. The
    class needs a running loop.
    """

    __slots__ = ("_loop", "_waiting")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()

    def schedule(self, future: asyncio.Future[None]) -> None:
        """Enqueue `future`, which completes when its task may continue."""
        if not self._waiting:
            self._loop.call_soon(self._run_batch)
        self._waiting.append(future)

    def _run_batch(self) -> None:
        for _ in range(min(_MAX_BATCH, len(self._waiting))):
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
        if self._waiting:
            self._loop.call_soon(self._run_batch)


_log = get_logger(__name__)

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
    def is_first_request(self) -> bool:
        """Whether this is the first request on its connection."""
        return not self.connection.is_reused

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


class ConnectionOwner(Protocol):
    """The interface of the server that its connections use.

    It is defined here because the module of the server's class imports this module.
    """

    scheduler: FairScheduler

    def on_connection_opened(self, connection: CallerConnection) -> None:
        """Register a connection that was opened."""
        ...

    def on_connection_lost(self, connection: CallerConnection) -> None:
        """Called when a connection is lost; its exchange may still be running."""
        ...

    def close_transport(self, connection: CallerConnection, transport: asyncio.Transport) -> None:
        """Close a connection's transport; buffered data is sent as long as the caller reads it."""
        ...


class CallerConnection(ConnectionWriter):
    """One connection of a caller, and the task that serves the requests on it."""

    __slots__ = (
        *("_peer_closed", "_slow_readers", "_server", "_handler", "_task", "has_started_response"),
        *("_cancel_on_disconnect", "is_half_closed", "idle_since", "is_reused"),
        *("cached_context", "opened_at", "peer", "is_tls", "keep_alive_lines"),
    )

    def __init__(
        self,
        server: ConnectionOwner,
        handler: RequestHandler,
        batching: WriteBatcher,
        address: str,
        limits: LimitsSettings,
    ) -> None:
        super().__init__(limits, batching)
        self._server = server
        self._handler = handler
        self._task: asyncio.Task[None] | None = None
        self._peer_closed: asyncio.Event | None = None
        self.is_half_closed = False  # by the caller, which sends no more
        self.peer = Peer(address)
        self.is_tls = False
        self.is_reused = False
        # Field lines of a response after which the connection stays open. Java's HTTP client uses
        # the second only together with the first.
        self.keep_alive_lines = (
            b"Connection: keep-alive\r\nKeep-Alive: timeout=%d\r\n" % limits.announced_keep_alive
        )
        self.opened_at = 0.0
        self.idle_since = 0.0
        self.cached_context: object = None
        # About the current request: the read that is cancelled when its caller disconnects, the
        # slow readers of its pool, and whether its response has begun.
        self._cancel_on_disconnect: Read | None = None
        self._slow_readers: SlowReaders | None = None
        self.has_started_response = False

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Record the peer and start serving; the time for the first header begins here."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(_MAX_WRITE_BUFFER)
        self.peer = transport_peer(transport, self.peer.address)
        self.is_tls = transport.get_extra_info("sslcontext") is not None
        self.opened_at = self.idle_since = self._loop.time()
        self._server.on_connection_opened(self)
        self._task = self._loop.create_task(run_task_root(self._serve()))

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
        self._detach()
        self._wake_writer()
        # Between two requests the task would continue and take a message from the emptied queue.
        between = self._waiter is not None and not self.busy
        if self._task is not None and (self._cancel_on_disconnect is not None or between):
            self._task.cancel()
        self._untie()

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
                    if disposition is ConnectionDisposition.CLOSE:
                        # The caller gets time to read the response.
                        await self.lingering_close()
                finally:
                    self.busy = False
                    if self._ended:
                        self._release_body()
                if (
                    self.is_last_request
                    or disposition is ConnectionDisposition.CLOSE
                    or self._ended
                ):
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
            self._task = None
        if not self._ended:
            self.flush()
            if self.transport is not None:
                self._server.close_transport(self, self.transport)

    async def _wait_for_message(self) -> None:
        """Wait until a message is queued.

        After a response, a message that is queued already waits for the scheduler, so that other
        connections are served. The first message needs no wait if it is queued already.
        """
        if not self._messages:
            await self._message_event()
        elif self.is_reused:
            event = self._message_event()
            self._server.scheduler.schedule(event)
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
        task = self._task
        if task is not None and self.busy:
            await asyncio.wait((task,), timeout=timeout)
            self._fail_body(asyncio.CancelledError())
            await asyncio.wait((task,), timeout=timeout)
        if task is not None:
            task.cancel()
        self.force_close()

    # Called by the handler and the server.

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task that serves this connection, None after its end."""
        return self._task

    def set_cancel_on_disconnect(self, read: Read | None, slow_readers: SlowReaders) -> None:
        """Set whether the current request is cancelled when the caller disconnects.

        `read` is the current request if it is a read, which is cancelled then; None if it is not.
        `slow_readers` aborts connections that stay half-closed during a read.
        """
        self._cancel_on_disconnect, self._slow_readers, self.has_started_response = (
            read,
            slow_readers,
            False,
        )
        if self.is_half_closed:
            self._note_half_close()

    def _note_half_close(self) -> None:
        if self._cancel_on_disconnect is not None and self._slow_readers is not None:
            self._slow_readers.add_half_closed(self, self._cancel_on_disconnect)

    def _untie(self) -> None:
        self._cancel_on_disconnect = None
        if self.is_half_closed and self._slow_readers is not None:
            self._slow_readers.remove_half_closed(self)

    def cache_context(self, context: object) -> None:
        """Store `context`, the handler's data about earlier requests of this connection."""
        self.cached_context = context

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
        return self._is_quiescent and (
            self.is_reused or now - self.opened_at > _FIRST_REQUEST_TIMEOUT
        )

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
        started_at = self.opened_at if not self.is_reused else self._header_since
        return started_at is not None and now - started_at < _FIRST_REQUEST_TIMEOUT

    async def lingering_close(self) -> None:
        """Half-close and discard further data for at most a second.

        TLS cannot be half-closed, so that the caller would learn of the end only after that time:
        the method returns at once where everything was read and sent.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        is_still_sending = self._has_partial_input
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

    @property
    def _has_partial_input(self) -> bool:
        """Whether the caller has sent an incomplete request or one that could not be parsed."""
        if self._is_input_ignored or self._messages or self._header_since is not None:
            return True
        return not self.payload.is_eof()

    def is_header_overdue(self, now: float, header_timeout: float) -> bool:
        """Return whether a header has been incomplete for more than `header_timeout` seconds.

        The time in which other requests were served does not count.
        """
        since = self._header_since
        if since is None or self.busy or self._messages or self._ended:
            return False
        return now - max(since, self.idle_since) > header_timeout

    def is_keep_alive_expired(self, now: float) -> bool:
        """Return whether the connection has been idle for longer than `limits.keep_alive`."""
        return self._is_quiescent and now - self.idle_since > self._limits.keep_alive

    def is_silent(self, now: float, header_timeout: float) -> bool:
        """Return whether nothing has arrived within `header_timeout` seconds after opening."""
        return self._is_quiescent and not self.is_reused and now - self.opened_at > header_timeout

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
