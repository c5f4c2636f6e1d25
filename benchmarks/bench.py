"""Measures the gateway beside other proxies on this machine: `make bench`.

The proxy under test has one core to itself; load generator and platform share another one. Each
round measures all contenders in turn, so that a slow minute of the machine affects them all. A
measurement during which other processes used the cores noticeably is dropped and repeated. All
traffic is on the loopback interface.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.chart import chart
from benchmarks.contenders import GATEWAY, Contender, every_contender
from benchmarks.prerequisites import (
    REPOSITORY,
    provide_compiled,
    provide_debian_programs,
    provide_envoy,
    provide_go_program,
    provide_java_program,
)
from benchmarks.processes import free_port
from benchmarks.report import Result, machine_readable, overview, table
from benchmarks.rounds import Bench, Entry
from benchmarks.surroundings import surroundings
from benchmarks.watching import Figures
from benchmarks.workloads import SHORT_LIVED, WORKLOADS, Workload

DIRECT = "direct"
# The contenders that are compiled for the measurement, as in the container image.
COMPILED = frozenset((GATEWAY, "gateway-unaudited", "gateway-file", "gateway-outbox"))
IN_GO = frozenset(("caddy", "ghostunnel", "oauth2-proxy"))


@dataclasses.dataclass(slots=True)
class Report:
    """All results, and the reasons for workloads without one."""

    results: list[Result] = dataclasses.field(default_factory=list)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    kept: int = 0
    dropped: int = 0


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; the defaults are what `make bench` measures."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, allow_abbrev=False)
    names = [workload.name for workload in WORKLOADS]
    parser.add_argument(
        "--workloads", type=_list, default=names, metavar="A,B", help=", ".join(names)
    )
    parser.add_argument("--contenders", type=_list, default=None, metavar="A,B")
    parser.add_argument("--beside", type=Path, metavar="DIR", help="another checkout's gateway too")
    parser.add_argument("--plain", action="store_true", help="do not compile the gateway")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of a measurement")
    parser.add_argument("--starts", type=int, default=5, help="for the time to the first request")
    parser.add_argument("--settle", type=float, default=1, help="seconds before memory is read")
    parser.add_argument(
        "--max-others", type=float, default=0.05, help="share of a core that others may use"
    )
    parser.add_argument("--attempts", type=int, default=20, help="at one undisturbed measurement")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "build" / "bench.json")
    options = parser.parse_args(arguments)
    for unknown in set(options.workloads) - set(names):
        parser.error(f"no workload is called {unknown}")
    for unknown in set(options.contenders or ()) - set(every_contender(Path())):
        parser.error(f"no contender is called {unknown}")
    return options


def _list(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def taking_part(workload: Workload, options: argparse.Namespace) -> list[str]:
    """Return the contenders' names, the gateway first."""
    asked = options.contenders
    names = list(workload.contenders if asked is None else asked)
    if options.beside is not None and "beside" not in names:
        names.insert(1, "beside")
    return names


def run(bench: Bench, workload: Workload, contenders: dict[str, Contender]) -> Result:
    """Measure one workload. Raises TooBusyError."""
    dropped = bench.dropped
    entries = list(entries_of(workload, bench, contenders))
    if workload.measure is not None:
        samples = workload.measure(bench, entries)
    else:
        assert workload.load is not None
        load = workload.load(bench.around, contenders[GATEWAY].port)
        seconds = workload.seconds * bench.options.seconds
        samples = bench.rounds(entries, load, seconds, ahead=workload.ahead)
    if workload.direct:
        _add_to_direct(samples)
    if workload.also:
        _divide_by_steady(samples)
    dropped = bench.dropped - dropped
    return Result(workload.name, workload.title, workload.unit, samples, dropped)


def entries_of(
    workload: Workload, bench: Bench, contenders: dict[str, Contender]
) -> Iterator[Entry]:
    """Return the contenders of a workload, with the platform itself last where it is measured."""
    upstream = bench.around.upstream(workload.upstream)
    for name in taking_part(workload, bench.options):
        if workload.also and not contenders[name].fetches:
            continue  # It would continue with its fixed token, whatever happens to other tokens.
        yield Entry(name, contenders[name], upstream)
        for addition, other in workload.also.items():
            contender = dataclasses.replace(contenders[name], port=free_port())
            yield Entry(f"{name}{addition}", contender, bench.around.upstream(other))
    if workload.direct:
        yield Entry(DIRECT, None, upstream)


