"""Accepts connections of callers from the listening sockets, and enforces their timeouts.

asyncio's own servers drop the connections that a closing socket still holds in its queue, log every
failed `accept`, and (uvloop) close new connections when the process is out of file descriptors.
Here no connection is dropped that the system has established: while there is no free slot, it waits
in the system's queue. `CallerServer` creates a protocol for each connection. `FairScheduler`
distributes the event loop's time among connections with pipelined requests. Nothing here decides
where a request is forwarded.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from gateway import os_support
from gateway.http.server.caller_connection import CallerConnection, ConnectionOwner, RequestHandler
from gateway.http.server.peer import socket_address
from gateway.http.server.task_root import run_task_root
from gateway.http.write_batching import WriteBatcher
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.inbound_settings import LimitsSettings

_log = get_logger(__name__)

# Seconds.
_SWEEP_INTERVAL: Final = 0.25
# Requests per loop iteration, each of which takes a fraction of a millisecond.
_MAX_BATCH: Final = 4
# Seconds for which a TLS connection waits for the caller's close_notify once all data is received.
_CLOSE_NOTIFY_TIMEOUT: Final = 2.0


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


class _ClosingConnection:
    """A connection's closed transport, and how many bytes its caller has not received yet.

    A closed transport first sends its buffer, without a time limit, and occupies a connection slot
    until then. Therefore it is aborted if its caller reads nothing of the data.
    """

    __slots__ = ("_since", "_transport", "_unsent_bytes")

    def __init__(self, transport: asyncio.Transport, now: float) -> None:
        self._transport = transport
        self._since = now
        self._unsent_bytes = os_support.unsent_bytes(transport)

    def abort_if_stalled(self, now: float, stall_timeout: float) -> None:
        """Abort if the caller received nothing at all in `stall_timeout` seconds.

        Slow reads are allowed. `now` is monotonic time in seconds.
        """
        unsent_bytes = os_support.unsent_bytes(self._transport)
        # More is progress, too: the kernel has taken data from a buffer of the TLS layer.
        if unsent_bytes != self._unsent_bytes:
            self._since, self._unsent_bytes = now, unsent_bytes
        elif now - self._since >= (stall_timeout if unsent_bytes else _CLOSE_NOTIFY_TIMEOUT):
            self._transport.abort()


class CallerServer(ConnectionOwner):
    """Creates connections and ends those that are idle, silent or stalled for too long.

    A header that is overdue gets an error response. The class needs a running loop.
    """

    def __init__(self, handler: RequestHandler, limits: LimitsSettings) -> None:
        self._loop = asyncio.get_running_loop()
        self.handler = handler
        self.batching = WriteBatcher()
        self._scheduler = FairScheduler()
        self.limits = limits  # of connections that will be created, and of the sweep
        # In the order of opening. A lost connection stays until its exchange has ended.
        self._connections: dict[CallerConnection, None] = {}
        # Connections that were closed while their transport still holds data to send.
        self._closing: dict[CallerConnection, _ClosingConnection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._sweep()

    def make_connection(self, address: str = "") -> CallerConnection:
        """Return a new connection of a caller at `address`."""
        return CallerConnection(self, address)

    def on_connection_opened(self, connection: CallerConnection) -> None:
        self._connections[connection] = None

    def on_connection_lost(self, connection: CallerConnection) -> None:
        self._closing.pop(connection, None)
        task = connection.task
        if task is None:
            self._connections.pop(connection, None)
        else:
            task.add_done_callback(lambda _: self._connections.pop(connection, None))

    def close_transport(self, connection: CallerConnection, transport: asyncio.Transport) -> None:
        # The methods of a TLS transport that is closed twice raise.
        if transport.is_closing():
            return
        transport.close()
        # A transport that cannot be half-closed is one over TLS.
        if transport.get_write_buffer_size() or not transport.can_write_eof():
            self._closing[connection] = _ClosingConnection(transport, self._loop.time())

    def yield_turn(self, future: asyncio.Future[None]) -> None:
        self._scheduler.schedule(future)

    @property
    def open_connections(self) -> int:
        """Number of connections, including lost ones whose exchange is still running."""
        return len(self._connections)

    @property
    def unfinished_count(self) -> int:
        """Number of connections for which `has_unfinished_work` is true."""
        now = self._loop.time()
        return sum(connection.has_unfinished_work(now) for connection in self._connections)

    def close_oldest_idle(self) -> bool:
        """Close the idle connection that was opened first; return False if there is none."""
        now = self._loop.time()
        return any(
            connection.is_idle(now) and connection.close_if_idle()
            for connection in self._connections
        )

    async def abort_exchanges(self) -> None:
        """Cancel every running exchange, and wait until each has been recorded and has ended."""
        tasks = [
            connection.task
            for connection in self._connections
            if connection.busy and connection.task is not None
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def shutdown(self, timeout: float) -> None:
        """Close every connection as `CallerConnection.shutdown` does, all at the same time."""
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(
            *(connection.shutdown(timeout) for connection in tuple(self._connections))
        )
        self._connections.clear()
        self._closing.clear()

    def _sweep(self) -> None:
        now = self._loop.time()
        timeout = self.limits.header_timeout
        for connection in tuple(self._connections):
            if connection.is_header_overdue(now, timeout):
                task = self._loop.create_task(run_task_root(connection.send_header_timeout()))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            elif connection.is_idle_too_long(now, timeout):
                connection.close_if_idle()
        for closing in tuple(self._closing.values()):
            closing.abort_if_stalled(now, self.limits.write_stall_timeout)
        self._timer = self._loop.call_later(_SWEEP_INTERVAL, self._sweep)


# The number of connections that are accepted from a socket in one loop iteration.
_ACCEPT_BATCH: Final = 64
# Seconds for which nothing is accepted while there is no free slot or descriptor.
_ACCEPT_PAUSE: Final = 0.05
# Seconds. A descriptor is free only some loop iterations after its connection was closed.
_SLOT_RELEASE_DELAY: Final = 0.001
# Seconds between two log messages.
_WARNING_INTERVAL: Final = 10.0
# Seconds, so many that the event loop never aborts a closing TLS connection: its time includes that
# in which a slow caller reads the last response. `_ClosingConnection` aborts instead.
_TLS_SHUTDOWN_TIMEOUT: Final = 7 * 86400.0
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
# The peer gave up before it was accepted, or no further one waits. (EWOULDBLOCK and EAGAIN differ
# only on Windows.)
_NO_CONNECTION_ERRNOS: Final = frozenset(
    (
        errno.EAGAIN,
        errno.EWOULDBLOCK,
        errno.EINTR,
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.EPROTO,
        errno.ETIMEDOUT,
    )
)


class Acceptor:
    """Accepts connections for a `CallerServer` from non-blocking sockets that listen already.

    At most `max_connections` are open at once. A TLS handshake has the time of a header. `tls` and
    `max_connections` are read for every new connection, so that they can be replaced at any time.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        server: CallerServer,
        *,
        max_connections: int,
        tls: ssl.SSLContext | None,
        clock: Callable[[], float],
    ) -> None:
        self.tls = tls
        self.max_connections = max_connections
        self._sockets = tuple(sockets)
        self._server = server
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()
        self._resume_timer: asyncio.TimerHandle | None = None
        self._last_warning = -_WARNING_INTERVAL
        self._failure_count = 0
        self._closed = False

    @property
    def pending_handshakes(self) -> int:
        """Number of connections that are being set up, e.g. in their TLS handshake."""
        return len(self._arriving)

    def open(self) -> None:
        """Start accepting connections."""
        for listening in self._sockets:
            self._loop.add_reader(listening.fileno(), self._accept, listening)

    def close(self) -> None:
        """Accept the connections that the system has established already, then stop listening."""
        if self._closed:
            return
        self._closed = True
        if self._resume_timer is not None:
            self._resume_timer.cancel()
        for listening in self._sockets:
            self._loop.remove_reader(listening.fileno())
            while self._accept_one(listening):
                pass
            listening.close()

    async def abort(self) -> None:
        """Cancel connections that are still being set up."""
        tasks = tuple(self._arriving)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPT_BATCH):
            count = self._server.open_connections + self.pending_handshakes
            if count >= self.max_connections:
                self._close_idle_connection()
                return
            if not self._accept_one(listening):
                return

    def _accept_one(self, listening: socket.socket) -> bool:
        """Accept one connection; return False if there is none now."""
        try:
            connection, name = listening.accept()
        except OSError as error:
            if error.errno not in _NO_CONNECTION_ERRNOS:
                self._on_accept_failure(error)
            return False
        connection.setblocking(False)
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Otherwise a caller that vanished in the middle of a request would never be noticed.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._closed:
                os_support.take_all_packets(connection)
        task = self._loop.create_task(self._set_up(connection, socket_address(name)))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)
        return True

    async def _set_up(self, connection: socket.socket, address: str) -> None:
        tls = self.tls
        try:
            await self._loop.connect_accepted_socket(
                # `CallerConnection` has the methods of asyncio.Protocol but does not derive from
                # it: a derived class is slower when compiled.
                cast(
                    Callable[[], asyncio.Protocol], partial(self._server.make_connection, address)
                ),
                connection,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else self._server.limits.header_timeout,
                ssl_shutdown_timeout=None if tls is None else _TLS_SHUTDOWN_TIMEOUT,
            )
        except OSError as error:
            # Port scanners and callers that send plain HTTP to a TLS port need no action.
            _log.debug("a connection was not set up: %s", type(error).__name__)
            connection.close()
        except BaseException:
            connection.close()
            raise

    def _on_accept_failure(self, error: OSError) -> None:
        """Log that `accept` failed, at most every ten seconds, and pause accepting.

        New connections wait in the system's queue meanwhile.
        """
        self._failure_count += 1
        now = self._clock()
        if now - self._last_warning >= _WARNING_INTERVAL:
            name = errno.errorcode.get(error.errno or 0, "error")
            what = "out of file descriptors" if error.errno in _EXHAUSTED else "accept failed"
            _log.error("%s (%s): callers wait, %d refusals", what, name, self._failure_count)
            self._last_warning, self._failure_count = now, 0
        self._close_idle_connection()

    def _close_idle_connection(self) -> None:
        """Close an idle connection if there is one; pause accepting until its slot may be free."""
        pause = _SLOT_RELEASE_DELAY if self._server.close_oldest_idle() else _ACCEPT_PAUSE
        if self._closed or self._resume_timer is not None:
            return
        for listening in self._sockets:
            self._loop.remove_reader(listening.fileno())
        self._resume_timer = self._loop.call_later(pause, self._resume)

    def _resume(self) -> None:
        self._resume_timer = None
        if not self._closed:
            self.open()
