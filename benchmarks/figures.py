"""The arithmetic of the report."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the extremes around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return `ours` divided by `theirs` by round: changes between rounds affect both."""
    return Spread.of([one / other for one, other in zip(ours, theirs, strict=True)])


def inverted(spread: Spread) -> Spread:
    """Return the spread of the reciprocal ratio."""
    return Spread(1 / spread.median, 1 / spread.high, 1 / spread.low)
