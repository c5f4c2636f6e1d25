"""Measures the work that an input causes, and how it grows with the input's length.

Whatever else the machine does adds to the time of a run and takes nothing from it: of many runs the
shortest tells what the work costs, and a busy machine needs more of them.
"""

from __future__ import annotations

import math
import sys
import time
import timeit
from collections.abc import Callable
from types import FrameType
from typing import Any

FACTOR = 8
# Between the growth of linear work, which is the factor, and of quadratic work, its square.
NEARLY_LINEAR = 4 * FACTOR
_FEWEST_RUNS = 3
_MOST_RUNS = 100


def growth(work: Callable[[int], object], size: int) -> float:
    """Return the ratio of processor time between `FACTOR` times the size and the size.

    Assert that it is below `NEARLY_LINEAR`.
    """
    longer, shorter = (lambda: work(size * FACTOR)), (lambda: work(size))
    return cost_ratio(longer, shorter, enough=NEARLY_LINEAR)


def cost_ratio(work: Callable[[], object], other: Callable[[], object], *, enough: float) -> float:
    """Return the ratio of processor time between the work and the other.

    They run in turns, and the shortest run of each counts. More runs follow until the ratio is
    below `enough`, which is what the caller asserts, or there were a hundred.
    """
    least = least_other = math.inf
    for number in range(1, _MOST_RUNS + 1):
        least_other = min(least_other, _seconds(other))
        least = min(least, _seconds(work))
        if number >= _FEWEST_RUNS and least < enough * least_other:
            break
    return least / least_other


def _seconds(work: Callable[[], object]) -> float:
    return timeit.timeit(work, timer=time.thread_time, number=1)


def operations(work: Callable[[], object]) -> int:
    """Return the number of function calls, built-in functions included."""
    count = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count
