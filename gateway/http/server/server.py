"""The HTTP server for callers: creates connections and enforces their timeouts.

Nothing here decides where a request is forwarded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

from gateway.http.server.closing import ClosingConnection
from gateway.http.server.connection import CallerConnection, RequestHandler
from gateway.http.server.reader import ListenLimits
from gateway.http.server.rooted import run_task_root
from gateway.http.server.turnstile import FairScheduler
from gateway.http.write_batching import WriteBatcher

# Seconds.
_SWEEP_INTERVAL: Final = 0.25


class CallerServer:
    """Creates connections and ends those that are idle, silent or stalled for too long.

    A header that is overdue gets an error response. The class needs a running loop.
    """

    def __init__(self, handler: RequestHandler, limits: ListenLimits) -> None:
        self._loop = asyncio.get_running_loop()
        self._handler = handler
        self._batching = WriteBatcher()
        self.scheduler = FairScheduler()
        self.limits = limits  # of connections that will be created, and of the sweep
        # In the order of opening. A lost connection stays until its exchange has ended.
        self._connections: dict[CallerConnection, None] = {}
        # Connections that were closed while their transport still holds data to send.
        self._closing: dict[CallerConnection, ClosingConnection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._sweep()

    def __call__(self, address: str = "") -> CallerConnection:
        """Return a new connection of a caller at `address`."""
        return CallerConnection(self, self._handler, self._batching, address, self.limits)

    def on_connection_opened(self, connection: CallerConnection) -> None:
        """Register a connection that was opened."""
        self._connections[connection] = None

    def on_connection_lost(self, connection: CallerConnection) -> None:
        """Remove a lost connection after its exchange: a write is still carried out."""
        self._closing.pop(connection, None)
        task = connection.task
        if task is None:
            self._connections.pop(connection, None)
        else:
            task.add_done_callback(lambda _: self._connections.pop(connection, None))

    def close_transport(self, connection: CallerConnection, transport: asyncio.Transport) -> None:
        """Close a connection's transport; buffered data is sent as long as the caller reads it."""
        transport.close()
        # A transport that cannot be half-closed is one over TLS.
        if connection not in self._closing and (
            transport.get_write_buffer_size() or not transport.can_write_eof()
        ):
            self._closing[connection] = ClosingConnection(transport, self._loop.time())

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
        tasks = [connection.task for connection in self._connections if connection.busy]
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task that the server owns."""
        task = self._loop.create_task(run_task_root(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
                self.spawn(connection.send_header_timeout())
            elif connection.is_silent(now, timeout) or connection.is_keep_alive_expired(now):
                connection.close_if_idle()
        for closing in tuple(self._closing.values()):
            closing.abort_if_stalled(now, self.limits.write_stall_timeout)
        self._timer = self._loop.call_later(_SWEEP_INTERVAL, self._sweep)
