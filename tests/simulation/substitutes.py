"""Clocks and sources of randomness that ask the simulated run, if there is one.

Importing this module replaces them, which must happen before anything of `gateway` is imported:
its functions take `time.monotonic` and others as default arguments. Outside of a run the functions
call the real ones.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable

if any(name.partition(".")[0] == "gateway" for name in sys.modules):
    raise ImportError("the simulation must replace the clocks before `gateway` is imported")

# Seconds since 1970 when the simulated clock shows 0.
EPOCH = 1_790_000_000.0


class Surroundings:
    """What a run puts in the place of the machine.

    `clock` returns monotonic seconds. `wall_offset` are the seconds by which the wall clock was
    set forward since the start. `entropy` yields what the system's random numbers would.
    """

    def __init__(self) -> None:
        self.clock: Callable[[], float] | None = None
        self.wall_offset = 0.0
        self.entropy: random.Random | None = None


SURROUNDINGS = Surroundings()

real_monotonic = time.monotonic
_real_time = time.time
_real_urandom = os.urandom
_real_seed = random.Random.seed


def _monotonic() -> float:
    clock = SURROUNDINGS.clock
    return real_monotonic() if clock is None else clock()


def _time() -> float:
    clock = SURROUNDINGS.clock
    return _real_time() if clock is None else EPOCH + SURROUNDINGS.wall_offset + clock()


def _urandom(size: int, /) -> bytes:
    entropy = SURROUNDINGS.entropy
    return _real_urandom(size) if entropy is None else entropy.randbytes(size)


def _seed(self: random.Random, a: object = None, version: int = 2) -> None:
    entropy = SURROUNDINGS.entropy
    if a is None and entropy is not None:
        a = entropy.getrandbits(64)
    _real_seed(self, a, version)  # type: ignore[arg-type]


time.monotonic = _monotonic
time.time = _time
os.urandom = _urandom
random._urandom = _urandom  # type: ignore[attr-defined]
random.Random.seed = _seed  # type: ignore[method-assign, assignment]
