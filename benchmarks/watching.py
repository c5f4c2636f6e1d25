"""Detects whether other processes used the cores during a measurement."""

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
    """A load that measures a proxy for `seconds`."""

    def run(self, port: int, seconds: float) -> Figures:
        """Return the figures; `count` is the number of units that the CPU time is divided by."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one measurement; `others` is the share of a core that other processes used."""

    figures: Figures
    others: float


@dataclass(frozen=True, slots=True)
class Watch:
    """Observes `cores` during a measurement; `mine` are the benchmark's own processes."""

    cores: Sequence[int]
    mine: Sequence[Pinned]

    def sample(self, proxy: Pinned | None, measure: Callable[[], Figures]) -> Sample:
        """Measure, and add the proxy's CPU time for each of the `count` units."""
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
        """Return the CPU time of this process, of ended children (wrk), and of the running ones."""
        me = os.times()
        return sum(me[:4]) + sum(process.cpu_seconds() for process in self.mine)


def machine_seconds(cores: Sequence[int]) -> float:
    """Return user, nice, system and stolen time of the cores.

    Interrupts are left out: the kernel counts the loopback traffic of the benchmark itself there.
    """
    names = {f"cpu{core}" for core in cores}
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in names:
            total += sum(int(fields[position]) for position in (0, 1, 2, 7))
    return total * TICK
