"""The delay before the next attempt: at one entry, and at all during an outage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.clock import backoff

# Seconds. Each delay is twice the one before it, from the first to a maximum: that of an entry
# that fails alone, or that of failures which an outage causes.
_FIRST_DELAY: Final = 1.0
MAX_ENTRY_DELAY: Final = 300.0
MAX_OUTAGE_DELAY: Final = 30.0
# After a collision: eight take a minute at most, for which the entry holds up those behind it.
_FIRST_COLLISION_DELAY: Final = 0.25
_MAX_COLLISION_DELAY: Final = 30.0
# Up to this a Retry-After of the platform is respected.
MAX_RETRY_AFTER: Final = 3600.0
# Seconds until a search at the platform certainly finds a write: its index lags behind. They pass
# before a verification.
INDEX_LAG: Final = 10.0
# Seconds between two probes of the platform during an outage, while an entry waits.
PROBE_INTERVAL: Final = 5.0


class RetrySchedule:
    """Computes delays; `random` returns numbers from 0 to 1, so that not all retries coincide."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random

    def entry_delay(
        self, attempts: int, *, affects_all_entries: bool, retry_after: float | None
    ) -> float:
        """Return the seconds until the next attempt of an entry after `attempts` attempts."""
        max_delay = MAX_OUTAGE_DELAY if affects_all_entries else MAX_ENTRY_DELAY
        delay = backoff(attempts, _FIRST_DELAY, max_delay, self._random)
        return self._respect_retry_after(retry_after, delay)

    def collision_delay(self, collisions: int) -> float:
        """Return the seconds until the next attempt of an entry after so many collisions."""
        return backoff(collisions, _FIRST_COLLISION_DELAY, _MAX_COLLISION_DELAY, self._random)

    def outage_delay(self, failures: int, retry_after: float | None) -> float:
        """Return the seconds until the next attempt after so many consecutive failures."""
        delay = backoff(failures, _FIRST_DELAY, MAX_OUTAGE_DELAY, self._random)
        return self._respect_retry_after(retry_after, delay)

    def trust_delay(self, false_recoveries: int) -> float:
        """Return the seconds for which responses to other requests do not count as a recovery.

        `false_recoveries` is how often the next attempt failed after such a response.
        """
        return backoff(false_recoveries, _FIRST_DELAY, PROBE_INTERVAL) if false_recoveries else 0.0

    def _respect_retry_after(self, retry_after: float | None, delay: float) -> float:
        return max(min(retry_after or 0.0, MAX_RETRY_AFTER), delay)


# Attempts in a row without a collision after which one more may run at the same time. A platform
# that takes one write at a time then refuses one attempt of seventeen.
_GROWTH_ATTEMPTS: Final = 16


class ParallelLimit:
    """How many attempts may run at the same time: fewer while the platform cannot serialize them.

    Additive increase, multiplicative decrease, as TCP's congestion window (RFC 5681). The limit
    holds for all gateways that share an outbox: one that loses every race would otherwise lose them
    all. `current` is from 1 to `max_parallel`.
    """

    def __init__(self, max_parallel: int) -> None:
        self.current = max_parallel
        self._max_parallel = max_parallel
        self._without_collision = 0

    @property
    def is_reduced(self) -> bool:
        """Whether there were collisions a short time ago."""
        return self.current < self._max_parallel

    def on_collision(self) -> None:
        """Note that an attempt met another write at the platform."""
        self.current = max(1, self.current // 2)
        self._without_collision = 0

    def on_success(self) -> None:
        """Note that the platform took a write."""
        self._without_collision += 1
        if self._without_collision >= _GROWTH_ATTEMPTS:
            self.current = min(self._max_parallel, self.current + 1)
            self._without_collision = 0


class PlatformReachability:
    """Whether the platform can be reached, as far as the attempts of this process have shown.

    During an outage one attempt at a time shows whether the platform is back: after a delay, or at
    once when another request got a response. `is_reachable`: no attempt has shown an outage. It is
    a plain attribute because it is read for every response of the platform.
    """

    def __init__(self, schedule: RetrySchedule, clock: Callable[[], float]) -> None:
        self._schedule = schedule
        self._clock = clock
        self._failures = 0
        # The moment, on the clock, before which no attempt is made during an outage.
        self.next_attempt_at = 0.0
        # The number of failures so far; an attempt remembers its value at the start.
        self.failure_generation = 0
        # The generation in which another request last got a response, the attempts active then, and
        # how often the next attempt failed nevertheless.
        self._response_seen_in = -1
        self._possibly_stalled = 0
        self._false_recoveries = 0
        self._trusted_after = 0.0
        self.is_reachable = True

    def free_attempts(self, active: int, parallel: int) -> int:
        """Return how many attempts may start beside the `active` ones."""
        if self.is_reachable:
            return max(0, parallel - active)
        # Attempts that were active when another request got a response may hang on a dead
        # connection.
        hanging = 0 if self.is_silent_outage else min(self._possibly_stalled, parallel - 1)
        return 1 if active <= hanging and self._clock() >= self.next_attempt_at else 0

    @property
    def is_silent_outage(self) -> bool:
        """Whether the platform is unreachable and has not responded to any request since."""
        return not self.is_reachable and self._response_seen_in != self.failure_generation

    def on_attempt_response(self) -> None:
        """Note that the platform responded to an attempt."""
        self._failures = self._false_recoveries = 0
        self.is_reachable = True
        self.next_attempt_at = 0.0

    def on_other_response(self, active: int) -> bool:
        """Note that the platform responded to a request other than an attempt.

        Return whether that ends the current delay. Where the platform responds to other requests
        but not to attempts, for hours, the attempts keep their delays.
        """
        now = self._clock()
        if not self.is_silent_outage or now < self._trusted_after:
            return False
        self._response_seen_in = self.failure_generation
        self._possibly_stalled = active
        self._failures = 0
        self.next_attempt_at = now
        return True

    def on_inconclusive_attempt(self) -> None:
        """Note that an attempt ended without showing whether the platform is reachable.

        During an outage the next attempt follows after the usual delay.
        """
        if not self.is_reachable:
            self.next_attempt_at = self._clock() + self._schedule.outage_delay(self._failures, None)

    def on_attempt_failure(self, generation: int, retry_after: float | None) -> None:
        """Note that an attempt which began in this `generation` failed as all attempts would.

        Concurrent attempts that fail together count once.
        """
        if generation != self.failure_generation:
            return
        self.failure_generation += 1
        self._failures += 1
        self.is_reachable = False
        self._false_recoveries = (
            self._false_recoveries + 1 if self._response_seen_in == generation else 0
        )
        self._trusted_after = self._clock() + self._schedule.trust_delay(self._false_recoveries)
        self.next_attempt_at = self._clock() + self._schedule.outage_delay(
            self._failures, retry_after
        )
