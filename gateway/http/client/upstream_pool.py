"""The connections to the platform: opened when needed, reused while their state is certain.

One pool serves one origin. Waiting for a free connection, connecting, idle time and age are all
bounded; one sweep enforces all deadlines, instead of a timer for each exchange.

The connections are shared among callers: a freed connection goes to the waiting caller that holds
the fewest, and no caller that holds many can take the last ones, whatever it uses the others for.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohappyeyeballs import start_connection

from gateway import errors
from gateway.errors import GatewayError
from gateway.http.client.tls_transport import TlsTransport
from gateway.http.client.upstream_connect import (
    RETRY_AFTER,
    UpstreamOrigin,
    connect_error,
    open_tunnel,
)
from gateway.http.client.upstream_connection import UpstreamConnection
from gateway.http.slow_readers import SlowReaders
from gateway.http.write_batching import WriteBatcher

if TYPE_CHECKING:
    from gateway.config.outbound_settings import PlatformSettings

# Seconds.
_SWEEP_INTERVAL: Final = 0.2
# Seconds for which a request waits before a response to a slow reader is aborted, at most half of
# those for which it waits for a connection at all.
_PATIENCE: Final = 1.0
# Seconds. Load balancers allow more, so that a request seldom meets a connection being closed.
_IDLE_TIMEOUT: Final = 15.0
# Seconds before the announced moment, for the way there: a write that meets the close is in doubt.
_IDLE_MARGIN: Final = 1.0
_ANNOUNCED_TIMEOUT: Final = re.compile(rb"timeout *= *\"?([0-9]{1,9})", re.IGNORECASE)
# Seconds. New connections are needed for a changed DNS entry to take effect.
_MAX_AGE: Final = 120.0
# Seconds without a connection after which the platform's next address is tried in parallel.
_NEXT_ADDRESS_DELAY: Final = 0.25
# Connections that are opened at the same time: hundreds at once would delay all other work.
_MAX_CONNECTING: Final = 32
# Where there are several callers, one holds at most so many times the number of connections that
# are left: 249 of 256 connections, and all of up to 32. The more callers hold many, the fewer are
# left, but there is always one. Whether slow readers or a slow search hold them cannot be known at
# once, and the first request of another caller must not wait for that.
_TIMES_LEFT: Final = 32
# Deliveries from the outbox, as a caller. No name in the settings has a space.
DELIVERIES: Final = "outbox deliveries"


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    """A queued request for a connection.

    `number` is its position in the order of arrival; `needs_new`: an idle connection will not do.
    `future` resolves to an idle connection, or to None when the waiter may open a new one.
    """

    caller: str
    number: int
    needs_new: bool
    since: float
    future: asyncio.Future[UpstreamConnection | None]


def _idle_timeout(announced: bytes | None) -> float:
    """Return for how many seconds a connection may rest, by a Keep-Alive field (RFC 2068, 19.7.1).

    Apache httpd and Node.js announce 5 s.
    """
    found = None if announced is None else _ANNOUNCED_TIMEOUT.search(announced)
    if found is None:
        return _IDLE_TIMEOUT
    timeout = float(found[1])
    return min(_IDLE_TIMEOUT, max(timeout - _IDLE_MARGIN, timeout / 2))


class UpstreamPool:
    """At most `settings.max_connections` connections to one origin.

    `shared`: there are several callers, so that connections are reserved for others than the one
    that holds the most. `readers`: slow readers that are aborted when a request waits; without it
    none are. `clock` is monotonic.
    """

    def __init__(
        self,
        origin: UpstreamOrigin,
        *,
        settings: PlatformSettings,
        clock: Callable[[], float],
        shared: bool = False,
        readers: SlowReaders | None = None,
    ) -> None:
        self.slow_readers = readers or SlowReaders(0, clock)
        self._origin = origin
        self._connect_timeout = settings.connect_timeout
        self._response_timeout = settings.response_timeout
        self._idle_timeout = settings.idle_timeout
        self._max_connections = settings.max_connections
        self._has_several_callers = shared
        self._clock = clock
        self._batching = WriteBatcher()
        # Idle connections, the most recently used one last.
        self._idle: list[UpstreamConnection] = []
        # Connections in use, and the caller of each.
        self._active: dict[UpstreamConnection, str] = {}
        # Slots for new connections, counted from the moment at which a waiter is promised one.
        self._connecting = 0
        # Connections that each caller uses, and slots that it was promised.
        self._held_by_caller: defaultdict[str, int] = defaultdict(int)
        # Waiters by caller; no queue in it is empty. While a caller waits there is no connection it
        # could take: only a caller that holds fewer connections is served first.
        self._waiters: dict[str, deque[_Waiter]] = {}
        self._waiter_count = 0
        self._opening = asyncio.Semaphore(_MAX_CONNECTING)
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._draining = False

    def open(self) -> None:
        """Start the sweep; needs a running loop."""
        self._sweep()

    def drain(self) -> None:
        """Close all idle connections and reuse none from now on; running exchanges continue."""
        self._draining = True
        while self._idle:
            self._idle.pop(0).close()

    def close(self) -> None:
        """Abort all connections; running exchanges fail."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for connection in (*self._idle, *self._active):
            connection.abort()
        self._idle.clear()

    def connection_counts(self) -> Mapping[str, int]:
        """Return the number of connections in each state, for the gauge."""
        return {
            "idle": len(self._idle),
            "active": len(self._active),
            "connecting": self._connecting,
        }

    async def acquire(self, caller: str = "", *, force_new: bool = False) -> UpstreamConnection:
        """Return a connection for exclusive use by `caller`, a new one if `force_new`.

        Raises `GatewayError`: upstream-busy when none is free within the connect timeout,
        upstream-unreachable or upstream-tls when a new one cannot be opened. Nothing was sent then.
        """
        connection = None if force_new else self.try_acquire_idle(caller)
        if connection is None and not self._reserve_slot(caller, new=force_new):
            connection = await self._wait_for_connection(caller, new=force_new)
        if connection is None:
            connection = await self._connect(caller)
        return connection

    def try_acquire_idle(self, caller: str = "") -> UpstreamConnection | None:
        """Return an idle connection as `acquire` would, or None; does not wait."""
        if not self._can_acquire(caller):
            return None
        now = self._clock()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and now < connection.idle_until:
                self._active[connection] = caller
                self._held_by_caller[caller] += 1
                return connection
            connection.close()
        return None

    def release(self, connection: UpstreamConnection) -> None:
        """Return a connection to the pool; one whose state is uncertain is closed."""
        caller = self._active.pop(connection, None)
        if caller is not None:
            self._held_by_caller[caller] -= 1
        now = self._clock()
        keep = not self._draining and now - connection.opened_at < _MAX_AGE
        if keep and connection.is_reusable:
            connection.mark_idle(now + _idle_timeout(connection.announced_keep_alive))
            self._idle.append(connection)
        elif connection.complete:
            connection.close()
        else:
            connection.abort()
        if self._waiters:
            self._serve_waiters()

    def _can_acquire(self, caller: str) -> bool:
        """Return whether `caller` may take a connection, idle or new.

        It may not take those that are reserved for other callers.
        """
        left = self._max_connections - len(self._active) - self._connecting
        return left > 0 and not (
            self._has_several_callers and self._held_by_caller[caller] >= _TIMES_LEFT * left
        )

    def _reserve_slot(self, caller: str, *, new: bool) -> bool:
        """Reserve a slot for a new connection; return False if there is none for this caller.

        If `new`, an idle connection is closed where all slots are taken.
        """
        if not self._can_acquire(caller):
            return False
        if new and sum(self.connection_counts().values()) >= self._max_connections:
            self._idle.pop(0).close()
        self._connecting += 1
        self._held_by_caller[caller] += 1
        return True

    async def _wait_for_connection(self, caller: str, *, new: bool) -> UpstreamConnection | None:
        """Wait in the queue; return an idle connection, or None if a new one may be opened.

        Raises `GatewayError` upstream-busy.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiter_count += 1
        waiter = _Waiter(caller, self._waiter_count, new, self._clock(), future)
        self._waiters.setdefault(caller, deque()).append(waiter)
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._await_connection(waiter)
        except TimeoutError:
            busy = (
                f"all {self._max_connections} connections to the platform stayed in use "
                f"for {self._connect_timeout:g} s"
            )
            raise GatewayError(errors.UPSTREAM_BUSY, busy, retry_after=RETRY_AFTER) from None
        if connection is not None and not connection.is_reusable:
            # The connection broke before this task resumed; a new one may replace it.
            connection.close()
            del self._active[connection]
            self._connecting += 1
            connection = None
        return connection

    async def _await_connection(self, waiter: _Waiter) -> UpstreamConnection | None:
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter in self._waiters.get(waiter.caller, ()):
                self._leave_queue(waiter)
            elif not waiter.future.cancelled():
                # The waiter was served at the moment at which the wait ended.
                self._hand_over(waiter)
            raise

    def _leave_queue(self, waiter: _Waiter) -> None:
        queue = self._waiters[waiter.caller]
        queue.remove(waiter)
        if not queue:
            del self._waiters[waiter.caller]

    def _hand_over(self, waiter: _Waiter) -> None:
        connection = waiter.future.result()
        if connection is not None:
            self.release(connection)
        else:
            self._release_slot(waiter.caller)

    def _release_slot(self, caller: str) -> None:
        self._connecting -= 1
        self._held_by_caller[caller] -= 1
        self._serve_waiters()

    def _serve_waiters(self) -> None:
        """Give freed connections to waiters: the caller that holds the fewest, then the earliest.

        Deliveries from the outbox come last: no person waits for them.
        A freed connection goes to a waiter at once; otherwise the next arriving request could take
        it, also for a caller that already holds many.
        """
        while self._waiters:
            *_, caller = min(
                (caller == DELIVERIES, self._held_by_caller[caller], queue[0].number, caller)
                for caller, queue in self._waiters.items()
            )
            waiter = self._waiters[caller][0]
            if not waiter.future.done():
                connection = None if waiter.needs_new else self.try_acquire_idle(caller)
                if connection is None and not self._reserve_slot(caller, new=waiter.needs_new):
                    return
                waiter.future.set_result(connection)
            self._leave_queue(waiter)

    async def _connect(self, caller: str) -> UpstreamConnection:
        """Open a new connection in the slot that was reserved for it."""
        try:
            # A caller's first connection does not wait behind the hundreds of another caller.
            connect_slot = self._opening if self._held_by_caller[caller] > 1 else nullcontext()
            async with asyncio.timeout(self._connect_timeout), connect_slot:
                connection = await self._open_connection()
        except BaseException as error:
            self._release_slot(caller)
            if isinstance(error, OSError):
                raise connect_error(error, self._origin, self._connect_timeout) from None
            raise
        self._connecting -= 1
        self._active[connection] = caller
        return connection

    async def _open_connection(self) -> UpstreamConnection:
        origin = self._origin
        loop = asyncio.get_running_loop()
        first = origin.proxy or origin
        addresses = await loop.getaddrinfo(first.host, first.port, type=socket.SOCK_STREAM)
        # One unreachable address must not take up the whole timeout (RFC 8305).
        raw = await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_DELAY, loop=loop)
        try:
            if origin.proxy is not None:
                await open_tunnel(raw, origin.host, origin.port)
            connection = UpstreamConnection(
                self._clock,
                self._on_connection_lost,
                response_timeout=self._response_timeout,
                idle_timeout=self._idle_timeout,
                batching=self._batching,
            )
            if origin.tls is None:
                await loop.create_connection(lambda: connection, sock=raw)
                return connection
            secure = TlsTransport(connection, origin.tls, origin.host)
            await loop.create_connection(lambda: secure, sock=raw)
        except BaseException:
            raw.close()
            raise
        await secure.wait_established()
        return connection

    def _on_connection_lost(self, connection: UpstreamConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def _sweep(self) -> None:
        now = self._clock()
        since = now - min(_PATIENCE, self._connect_timeout / 2)
        self.slow_readers.sample(
            is_awaited=any(queue[0].since <= since for queue in self._waiters.values())
        )
        for connection in tuple(self._active):
            if connection.deadline <= now:
                connection.abort("timeout")
        while self._idle and now >= self._idle[0].idle_until:
            self._idle.pop(0).close()
        self._sweep_timer = asyncio.get_running_loop().call_later(_SWEEP_INTERVAL, self._sweep)
