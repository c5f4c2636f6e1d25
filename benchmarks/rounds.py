"""Rounds of measurements: each round measures all contenders, starting with another one.

Before the measurements each contender must have done the work that is compared: the SSO gave it a
token, if it is to request one, and it wrote a log line for each request.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.closed_loop import ClosedLoop
from benchmarks.contenders import Contender
from benchmarks.processes import Pinned, ahead_of_others, running
from benchmarks.surroundings import MIB, READ, TOKEN, Surroundings, Upstream
from benchmarks.watching import Figures, Load, Watch

Samples = dict[str, list[Figures]]

_FLUSHED = (
    1.5  # Seconds after which the lines of a request are in the file; nginx and Envoy wait 1.
)


class TooBusyError(Exception):
    """Other processes used the cores in every attempt at a measurement."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender in a workload, with its label there; without a contender, the platform."""

    label: str
    contender: Contender | None
    upstream: Upstream

    @property
    def port(self) -> int:
        """Return the port that the load is sent to."""
        return self.contender.port if self.contender else self.upstream.port

    @property
    def fields(self) -> dict[str, str]:
        """Return what callers send in each request."""
        forwards = self.contender is not None and self.contender.forwards
        return {"Authorization": f"Bearer {TOKEN}"} if forwards else {}

    @property
    def warm_up(self) -> float:
        """Return how many seconds of load it needs at least before it is measured."""
        return 0 if self.contender is None else self.contender.warm_up

    def run(self, load: Load, seconds: float) -> Figures:
        """Send the load to it."""
        if isinstance(load, ClosedLoop):
            lines = (f"{name}: {value}" for name, value in self.fields.items())
            load = replace(load, fields=(*load.fields, *lines))
        return load.run(self.port, seconds)


@dataclass(slots=True)
class Bench:
    """The state of the whole benchmark: options, cores, the platform's processes."""

    options: argparse.Namespace
    around: Surroundings
    proxy_core: int
    load_core: int
    own: Sequence[Pinned]
    dropped: int = 0
    kept: int = field(default=0)

    @contextlib.contextmanager
    def started(self, entry: Entry) -> Iterator[Pinned | None]:
        """Run the contender of the entry, if it has one, on its core."""
        if entry.contender is None:
            yield None
            return
        command = entry.contender.prepare(self.around, entry.port, entry.upstream)
        records = self.around.records(entry.port)
        with running(command, self.proxy_core, records.with_suffix(".err"), records) as process:
            yield process
        records.unlink()

    def rounds(
        self, entries: Sequence[Entry], load: Load, seconds: float, *, ahead: bool = False
    ) -> Samples:
        """Return the figures of each round, by the entries' labels; `ahead` as of a `Workload`.

        When other processes disturb every attempt, the rounds before are returned; raises
        TooBusyError if there are none.
        """
        samples: Samples = {entry.label: [] for entry in entries}
        with contextlib.ExitStack() as stack:
            running = {entry.label: stack.enter_context(self.ready(entry)) for entry in entries}
            processes = {label: process for label, process in running.items() if process}
            before = {label: _settled(process) for label, process in processes.items()}
            watch = Watch((self.proxy_core, self.load_core), [*self.own, *processes.values()])
            if ahead:
                stack.enter_context(ahead_of_others(watch.mine))
            for entry in entries:  # Fills pools and caches, and lets Java compile.
                entry.run(load, max(seconds / 2, entry.warm_up))
            self._check_records(entries)
            for number in range(1, self.options.rounds + 1):
                first = number % len(entries)
                order = (*entries[first:], *entries[:first])
                try:
                    measured = {
                        entry.label: self._turn(watch, entry, running[entry.label], load, seconds)
                        for entry in order
                    }
                except TooBusyError:
                    if number == 1:
                        raise
                    break
                for label, one in measured.items():
                    samples[label].append(one)
            for label, process in processes.items():
                for figures in samples[label]:
                    figures["growth_mib"] = (process.peak() - before[label]) / MIB
        return samples

    @contextlib.contextmanager
    def ready(self, entry: Entry) -> Iterator[Pinned | None]:
        """As `started`, once it has forwarded a request. Raises SystemExit if it has no token."""
        given = self.around.counts()["tokens"]
        with self.started(entry) as process:
            if process is not None and entry.contender is not None:
                process.until_answering(entry.port, READ, headers=entry.fields)
                if entry.contender.fetches and self.around.counts()["tokens"] == given:
                    raise SystemExit(f"{entry.label} did not ask the SSO for a token")
            yield process

    def _turn(
        self, watch: Watch, entry: Entry, process: Pinned | None, load: Load, seconds: float
    ) -> Figures:
        figures = self.undisturbed(watch, process, functools.partial(entry.run, load, seconds))
        self._forget_records(entry)
        _tell(entry.label, figures)
        return figures

    def _check_records(self, entries: Sequence[Entry]) -> None:
        """Raise SystemExit when a contender's log does not fit its `records`."""
        time.sleep(_FLUSHED)
        for entry in entries:
            if entry.contender is None:
                continue
            written = self.around.records(entry.port).stat().st_size > 0
            if written != entry.contender.records:
                raise SystemExit(f"{entry.label} writes {'a' if written else 'no'} record")

    def undisturbed(
        self, watch: Watch, process: Pinned | None, measure: Callable[[], Figures]
    ) -> Figures:
        """Measure until no other process disturbs. Raises TooBusyError when that never happens."""
        for _ in range(self.options.attempts):
            sample = watch.sample(process, measure)
            if sample.others <= self.options.max_others:
                self.kept += 1
                return {**sample.figures, "others": sample.others}
            self.dropped += 1
            print(f"  dropped: others used {sample.others:.0%} of a core", file=sys.stderr)
        raise TooBusyError("others used the cores in every attempt; see --max-others")

    def _forget_records(self, entry: Entry) -> None:
        """Empty the log, so that the disk does not fill; every contender opens it for appending."""
        if entry.contender is not None:
            os.truncate(self.around.records(entry.port), 0)


def _tell(label: str, figures: Figures) -> None:
    shown = ("rate", "cpu_us", "p50_us", "p99_us", "p999_us", "failed")
    text = " ".join(f"{name} {figures[name]:,.1f}" for name in shown if name in figures)
    print(f"  {label}: {text}", file=sys.stderr)


def _settled(process: Pinned) -> int:
    """Return the memory in use now, in bytes, and reset the counter of `peak`."""
    process.forget_peak()
    return process.memory().rss
