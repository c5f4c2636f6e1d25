"""One measurement: wrk against a contender, and whether others disturbed it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import TICK, Pinned

REPORT = Path(__file__).with_name("report.lua")


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk does: so many keep-alive connections for so many seconds."""

    wrk: str
    connections: int
    seconds: float
    path: str
    core: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one measurement.

    `cpu_us` is the proxy's CPU time per request, `p50_us` and `p99_us` are latencies, all in
    microseconds. `others` is what other processes used of the two cores, as a share of one core.
    """

    rps: float
    cpu_us: float
    p50_us: float
    p99_us: float
    others: float


def measure(
    proxy: Pinned, port: int, load: Load, mine: Sequence[Pinned], cores: Sequence[int]
) -> Sample:
    """Loads the contender on `port`; `mine` are the benchmark's own processes.

    Raises SystemExit when an answer was not a success: such figures compare nothing.
    """
    own, machine, used = _own_seconds(mine), _machine_seconds(cores), proxy.cpu_seconds()
    started = time.monotonic()
    report, wrk_seconds = _run_wrk(port, load)
    elapsed = time.monotonic() - started
    used = proxy.cpu_seconds() - used
    own = _own_seconds(mine) - own + wrk_seconds
    others = max(0.0, _machine_seconds(cores) - machine - own) / elapsed
    if report["failed"] or not report["requests"]:
        raise SystemExit(f"{proxy.popen.args}: {report['failed']} failures of {report['requests']}")
    return Sample(
        rps=report["requests"] / report["duration"] * 1e6,
        cpu_us=used / report["requests"] * 1e6,
        p50_us=report["p50"],
        p99_us=report["p99"],
        others=others,
    )


def _run_wrk(port: int, load: Load) -> tuple[dict[str, float], float]:
    url = f"http://127.0.0.1:{port}{load.path}"
    options = ["-t1", f"-c{load.connections}", f"-d{load.seconds:g}s", "-s", str(REPORT)]
    before = os.times()
    done = subprocess.run(
        ["taskset", "-c", str(load.core), load.wrk, *options, url],
        capture_output=True,
        text=True,
        check=True,
    )
    after = os.times()
    spent = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return json.loads(done.stdout.splitlines()[-1]), spent


def _own_seconds(mine: Sequence[Pinned]) -> float:
    me = os.times()
    return sum(process.cpu_seconds() for process in mine) + me.user + me.system


def _machine_seconds(cores: Sequence[int]) -> float:
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
