"""The callers' side: makes connections of what was accepted, and looks after them.

Nothing here decides where a request goes.
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

_SWEEP_INTERVAL: Final = 0.25


class CallerServer:
    """Makes connections and looks after those that keep their header to themselves."""

    def __init__(self, sink: RequestHandler, limits: ListenLimits) -> None:
        self._loop = asyncio.get_running_loop()
        self._sink = sink
        self._batching = WriteBatcher()
        self.scheduler = FairScheduler()
        self.limits = limits  # of connections to come
        # In the order in which they were made; a lost one stays until its exchange is over.
        self._connections: dict[CallerConnection, None] = {}
        # Those that closed and still have something to send.
        self._closing: dict[CallerConnection, ClosingConnection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._sweep()

    def __call__(self, address: str = "") -> CallerConnection:
        """A connection, of a caller at that address."""
        return CallerConnection(self, self._sink, self._batching, address, self.limits)

    def on_connection_opened(self, connection: CallerConnection) -> None:
        """A connection was made."""
        self._connections[connection] = None

    def on_connection_lost(self, connection: CallerConnection) -> None:
        """A connection was lost, but not the exchange on it: a write takes its course."""
        self._closing.pop(connection, None)
        task = connection.task
        if task is None:
            self._connections.pop(connection, None)
        else:
            task.add_done_callback(lambda _: self._connections.pop(connection, None))

    def close_transport(self, connection: CallerConnection, transport: asyncio.Transport) -> None:
        """Close a connection's transport; what it holds is sent while the caller takes it."""
        transport.close()
        if connection not in self._closing and transport.get_write_buffer_size():
            self._closing[connection] = ClosingConnection(transport, self._loop.time())

    @property
    def open_connections(self) -> int:
        """How many callers are connected."""
        return len(self._connections)

    @property
    def unfinished_count(self) -> int:
        """On how many connections the gateway still owes something."""
        now = self._loop.time()
        return sum(connection.has_unfinished_work(now) for connection in self._connections)

    def close_oldest_idle(self) -> bool:
        """Close the longest open of the idle connections to make room; False if there is none."""
        now = self._loop.time()
        return any(
            connection.is_idle(now) and connection.close_if_idle()
            for connection in self._connections
        )

    async def abort_exchanges(self) -> None:
        """Cancel every exchange in flight, and wait until each is accounted for."""
        tasks = [connection.task for connection in self._connections if connection.busy]
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that the server owns."""
        task = self._loop.create_task(run_task_root(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def shutdown(self, timeout: float) -> None:
        """End every connection; what is under way gets `timeout` seconds, twice."""
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*(each.shutdown(timeout) for each in tuple(self._connections)))
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
