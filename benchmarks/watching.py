"""Whether anything but the benchmark used the cores while it measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.processes import TICK, Pinned

Figures = dict[str, float]


class Load(Protocol):
    """Something that asks a proxy for `seconds` and measures."""

    def run(self, port: int, seconds: float) -> Figures:
        """The figures, with `count` for how many there were of what CPU time is given for."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one measurement, and what others used meanwhile as a share of one core."""

    figures: Figures
    others: float


@dataclass(frozen=True, slots=True)
class Watch:
    """Looks at `cores` while something is measured; `mine` are the benchmark's own processes."""

    cores: Sequence[int]
    mine: Sequence[Pinned]

    def sample(self, proxy: Pinned | None, measure: Callable[[], Figures]) -> Sample:
        """Measures, and adds the proxy's CPU time for each of the `count` that were measured."""
        own, machine = self._own_seconds(), machine_seconds(self.cores)
        used = proxy.cpu_seconds() if proxy else 0.0
        started = time.monotonic()
        figures = measure()
        elapsed = time.monotonic() - started
        if proxy:
            figures["cpu_us"] = (proxy.cpu_seconds() - used) / figures["count"] * 1e6
        others = machine_seconds(self.cores) - machine - (self._own_seconds() - own)
        return Sample(figures, max(0.0, others) / elapsed)

    def _own_seconds(self) -> float:
        """Our own time, that of children that have ended (wrk), and of those that run."""
        me = os.times()
        return sum(me[:4]) + sum(process.cpu_seconds() for process in self.mine)


def machine_seconds(cores: Sequence[int]) -> float:
    """User, nice, system and stolen time of the cores.

    Interrupts are left out: the kernel books the loopback traffic of the benchmark itself there.
    """
    names = {f"cpu{core}" for core in cores}
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in names:
            total += sum(int(fields[position]) for position in (0, 1, 2, 7))
    return total * TICK
