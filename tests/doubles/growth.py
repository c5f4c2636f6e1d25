"""Measures the work that an input causes, and how it grows with the input's length."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

FACTOR = 8


def growth(work: Callable[[int], object], size: int) -> float:
    """Return the ratio of processor time between `FACTOR` times the size and the size.

    Each is the minimum of three runs. The ratio is about `FACTOR` for linear work and its square
    for quadratic work: assert a value far from both.
    """
    longer, shorter = shortest(lambda: work(size * FACTOR)), shortest(lambda: work(size))
    return longer / max(shorter, 1e-6)


def shortest(work: Callable[[], object]) -> float:
    """Return the least processor time of three runs, in seconds."""
    times = []
    for _ in range(3):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


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
