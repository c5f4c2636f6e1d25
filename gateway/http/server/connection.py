"""One connection of a caller: how its requests are served and answered.

Requests are served one after the other in one task, without a task, a writer or a timer for each.
What the parser refuses and what takes too long is answered as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final, Protocol, cast

from gateway import errors, os_support
from gateway.errors import GatewayError
from gateway.http.server import parse_errors
from gateway.http.server.aiohttp_parser import EMPTY_PAYLOAD
from gateway.http.server.counted_body import Payload
from gateway.http.server.messages import ConnectionDisposition, MalformedMessage, RequestMessage
from gateway.http.server.peer import Peer, transport_peer
from gateway.http.server.reader import ListenLimits
from gateway.http.server.response_side import ConnectionWriter
from gateway.http.server.rooted import run_task_root
from gateway.http.server.turnstile import FairScheduler
from gateway.http.slow_readers import Read, SlowReaders
from gateway.http.write_batching import WriteBatcher
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

# How long, in seconds, an answered connection stays open for what the caller is still sending.
# Closing at once would reset it, and the reset could erase the answer (RFC 9112 section 9.6).
_LINGER: Final = 1.0

# How long a connection that was let in may take to say what it wants, when others wait for its
# place or for the end.
_FIRST_REQUEST: Final = 1.0

# Bytes that wait for a caller before nothing more is read for it. The event loop's own limit over
# TLS is half a megabyte, which hundreds of callers would take from the memory.
_MAX_WRITE_BUFFER: Final = 32 * 1024


class IncomingRequest:
    """A parsed request as the handler wants it; in the place of aiohttp's own request object."""

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
        """Whether it is the first one on its connection."""
        return not self.connection.is_reused

    @property
    def scheme(self) -> str:
        """`https` when it came over TLS, else `http`."""
        return "https" if self.connection.is_tls else "http"


class RequestHandler(Protocol):
    """The handler, as the listener sees it."""

    async def handle(self, request: IncomingRequest) -> ConnectionDisposition:
        """Answer one request."""
        ...

    async def reject_malformed(
        self, request: IncomingRequest, error: GatewayError
    ) -> ConnectionDisposition:
        """Answer what could not be parsed."""
        ...


class ConnectionOwner(Protocol):
    """The server, as its connections see it; its own class stands above this one."""

    scheduler: FairScheduler

    def on_connection_opened(self, connection: CallerConnection) -> None:
        """It was made."""
        ...

    def on_connection_lost(self, connection: CallerConnection) -> None:
        """It was lost, but not the exchange on it."""
        ...

    def close_transport(self, connection: CallerConnection, transport: asyncio.Transport) -> None:
        """Close its transport; what that holds is sent while the caller takes it."""
        ...


