"""How much work an input makes, and how it grows with its length."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

FACTOR = 8


def growth(work: Callable[[int], object], size: int) -> float:
    """How much more processor time `FACTOR` times the size takes; the least of several runs each.

    About `FACTOR` for linear work, its square for quadratic: assert something far from both.
    """
    return _least(work, size * FACTOR) / max(_least(work, size), 1e-6)


def _least(work: Callable[[int], object], size: int) -> float:
    times = []
    for _ in range(3):
        started = time.process_time()
        work(size)
        times.append(time.process_time() - started)
    return min(times)


def operations(work: Callable[[], object]) -> int:
    """How many functions are called, built-in ones included."""
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
