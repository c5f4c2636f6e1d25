"""Contenders that take turns: each round measures one after the other, every time another first."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.contenders import Contender
from benchmarks.processes import Pinned, running
from benchmarks.surroundings import MIB, READ, Surroundings, Upstream
from benchmarks.watching import Figures, Watch
from benchmarks.workloads import Load

Samples = dict[str, list[Figures]]


class TooBusyError(Exception):
    """Others used the cores in every attempt at a measurement."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender in a workload, under a name of its own there; without one, the platform."""

    label: str
    contender: Contender | None
    upstream: Upstream

    @property
    def port(self) -> int:
        """Where to ask."""
        return self.contender.port if self.contender else self.upstream.port


@dataclass(slots=True)
class Bench:
    """What runs during all of the benchmark: options, cores, the platform's processes."""

    options: argparse.Namespace
    around: Surroundings
    proxy_core: int
    load_core: int
    own: Sequence[Pinned]
    dropped: int = 0
    kept: int = field(default=0)

    @contextlib.contextmanager
    def started(self, entry: Entry) -> Iterator[Pinned | None]:
        """Runs one contender on its core, if it is one."""
        if entry.contender is None:
            yield None
            return
        command = entry.contender.prepare(self.around, entry.port, entry.upstream)
        errors = self.around.directory / f"{Path(entry.label).name}.err"
        with running(command, self.proxy_core, errors) as process:
            yield process

    def rounds(self, entries: Sequence[Entry], load: Load, seconds: float) -> Samples:
        """The figures of each round, by the entries' labels.

        Raises TooBusyError when others disturb again and again.
        """
        samples: Samples = {entry.label: [] for entry in entries}
        with contextlib.ExitStack() as stack:
            running = {entry.label: stack.enter_context(self.started(entry)) for entry in entries}
            before = {entry.label: _ready(entry, running[entry.label]) for entry in entries}
            processes = [process for process in running.values() if process]
            watch = Watch((self.proxy_core, self.load_core), [*self.own, *processes])
            for number in range(self.options.rounds + 1):
                first = number % len(entries)
                for entry in (*entries[first:], *entries[:first]):
                    process = running[entry.label]
                    if number == 0:  # Fills pools and caches.
                        load.run(entry.port, seconds / 2)
                        continue
                    figures = self._undisturbed(watch, process, load, entry, seconds)
                    samples[entry.label].append(figures)
                    self._tell(number, entry.label, figures)
            for label, process in running.items():
                for figures in samples[label] if process else ():
                    figures["growth_mib"] = (process.peak() - before[label]) / MIB
        return samples

    def _undisturbed(
        self, watch: Watch, process: Pinned | None, load: Load, entry: Entry, seconds: float
    ) -> Figures:
        for _ in range(self.options.attempts):
            sample = watch.sample(process, lambda: load.run(entry.port, seconds))
            if sample.others <= self.options.max_others:
                self.kept += 1
                return {**sample.figures, "others": sample.others}
            self.dropped += 1
            print(f"  dropped: others used {sample.others:.0%} of a core", file=sys.stderr)
        raise TooBusyError("others used the cores in every attempt; see --max-others")

    def _tell(self, number: int, label: str, figures: Figures) -> None:
        shown = ("rate", "cpu_us", "p50_us", "p99_us", "p999_us", "failed")
        text = " ".join(f"{name} {figures[name]:,.1f}" for name in shown if name in figures)
        print(f"  round {number} {label}: {text}", file=sys.stderr)


def _ready(entry: Entry, process: Pinned | None) -> int:
    """Waits for the first answer; gives the memory that is in use then."""
    if process is None:
        return 0
    process.until_answering(entry.port, READ)
    process.forget_peak()
    return process.memory().rss
