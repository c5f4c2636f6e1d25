"""Aborts a response to a slow reader when a request waits for a connection to the platform.

Slow reading is allowed, also because of a bad network. When a request has waited a second, the
response whose caller took least in the last half minute is aborted, if that is below the minimum
rate; after another second of waiting the next one.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gateway import os_support

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.http.server.caller_connection import CallerConnection

# Seconds between two samples, and over which the minimum rate is averaged.
_SAMPLE_INTERVAL: Final = 1.0
_WINDOW: Final = 30
# Seconds. How long a half-closed caller may acknowledge nothing of a response until `has_left`
# stops waiting, and the shortest and longest pause between two checks.
_ACKNOWLEDGEMENT_TIMEOUT: Final = 1.0
_MIN_PAUSE: Final = 0.001
_MAX_PAUSE: Final = 0.05


class ResponseReader:
    """Measures how much of one response its caller takes, while the gateway waits for the caller.

    Time in which the gateway waits for the platform does not count.
    """

    __slots__ = ("_exchange", "_taken", "connection")

    def __init__(self, connection: CallerConnection, exchange: Exchange) -> None:
        self.connection = connection
        self._exchange = exchange
        # The bytes that were taken until each of the last samples.
        self._taken: deque[int] = deque(maxlen=_WINDOW + 1)

    def sample(self) -> None:
        """Note what the caller has taken; to be called every second."""
        self._taken.append(self._exchange.response_bytes - self.connection.unsent_bytes)

    def rate(self) -> float:
        """Return the bytes taken per second of the last half minute, inf before that is over."""
        samples = self._taken
        return math.inf if len(samples) <= _WINDOW else (samples[-1] - samples[0]) / _WINDOW


class SlowReaders:
    """The readers for which the gateway currently waits.

    `min_rate` is in bytes per second; `clock` is monotonic.
    """

    def __init__(self, min_rate: int, clock: Callable[[], float]) -> None:
        self._min_rate = min_rate
        self._clock = clock
        self._readers: dict[ResponseReader, None] = {}
        self._sampled_at = clock()

    def add(self, reader: ResponseReader) -> None:
        """Add a reader for which the gateway begins to wait."""
        self._readers[reader] = None

    def remove(self, reader: ResponseReader) -> None:
        """Remove a reader that has received enough, or whose caller has disconnected."""
        self._readers.pop(reader, None)

    def sample(self, *, is_awaited: bool) -> None:
        """Take a sample if one is due; to be called often.

        `is_awaited`: a request has waited a second for a connection, so that the slowest reader is
        aborted.
        """
        now = self._clock()
        if not self._readers or now - self._sampled_at < _SAMPLE_INTERVAL:
            return
        self._sampled_at = now
        for reader in self._readers:
            reader.sample()
        slowest = min(self._readers, key=ResponseReader.rate)
        if is_awaited and slowest.rate() < self._min_rate:
            del self._readers[slowest]
            slowest.connection.abort()


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
