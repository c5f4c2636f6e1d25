"""Aborts responses to slow or half-closed callers when requests wait for a platform connection.

Half-closed connections are aborted first: their callers may have disconnected. If no request waits,
their time is limited as well, but only until the response begins: from then on writing shows
whether the caller is still connected.

Slow readers are aborted next. Slow reading is allowed, also because of a bad network: a reader is
aborted only when requests wait for a connection. Readers below the minimum rate, averaged over the
last half minute in which the gateway waited for them, are aborted. If there are none, then for each
waiting request whose caller is within its share of connections, the slowest reader of a caller that
holds more than its share is aborted.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from gateway import os_support

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.http.server.caller_connection import CallerConnection

# Seconds of waiting over which the minimum rate is averaged, and between two samples.
_WINDOW: Final = 30.0
_SAMPLE_INTERVAL: Final = 1.0
# Seconds of accumulated waiting before a measured rate is used.
_MIN_MEASURED_TIME: Final = 1.0
# Seconds. How long a half-closed caller may acknowledge nothing of a response until `has_left`
# stops waiting, and the shortest and longest pause between two checks.
_ACKNOWLEDGEMENT_TIMEOUT: Final = 1.0
_MIN_PAUSE: Final = 0.001
_MAX_PAUSE: Final = 0.05
# A reader this many times faster than `limits.min_body_rate` is not a slow reader.
_FAST_FACTOR: Final = 64


class ResponseReader:
    """Measures how fast `caller` receives one response."""

    __slots__ = (
        "_samples",
        "_since",
        "_taken",
        "_unsent",
        "_waited",
        "caller",
        "connection",
    )

    def __init__(self, connection: CallerConnection, caller: str) -> None:
        self.caller = caller
        self.connection = connection
        # Seconds in which the gateway waited for the caller, and bytes that the caller received in
        # them. Other times do not count.
        self._waited = 0.0
        self._taken = 0
        self._samples: deque[tuple[float, int]] = deque(((0.0, 0),))
        self._since = 0.0
        self._unsent = 0

    def start_sampling(self, now: float) -> None:
        """Start measuring: the gateway waits for the caller from `now` on."""
        self._since, self._unsent = now, self.connection.unsent_bytes

    def sample(self, now: float) -> None:
        """Add the time until `now` and the bytes received in it."""
        unsent = self.connection.unsent_bytes
        self._waited += now - self._since
        self._taken += max(0, self._unsent - unsent)
        self._since, self._unsent = now, unsent
        samples = self._samples
        if self._waited - samples[-1][0] >= _SAMPLE_INTERVAL:
            samples.append((self._waited, self._taken))
        while len(samples) > 1 and self._waited - samples[1][0] >= _WINDOW:
            samples.popleft()

    @property
    def rate(self) -> float:
        """Bytes per second received recently; infinite before a second of waiting.

        It is not measured from the beginning, when the system's buffers take the data quickly.
        """
        waited, taken = self._samples[max(0, len(self._samples) - 2)]
        seconds = self._waited - waited
        return (self._taken - taken) / seconds if seconds >= _MIN_MEASURED_TIME else math.inf

    def is_below(self, rate: int) -> bool:
        """Return whether fewer than `rate` bytes per second were received until the last sample."""
        waited, taken = self._samples[0]
        seconds = self._waited - waited
        return seconds >= _WINDOW and self._taken - taken < rate * seconds


class SlowReaders:
    """The readers for which the gateway currently waits; `min_rate` is in bytes per second.

    `connections` is the number of connections to the platform, of which each caller has a share;
    `half_closed_timeout` is how long, in seconds, the gateway waits for a half-closed connection;
    `clock` is monotonic.
    """

    def __init__(
        self,
        min_rate: int,
        connections: int,
        clock: Callable[[], float],
        half_closed_timeout: float = math.inf,
    ) -> None:
        self._min_rate = min_rate
        self._connections = connections
        self._clock = clock
        self._half_closed_timeout = half_closed_timeout
        # The time until which the gateway waits for each connection, the earliest first.
        self._half_closed: dict[CallerConnection, float] = {}
        self._ended: list[CallerConnection] = []
        self._readers: dict[ResponseReader, None] = {}
        self._sampled_at = clock()

    def add(self, reader: ResponseReader) -> None:
        """Add a reader for which the gateway begins to wait."""
        reader.start_sampling(self._clock())
        self._readers[reader] = None

    def remove(self, reader: ResponseReader) -> None:
        """Remove a reader that has received enough, or whose caller has disconnected."""
        reader.sample(self._clock())
        self._readers.pop(reader, None)

    def add_half_closed(self, connection: CallerConnection, read: Exchange) -> None:
        """Add the connection of a read whose caller has closed its sending side."""
        read.half_closed = True
        self._half_closed[connection] = self._clock() + self._half_closed_timeout

    def remove_half_closed(self, connection: CallerConnection) -> None:
        """Remove a connection on which no read is running any more."""
        self._half_closed.pop(connection, None)

    @property
    def ending(self) -> int:
        """The number of aborted half-closed connections whose reads have not ended yet."""
        self._ended = [connection for connection in self._ended if connection.busy]
        return len(self._ended)

    def abort_slowest(self, waiting: Sequence[str]) -> None:
        """Abort at most one response for each request that waits for a connection.

        `waiting` lists the callers of these requests. Because the method also takes samples and
        ends half-closed connections, it must be called often, with an empty list as well.
        """
        now = self._clock()
        # Apart from the slice, whose bound mypyc evaluates twice.
        ended = self._end_half_closed(len(waiting), now)
        waiting = waiting[ended:]
        wanted = len(waiting)
        if not wanted and now - self._sampled_at < _SAMPLE_INTERVAL:
            return
        self._sampled_at = now
        for reader in self._readers:
            reader.sample(now)
        if not wanted:
            return
        below = [reader for reader in self._readers if reader.is_below(self._min_rate)][:wanted]
        for reader in below or self._over_fair_share(waiting):
            del self._readers[reader]
            reader.connection.abort()

    def _end_half_closed(self, wanted: int, now: float) -> int:
        """Abort half-closed connections and return how many.

        These are the first `wanted` ones, and others whose time is over before their response has
        begun.
        """
        ended: list[CallerConnection] = []
        for connection, until in self._half_closed.items():
            is_wanted = len(ended) < wanted
            if not is_wanted and until > now:
                break
            if is_wanted or not connection.has_started_response:
                ended.append(connection)
        for connection in ended:
            del self._half_closed[connection]
            connection.abort()
        self._ended += ended
        return len(ended)

    def _over_fair_share(self, waiting: Sequence[str]) -> list[ResponseReader]:
        """Return the slowest readers of callers that hold more than their share of connections.

        It is one for each waiting request whose caller is within its share. All callers have the
        same share, and one share is left for waiting requests.
        """
        by_caller: dict[str, list[ResponseReader]] = {}
        for reader in self._readers:
            by_caller.setdefault(reader.caller, []).append(reader)
        share = max(1, self._connections // (len(by_caller) + 1))
        wanted = sum(len(by_caller.get(caller, ())) < share for caller in waiting)
        fast_rate = _FAST_FACTOR * self._min_rate
        over_share = [
            reader
            for readers in by_caller.values()
            for reader in sorted(readers, key=lambda reader: reader.rate)[
                : max(0, len(readers) - share)
            ]
            if reader.rate < fast_rate
        ]
        return sorted(over_share, key=lambda reader: reader.rate)[:wanted]


async def has_left(connection: CallerConnection) -> bool:
    """Return whether a half-closed caller has disconnected, judged by its acknowledgements.

    A caller that is still connected acknowledges what was written. The result is False also if
    there is neither an acknowledgement nor a reset in time.
    """
    connection.flush()
    pause = silence = 0.0
    unsent = 0
    while silence < _ACKNOWLEDGEMENT_TIMEOUT:
        await asyncio.sleep(pause)
        transport = connection.transport
        if (
            transport is None
            or transport.is_closing()
            or os_support.has_failed(transport.get_extra_info("socket"))
        ):
            return True
        before, unsent = unsent, connection.unsent_bytes
        if not unsent:
            break
        silence = 0.0 if unsent < before else silence + pause
        pause = min(max(2 * pause, _MIN_PAUSE), _MAX_PAUSE)
    return False
