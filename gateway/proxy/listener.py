"""The callers' side: aiohttp's low-level server, told to make connections of our own.

Nothing here decides where a request goes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from aiohttp.web_server import Server

from gateway.proxy.caller_connection import KEEP_ALIVE, LINGER, CallerConnection, RequestSink
from gateway.proxy.turn_end import TurnEnd

_SWEEP_INTERVAL: Final = 0.25


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


class CallerServer(Server):
    """Makes connections and looks after those that keep their header to themselves."""

    def __init__(self, sink: RequestSink, limits: ListenLimits) -> None:
        # Connections call the sink themselves; aiohttp only keeps them.
        super().__init__(sink.handle, handler_cancellation=False)  # type: ignore[arg-type]
        self._sink = sink
        self._turn_end = TurnEnd()
        self.limits = limits  # of connections to come
        self._tasks: set[asyncio.Task[None]] = set()
        self._callerless: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._sweep()

    def __call__(self, address: str = "") -> CallerConnection:
        """A connection, of a caller at that address, with our limits.

        aiohttp's factory would drop them all after one typo.
        """
        return CallerConnection(
            self,
            self._sink,
            self._turn_end,
            address,
            loop=self._loop,
            keepalive_timeout=KEEP_ALIVE,
            access_log=None,
            max_line_size=self.limits.url_bytes,
            max_field_size=self.limits.header_bytes,
            max_headers=self.limits.headers,
            auto_decompress=False,
            lingering_time=LINGER,
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
            *self._callerless,
            *(
                connection.task
                for connection in self._connections
                if isinstance(connection, CallerConnection) and connection.busy
            ),
        ]
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)

    def outlived_by(self, exchange: asyncio.Task[None]) -> None:
        """A connection is lost, but not the exchange on it: a write takes its course."""
        self._callerless.add(exchange)
        exchange.add_done_callback(self._callerless.discard)

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
                self.spawn(connection.refuse_header())
            elif connection.silent(now, timeout):
                connection.force_close()
        self._timer = self._loop.call_later(_SWEEP_INTERVAL, self._sweep)