class CallerConnection(ConnectionWriter):
    """One connection of a caller."""

    __slots__ = (
        *("_peer_closed", "_readers", "_server", "_handler", "_task", "answering"),
        *("_cancel_on_disconnect", "is_half_closed", "idle_since", "is_reused"),
        *("cached_context", "opened_at", "peer", "is_tls", "keep_alive_lines"),
    )

    def __init__(
        self,
        server: ConnectionOwner,
        sink: RequestHandler,
        batching: WriteBatcher,
        address: str,
        limits: ListenLimits,
    ) -> None:
        super().__init__(limits, batching)
        self._server = server
        self._handler = sink
        self._task: asyncio.Task[None] | None = None
        self._peer_closed: asyncio.Event | None = None
        self.is_half_closed = False  # the caller sends no more
        self.peer = Peer(address)
        self.is_tls = False
        self.is_reused = False
        # Fields of an answer after which it is kept.
        self.keep_alive_lines = limits.keep_alive_lines()
        self.opened_at = 0.0
        self.idle_since = 0.0
        self.cached_context: object = None
        # Of the request under way: it, if it ends when its caller leaves, and who waits with it.
        self._cancel_on_disconnect: Read | None = None
        self._readers: SlowReaders | None = None
        self.answering = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who it is; the time for the first header runs from here."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(_MAX_WRITE_BUFFER)
        self.peer = transport_peer(transport, self.peer.address)
        self.is_tls = transport.get_extra_info("sslcontext") is not None
        self.opened_at = self.idle_since = self._loop.time()
        self._server.on_connection_opened(self)
        self._task = self._loop.create_task(run_task_root(self._serve()))

    def eof_received(self) -> bool:
        """The caller sends no more; whether it stays open for answers.

        One that left and one that half-closed look the same here: only writing tells them apart.
        """
        self.is_half_closed = True
        if self._peer_closed is not None:
            self._peer_closed.set()
        transport = self.transport
        if transport is None:
            return False
        # The event loop's TLS is closed in both directions at once.
        if transport.can_write_eof() and self._has_complete_request():
            self._note_half_close()
            return True
        # The event loop would do it, and nobody would look after what still waits.
        self._server.close_transport(self, transport)
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the exchange in flight, if it wants to know."""
        del exc  # the caller is gone either way
        if self._peer_closed is not None:
            self._peer_closed.set()
        # Over TLS what is asked of a lost one fails.
        self.transport = None
        self.force_close()
        self._server.on_connection_lost(self)
        self._detach()
        self._wake_writer()
        # Between two requests the task would go on to take a message that is gone.
        between = self._waiter is not None and not self.busy
        if self._task is not None and (self._cancel_on_disconnect is not None or between):
            self._task.cancel()
        self._untie()

    # What serves.

    async def _serve(self) -> None:
        """Answer requests until the connection ends."""
        try:
            while not self._ended:
                await self._wait_for_message()
                answer = self._dispatch(*self._take_message())
                self.busy = True
                try:
                    answered = await answer
                    self._untie()
                    self.is_reused = True
                    if answered is ConnectionDisposition.CLOSE:
                        # Its caller gets time to read it.
                        await self.lingering_close()
                finally:
                    self.busy = False
                    if self._ended:
                        self._release_body()
                if self.is_last_request or answered is ConnectionDisposition.CLOSE or self._ended:
                    break
                self.idle_since = self._loop.time()
        except asyncio.CancelledError:
            self.force_close()
            raise
        except Exception as error:
            # The handler answers for its own mistakes; what still arrives here is a bug.
            _log.error("internal error", exc_info=error, reason="internal")
            self.force_close()
        finally:
            # Drop the task: its traceback would keep the connection alive.
            self._task = None
        if not self._ended:
            self.flush()
            if self.transport is not None:
                self._server.close_transport(self, self.transport)

    async def _wait_for_message(self) -> None:
        """Wait until there is a message, and behind an answer until others have had their turn.

        What was sent ahead may need no waiting at all.
        """
        if not self._messages:
            await self._message_event()
        elif self.is_reused:
            turn = self._message_event()
            self._server.scheduler.schedule(turn)
            await turn

    def _dispatch(
        self, message: RequestMessage, payload: Payload
    ) -> Coroutine[Any, Any, ConnectionDisposition]:
        self.payload = payload
        request = IncomingRequest(message, payload, self)
        if isinstance(message, MalformedMessage):
            return self._handler.reject_malformed(
                request, parse_errors.parse_error_outcome(message.error, self._head_bytes)
            )
        return self._handler.handle(request)

    # What ends it.

    def force_close(self) -> None:
        """Close; what was written is still sent to a caller that takes it."""
        self.flush()
        self._ended = True
        if self._waiter is not None:
            self._waiter.cancel()
        if self.transport is not None:
            self._server.close_transport(self, self.transport)
            self.transport = None

    def close_if_idle(self) -> bool:
        """Close between two requests; not, and False, when one has just arrived."""
        raw = None if self.transport is None else self.transport.get_extra_info("socket")
        # The caller may have ended the connection a moment ago.
        with contextlib.suppress(OSError, ValueError):
            if raw is not None and os_support.readability_check(raw.fileno())():
                return False
        self.force_close()
        return True

    async def shutdown(self, timeout: float) -> None:
        """Give the exchange under way `timeout` seconds, twice: before and after its body ends."""
        self._ended = True
        task = self._task
        if task is not None and self.busy:
            await asyncio.wait((task,), timeout=timeout)
            self._fail_body(asyncio.CancelledError())
            await asyncio.wait((task,), timeout=timeout)
        if task is not None:
            task.cancel()
        self.force_close()

    # What the handler and the server call.

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What serves this connection."""
        return self._task

    def set_cancel_on_disconnect(self, read: Read | None, readers: SlowReaders) -> None:
        """Say that the request under way is a read, which ends when its caller leaves, or none."""
        self._cancel_on_disconnect, self._readers, self.answering = read, readers, False
        if self.is_half_closed:
            self._note_half_close()

    def _note_half_close(self) -> None:
        if self._cancel_on_disconnect is not None and self._readers is not None:
            self._readers.add_half_closed(self, self._cancel_on_disconnect)

    def _untie(self) -> None:
        self._cancel_on_disconnect = None
        if self.is_half_closed and self._readers is not None:
            self._readers.remove_half_closed(self)

    def cache_context(self, memory: object) -> None:
        """Keep, as `memory`, whatever the handler wants to know of the requests before."""
        self.cached_context = memory

    @property
    def has_pipelined_requests(self) -> bool:
        """Whether further requests were read already and wait for their turn."""
        return bool(self._messages)

    @property
    def is_last_request(self) -> bool:
        """Whether no request can follow the one under way."""
        return self.is_half_closed and not self._messages

    def is_idle(self, now: float) -> bool:
        """Whether nothing is under way and nothing has begun to arrive, for a moment at least."""
        if self.transport is None or self.transport.is_closing():
            return False
        return self._is_quiescent and (self.is_reused or now - self.opened_at > _FIRST_REQUEST)

    def has_unfinished_work(self, now: float) -> bool:
        """Whether the gateway owes something here.

        An answer, the rest of one that a slow caller has not taken yet, or, for a moment, the
        chance to send the first request on a connection that was accepted.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return self.busy
        if self.busy or self._messages or self._held_bytes or transport.get_write_buffer_size():
            return True
        began = self.opened_at if not self.is_reused else self._header_since
        return began is not None and now - began < _FIRST_REQUEST

    async def lingering_close(self) -> None:
        """Half-close and discard what still comes, for a moment.

        Over TLS, which cannot be half-closed, the caller would learn of the end only after that:
        nothing is waited for where all was read and sent.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        sends_on = self._has_partial_input
        self._discarding = True
        self._header_since = None
        self.flush()
        if self.is_half_closed or not (
            sends_on or transport.can_write_eof() or transport.get_write_buffer_size()
        ):
            return
        self._resume_transport()
        self._peer_closed = asyncio.Event()
        # The caller may have reset the connection a moment ago.
        with contextlib.suppress(OSError):
            if transport.can_write_eof():
                transport.write_eof()
            async with asyncio.timeout(_LINGER):
                await self._peer_closed.wait()

    @property
    def _has_partial_input(self) -> bool:
        """Whether the caller has begun what it has not ended, or was not understood."""
        if self._is_input_ignored or self._messages or self._header_since is not None:
            return True
        return not self.payload.is_eof()

    def is_header_overdue(self, now: float, header_timeout: float) -> bool:
        """Whether a header has been incomplete for too long, the time of other requests aside."""
        since = self._header_since
        if since is None or self.busy or self._messages or self._ended:
            return False
        return now - max(since, self.idle_since) > header_timeout

    def is_keep_alive_expired(self, now: float) -> bool:
        """Whether nothing was asked for so long that the caller has to connect anew."""
        return self._is_quiescent and now - self.idle_since > self._limits.keep_alive

    def is_silent(self, now: float, header_timeout: float) -> bool:
        """Whether nothing at all has come since the connection was made, for too long."""
        return self._is_quiescent and not self.is_reused and now - self.opened_at > header_timeout

    async def send_header_timeout(self) -> None:
        """Answer a header that did not come in time, and close."""
        self._discarding = self.busy = True
        self.payload = EMPTY_PAYLOAD
        error = GatewayError(errors.HEADER_TIMEOUT, "incomplete header", close_connection=True)
        request = IncomingRequest(MalformedMessage(error), EMPTY_PAYLOAD, self)
        await self._handler.reject_malformed(request, error)
        await self.lingering_close()
        self.busy = False
        self.force_close()
