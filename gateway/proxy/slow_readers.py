"""Callers that take their answers slowly, while a connection to the platform is held for each.

Slow is allowed, on a bad line as well: one is given up only when others wait for a connection, and
only below the minimum rate, averaged over the last half minute in which the gateway waited for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

_WINDOW: Final = 30.0
_SAMPLE: Final = 1.0


class Reading(Protocol):
    """What is needed of a caller's connection."""

    @property
    def unsent(self) -> int:
        """How many bytes wait to be taken."""
        ...

    def abort(self, *, reset: bool = False) -> None:
        """End it so that no answer looks complete."""
        ...


class SlowReader:
    """The reader of one answer; `reset` is how its connection is to be aborted."""

    __slots__ = ("_connection", "_reset", "_samples", "_since", "_taken", "_unsent", "_waited")

    def __init__(self, connection: Reading, *, reset: bool) -> None:
        self._connection = connection
        self._reset = reset
        # Only the time in which it is waited for counts, and what it takes in that.
        self._waited = 0.0
        self._taken = 0
        self._samples: deque[tuple[float, int]] = deque(((0.0, 0),))
        self._since = 0.0
        self._unsent = 0

    def give_up(self) -> None:
        """End its connection."""
        self._connection.abort(reset=self._reset)

    def begin(self, now: float) -> None:
        """From here on it is waited for."""
        self._since, self._unsent = now, self._connection.unsent

    def note(self, now: float) -> None:
        """Count what it took until now."""
        unsent = self._connection.unsent
        self._waited += now - self._since
        self._taken += max(0, self._unsent - unsent)
        self._since, self._unsent = now, unsent
        samples = self._samples
        if self._waited - samples[-1][0] >= _SAMPLE:
            samples.append((self._waited, self._taken))
        while len(samples) > 1 and self._waited - samples[1][0] >= _WINDOW:
            samples.popleft()

    def is_below(self, rate: int) -> bool:
        """Whether it took fewer bytes a second than that, when it was last noted."""
        waited, taken = self._samples[0]
        seconds = self._waited - waited
        return seconds >= _WINDOW and self._taken - taken < rate * seconds


class SlowReaders:
    """Those that are waited for now; `min_rate` in bytes a second."""

    def __init__(self, min_rate: int, clock: Callable[[], float]) -> None:
        self._min_rate = min_rate
        self._clock = clock
        self._readers: dict[SlowReader, None] = {}
        self._noted = clock()

    def begin(self, reader: SlowReader) -> None:
        """It is waited for."""
        reader.begin(self._clock())
        self._readers[reader] = None

    def end(self, reader: SlowReader) -> None:
        """It took enough, or left."""
        reader.note(self._clock())
        self._readers.pop(reader, None)

    def make_way(self, wanted: int) -> None:
        """Give up as many as others want connections; to be called often, also for none."""
        now = self._clock()
        if not wanted and now - self._noted < _SAMPLE:
            return
        self._noted = now
        for reader in tuple(self._readers):
            reader.note(now)
            if wanted > 0 and reader.is_below(self._min_rate):
                wanted -= 1
                del self._readers[reader]
                reader.give_up()
