"""Callers that make way when others wait for a connection to the platform.

First those that have closed their sending side: they may have left. Even where no request waits,
they are waited for only so long, until the answer begins, as writing tells whether a caller is
there.

Then those that take their answers slowly. Slow is allowed, on a bad line as well: one is given up
only when others wait for a connection. Then those go that are below the minimum rate, averaged over
the last half minute in which the gateway waited for them; else, for each that waits within its
caller's share, the slowest of a caller that holds more than its share.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

_WINDOW: Final = 30.0
_SAMPLE: Final = 1.0
# Who is waited for that long is no longer just taking breath.
_SETTLED: Final = 1.0
# Who takes so many times the minimum rate is no slow reader.
_FAST_FACTOR: Final = 64


class DownstreamConnection(Protocol):
    """A caller's connection, of which the platform's side, which uses this, knows nothing else."""

    @property
    def unsent_bytes(self) -> int:
        """How many bytes wait to be taken."""
        ...

    @property
    def answering(self) -> bool:
        """Whether the answer to the request under way has begun."""
        ...

    def abort(self) -> None:
        """End it so that no answer looks complete."""
        ...


class Read(Protocol):
    """A read under way. `half_closed` says that its caller has closed its sending side."""

    half_closed: bool


class ResponseReader:
    """The reader of one answer for `caller`."""

    __slots__ = (
        *("_connection", "_samples", "_since", "_taken", "_unsent", "_waited"),
        "caller",
    )

    def __init__(self, connection: DownstreamConnection, caller: str) -> None:
        self.caller = caller
        self._connection = connection
        # Only the time in which it is waited for counts, and what it takes in that.
        self._waited = 0.0
        self._taken = 0
        self._samples: deque[tuple[float, int]] = deque(((0.0, 0),))
        self._since = 0.0
        self._unsent = 0

    def abort(self) -> None:
        """End its connection."""
        self._connection.abort()

    def start_sampling(self, now: float) -> None:
        """From here on it is waited for."""
        self._since, self._unsent = now, self._connection.unsent_bytes

    def sample(self, now: float) -> None:
        """Count what it took until now."""
        unsent = self._connection.unsent_bytes
        self._waited += now - self._since
        self._taken += max(0, self._unsent - unsent)
        self._since, self._unsent = now, unsent
        samples = self._samples
        if self._waited - samples[-1][0] >= _SAMPLE:
            samples.append((self._waited, self._taken))
        while len(samples) > 1 and self._waited - samples[1][0] >= _WINDOW:
            samples.popleft()

    @property
    def rate(self) -> float:
        """Bytes a second that it took of late; infinite as long as it was hardly waited for.

        Not from the beginning: at first it is the system's buffers that take, and quickly.
        """
        waited, taken = self._samples[max(0, len(self._samples) - 2)]
        seconds = self._waited - waited
        return (self._taken - taken) / seconds if seconds >= _SETTLED else math.inf

    def is_below(self, rate: int) -> bool:
        """Whether it took fewer bytes a second than that, when it was last noted."""
        waited, taken = self._samples[0]
        seconds = self._waited - waited
        return seconds >= _WINDOW and self._taken - taken < rate * seconds


class SlowReaders:
    """Those that are waited for now; `min_rate` in bytes a second.

    `connections` is how many there are to the platform, of which each caller has a share;
    `half_closed_timeout` how long, in seconds, one that has closed its sending side is waited for.
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
        # Until when each is waited for, the first to end first.
        self._half_closed: dict[DownstreamConnection, float] = {}
        self._readers: dict[ResponseReader, None] = {}
        self._noted = clock()

    def add(self, reader: ResponseReader) -> None:
        """It is waited for."""
        reader.start_sampling(self._clock())
        self._readers[reader] = None

    def remove(self, reader: ResponseReader) -> None:
        """It took enough, or left."""
        reader.sample(self._clock())
        self._readers.pop(reader, None)

    def add_half_closed(self, connection: DownstreamConnection, read: Read) -> None:
        """The caller of this read sends no more on its connection."""
        read.half_closed = True
        self._half_closed[connection] = self._clock() + self._half_closed_timeout

    def remove_half_closed(self, connection: DownstreamConnection) -> None:
        """No read is under way there any more."""
        self._half_closed.pop(connection, None)

    def abort_slowest(self, waiting: Sequence[str]) -> None:
        """Give up as many as wait for connections, told by their callers.

        To be called often, also for none.
        """
        now = self._clock()
        waiting = waiting[self._end_half_closed(len(waiting), now) :]
        wanted = len(waiting)
        if not wanted and now - self._noted < _SAMPLE:
            return
        self._noted = now
        for reader in self._readers:
            reader.sample(now)
        if not wanted:
            return
        below = [reader for reader in self._readers if reader.is_below(self._min_rate)][:wanted]
        for reader in below or self._over_fair_share(waiting):
            del self._readers[reader]
            reader.abort()

    def _end_half_closed(self, wanted: int, now: float) -> int:
        """End those whose time is over, and at least so many if there are; how many it were."""
        ended: list[DownstreamConnection] = []
        for connection, until in self._half_closed.items():
            is_wanted = len(ended) < wanted
            if not is_wanted and until > now:
                break
            if is_wanted or not connection.answering:
                ended.append(connection)
        for connection in ended:
            del self._half_closed[connection]
            connection.abort()
        return len(ended)

    def _over_fair_share(self, waiting: Sequence[str]) -> list[ResponseReader]:
        """The slowest of callers that hold more than their share: one for each within its own.

        All get the same share of the connections, and one is left for who waits.
        """
        by_caller: dict[str, list[ResponseReader]] = {}
        for reader in self._readers:
            by_caller.setdefault(reader.caller, []).append(reader)
        share = max(1, self._connections // (len(by_caller) + 1))
        wanted = sum(len(by_caller.get(caller, ())) < share for caller in waiting)
        brisk = _FAST_FACTOR * self._min_rate
        beyond = [
            reader
            for readers in by_caller.values()
            for reader in sorted(readers, key=_rate)[: max(0, len(readers) - share)]
            if reader.rate < brisk
        ]
        return sorted(beyond, key=_rate)[:wanted]


def _rate(reader: ResponseReader) -> float:
    return reader.rate
