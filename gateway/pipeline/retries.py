"""When a request may be repeated: how often, after which pause, and at whose expense."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from gateway.timing import backoff

# Attempts that the budget grants in any case, a second.
_MIN_RETRIES_PER_SECOND: Final = 3.0
# What a quiet hour can save up; more would let a bad minute double the load.
_MAX_BALANCE: Final = 100.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`max_attempts` counts the first one; `backoff` and `max_delay` are seconds."""

    max_attempts: int
    backoff: float
    max_delay: float = 2.0
    rng: random.Random = field(default_factory=random.Random)

    def delay(self, attempt: int) -> float:
        """How long to wait after the attempt of that number: doubling, with jitter."""
        return backoff(attempt, self.backoff, self.max_delay, self.rng.random)


class RetryBudget:
    """Lets a share of the requests be repeated, and always three a second."""

    def __init__(self, ratio: float, clock: Callable[[], float]) -> None:
        self._ratio = ratio
        self._clock = clock
        self._balance = 0.0
        self._floor = _MIN_RETRIES_PER_SECOND
        self._refilled = clock()

    def deposit(self) -> None:
        """Every request earns its share."""
        self._balance = min(_MAX_BALANCE, self._balance + self._ratio)

    def withdraw(self) -> bool:
        """Take one repetition out; False when the budget is spent."""
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
