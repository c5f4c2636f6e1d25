"""Retry policy and retry budget: number, delay and share of retries."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from gateway.timing import backoff

# Retries a second that the budget grants in any case.
_MIN_RETRIES_PER_SECOND: Final = 3.0
# Retries that can accumulate in a quiet hour; more would let one bad minute double the load.
_MAX_BALANCE: Final = 100.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`max_attempts` includes the first attempt; `backoff` and `max_delay` are seconds."""

    max_attempts: int
    backoff: float
    max_delay: float = 2.0
    rng: random.Random = field(default_factory=random.Random)

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after this attempt (first: 1): exponential, with jitter."""
        return backoff(attempt, self.backoff, self.max_delay, self.rng.random)


class RetryBudget:
    """Lets a share (`ratio`) of the requests be retried, and always three a second."""

    def __init__(self, ratio: float, clock: Callable[[], float]) -> None:
        self._ratio = ratio
        self._clock = clock
        self._balance = 0.0
        self._floor = _MIN_RETRIES_PER_SECOND
        self._refilled = clock()

    def deposit(self) -> None:
        """Add one request's share to the budget."""
        self._balance = min(_MAX_BALANCE, self._balance + self._ratio)

    def withdraw(self) -> bool:
        """Withdraw one retry; False when the budget is spent."""
        now = self._clock()
        self._floor = min(
            _MIN_RETRIES_PER_SECOND, self._floor + (now - self._refilled) * _MIN_RETRIES_PER_SECOND
        )
        self._refilled = now
        if self._balance >= 1:
            self._balance -= 1
            return True
        if self._floor >= 1:
            self._floor -= 1
            return True
        return False