def _divide_by_steady(samples: dict[str, list[Figures]]) -> None:
    """Add the ratio of the p99 while tokens change to that of the steady run, by round."""
    for label, figures in samples.items():
        if label.endswith(SHORT_LIVED):
            for one, steady in zip(figures, samples[label.removesuffix(SHORT_LIVED)], strict=True):
                one["p99_ratio"] = one["p99_us"] / steady["p99_us"]


def _add_to_direct(samples: dict[str, list[Figures]]) -> None:
    """Add what each proxy adds to the platform's own latencies, by round."""
    for label, figures in samples.items():
        for one, direct in zip(figures, samples[DIRECT], strict=True):
            if label != DIRECT:
                for name in ("p50_us", "p99_us", "p999_us"):
                    one[f"added_{name}"] = one[name] - direct[name]


def cpu_model() -> str:
    """Return the processor's name as the kernel reports it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "unknown")


def print_tables(results: Sequence[Result], descriptions: Mapping[str, str]) -> None:
    """Print all tables, each with the number of dropped measurements."""
    for result in results:
        print(f"\n### {result.workload}: {result.title}\n\n{table(result, descriptions)}")
        rounds = min(len(samples) for samples in result.samples.values())
        print(f"\nRounds: {rounds}; disturbed measurements that were dropped: {result.dropped}")
    print(f"\n### Costs\n\n{overview(results, descriptions)}")


def revision() -> str:
    """Return the commit that is measured, with a `+` when files differ from it."""
    git = ["git", "-C", str(REPOSITORY), "describe", "--always", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until this user's other benchmarks have ended, because they would disturb each other."""
    name = f"dhp-gateway-bench-{os.getuid()}.lock"
    with (Path(tempfile.gettempdir()) / name).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another benchmark to end…", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def measure(options: argparse.Namespace, contenders: dict[str, Contender]) -> Report:
    """Measure all workloads, on the first two cores that this process may use."""
    proxy_core, load_core = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {load_core})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    report = Report()
    with surroundings(load_core) as (around, own):
        bench = Bench(options, around, proxy_core, load_core, own)
        for workload in chosen(options):
            print(f"{workload.name}: {workload.title}", file=sys.stderr)
            try:
                report.results.append(run(bench, workload, contenders))
            except (Exception, SystemExit) as problem:  # The others' results must not be lost.
                print(f"  left out: {problem!r}", file=sys.stderr)
                report.left_out[workload.name] = str(problem)
    report.kept, report.dropped = bench.kept, bench.dropped
    return report


def chosen(options: argparse.Namespace) -> list[Workload]:
    """Return the workloads that the options select."""
    return [workload for workload in WORKLOADS if workload.name in options.workloads]


def write(report: Report, options: argparse.Namespace, names: Mapping[str, str]) -> list[Path]:
    """Write the JSON file and the picture. Return their paths."""
    content = {
        "revision": revision(),
        "machine": {"system": platform.platform(), "cpu": cpu_model(), "python": sys.version},
        "options": vars(options),
        "dropped": report.dropped,
        "left_out": report.left_out,
        "workloads": {result.workload: machine_readable(result) for result in report.results},
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(content, indent=2, default=str) + "\n")
    picture = chart(report.results, names)
    if picture is None:
        return [options.json]
    drawing = options.json.with_suffix(".svg")
    drawing.write_text(picture, encoding="utf-8")
    return [options.json, drawing]


def main() -> None:
    """Run the benchmark and print the tables."""
    options = read_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ends all, too.
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("The benchmark needs two cores: one for the proxy, one for the load.")
    provide_debian_programs("nginx", "haproxy", "wrk")
    asked = {name for workload in chosen(options) for name in taking_part(workload, options)}
    if "envoy" in asked:
        provide_envoy()
    for name in asked & IN_GO:
        provide_go_program(name)
    if "fhir-gateway" in asked:
        provide_java_program("fhir-gateway")
    compiles = asked & COMPILED and not options.plain
    contenders = every_contender(options.beside, provide_compiled() if compiles else None)
    started = time.monotonic()
    with one_at_a_time():
        report = measure(options, contenders)
    descriptions = {
        f"{name}{addition}": f"{one.description}{addition}"
        for name, one in contenders.items()
        for addition in ("", SHORT_LIVED)
    }
    print_tables(report.results, descriptions)
    written = write(report, options, descriptions)
    print(
        f"\n{report.kept} measurements, {report.dropped} more dropped because others used the "
        f"cores, {time.monotonic() - started:.0f} s; written: {', '.join(map(str, written))}"
    )
    if report.left_out:
        raise SystemExit(f"left out: {', '.join(report.left_out)}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("ended before all was measured") from None
