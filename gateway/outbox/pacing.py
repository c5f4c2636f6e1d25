"""How long to wait before the next attempt: of one entry, and of all while the line is down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.timing import backoff

# Seconds until a platform that may have a write surely finds it: its search lags behind.
INDEX_LAG: Final = 10.0


@dataclass(frozen=True, slots=True)
class RetryDelays:
    """In seconds. Each pause is twice the one before it, from `first` to the longest.

    `max_entry_delay` is of an entry that fails alone, `max_outage_delay` of what fails as the line
    is down. What the platform asks for (Retry-After) is kept up to `max_retry_after`. `index_lag`
    passes before the platform is asked whether it has something. While the line is down and
    something waits, the platform is asked for something light every `probe_interval`.
    """

    first: float = 1.0
    max_entry_delay: float = 300.0
    max_outage_delay: float = 30.0
    max_retry_after: float = 3600.0
    index_lag: float = INDEX_LAG
    probe_interval: float = 5.0


class RetrySchedule:
    """Makes pauses; `random` gives numbers from 0 to 1, so that not all come back at once."""

    def __init__(self, pauses: RetryDelays, random: Callable[[], float]) -> None:
        self._delays = pauses
        self._random = random

    def entry_delay(
        self, attempts: int, *, affects_all_entries: bool, retry_after: float | None
    ) -> float:
        """After so many attempts."""
        longest = (
            self._delays.max_outage_delay if affects_all_entries else self._delays.max_entry_delay
        )
        pause = backoff(attempts, self._delays.first, longest, self._random)
        return self._respect_retry_after(retry_after, pause)

    def outage_delay(self, failures: int, retry_after: float | None) -> float:
        """After so many failures one after the other."""
        pauses = self._delays
        pause = backoff(failures, pauses.first, pauses.max_outage_delay, self._random)
        return self._respect_retry_after(retry_after, pause)

    def trust_delay(self, false_recoveries: int) -> float:
        """Before it is believed once more that the line is back, after so many times in vain."""
        longest = self._delays.probe_interval
        return backoff(false_recoveries, self._delays.first, longest) if false_recoveries else 0.0

    def _respect_retry_after(self, retry_after: float | None, pause: float) -> float:
        return max(min(retry_after or 0.0, self._delays.max_retry_after), pause)


class PlatformReachability:
    """Whether the platform can be reached, as far as this process's attempts have shown.

    While it is down one attempt at a time shows whether it is back: after a pause, or at once when
    somebody else was answered. `is_reachable`: nothing speaks against it; a plain value, as it is
    asked for every answer of the platform.
    """

    def __init__(self, pacer: RetrySchedule, clock: Callable[[], float]) -> None:
        self._schedule = pacer
        self._clock = clock
        self._failures = 0
        self._next_at = 0.0
        self._failure_generation = 0
        # When it was last said to be back, and how often that was wrong.
        self._response_seen_in = -1
        self._possibly_stalled = 0
        self._false_recoveries = 0
        self._trusted_after = 0.0
        self.is_reachable = True

    @property
    def failure_generation(self) -> int:
        """Counts the failures; an attempt remembers at which it began."""
        return self._failure_generation

    @property
    def next_attempt_at(self) -> float:
        """The moment, on the clock, before which it is not tried."""
        return self._next_at

    def free_attempts(self, in_hand: int, parallel: int) -> int:
        """How many attempts may begin beside those in hand."""
        if self.is_reachable:
            return max(0, parallel - in_hand)
        # What was under way when the line was said to be back may hang on a dead connection.
        hanging = 0 if self.is_silent_outage else min(self._possibly_stalled, parallel - 1)
        return 1 if in_hand <= hanging and self._clock() >= self._next_at else 0

    @property
    def is_silent_outage(self) -> bool:
        """Whether it is down, and nobody was answered since."""
        return not self.is_reachable and self._response_seen_in != self._failure_generation

    def on_attempt_response(self) -> None:
        """The platform has answered an attempt."""
        self._failures = self._false_recoveries = 0
        self.is_reachable = True
        self._next_at = 0.0

    def on_other_response(self, in_hand: int) -> bool:
        """The platform has answered somebody else; whether that ends a pause.

        One who gets other answers than attempts do, for hours, does not have them made all the
        time.
        """
        now = self._clock()
        if not self.is_silent_outage or now < self._trusted_after:
            return False
        self._response_seen_in = self._failure_generation
        self._possibly_stalled = in_hand
        self._failures = 0
        self._next_at = now
        return True

    def on_inconclusive_attempt(self) -> None:
        """An attempt has ended that shows neither; the next one takes the usual time."""
        if not self.is_reachable:
            self._next_at = self._clock() + self._schedule.outage_delay(self._failures, None)

    def on_attempt_failure(self, turn: int, retry_after: float | None) -> None:
        """An attempt that began at `turn` has failed as all would.

        Those which were under way together count once.
        """
        if turn != self._failure_generation:
            return
        self._failure_generation += 1
        self._failures += 1
        self.is_reachable = False
        self._false_recoveries = self._false_recoveries + 1 if self._response_seen_in == turn else 0
        self._trusted_after = self._clock() + self._schedule.trust_delay(self._false_recoveries)
        self._next_at = self._clock() + self._schedule.outage_delay(self._failures, retry_after)
