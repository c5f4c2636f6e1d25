"""Measures the gateway beside other proxies on this machine: `make bench`.

The proxy under test has one core to itself; load generator and platform share another one. The
contenders take turns in each round, so that a slow minute of the machine hits them all. A
measurement during which other processes used the cores noticeably is dropped and repeated.
Everything happens on the loopback interface.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from contenders import GATEWAY, TOKEN, Contender, Surroundings, contenders, nginx_command
from load import Load, Sample, measure
from prerequisites import REPOSITORY, program, provide_debian_programs
from processes import Pinned, free_port, running

HERE = Path(__file__).parent
READ = "/fhir/Patient/example"


@dataclass(slots=True)
class Bench:
    """What runs during a benchmark, and what was measured so far."""

    options: argparse.Namespace
    around: Surroundings
    proxy_core: int
    load: Load
    own: list[Pinned] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    dropped: int = 0

    @contextlib.contextmanager
    def started(self, contender: Contender) -> Iterator[Pinned]:
        """Runs one contender on its core."""
        command = contender.prepare(self.around, contender.port)
        errors = self.around.directory / f"{contender.name}.err"
        with running(command, self.proxy_core, errors) as process:
            yield process

    def sample(self, contender: Contender, process: Pinned) -> Sample:
        """Measures until nobody disturbs; raises SystemExit when that never happens."""
        cores = (self.proxy_core, self.load.core)
        for _ in range(self.options.attempts):
            sample = measure(process, contender.port, self.load, self.own, cores)
            if sample.others <= self.options.max_others:
                return sample
            self.dropped += 1
            print(f"  dropped: others used {sample.others:.0%} of a core", file=sys.stderr)
        raise SystemExit(
            "The machine is too busy to measure; end what else runs, or see --max-others"
        )

    def run_rounds(self, taking_part: list[Contender]) -> None:
        """All contenders run; each round measures one after the other, every time another first."""
        with contextlib.ExitStack() as stack:
            processes = {one.name: stack.enter_context(self.started(one)) for one in taking_part}
            for one in taking_part:
                processes[one.name].until_answering(one.port, READ)
            self.own += processes.values()
            for number in range(self.options.rounds + 1):
                first = number % len(taking_part)
                for one in taking_part[first:] + taking_part[:first]:
                    sample = self.sample(one, processes[one.name])
                    # The round before the first fills pools and caches.
                    if number:
                        self.samples.setdefault(one.name, []).append(sample)
                        print(f"  round {number} {one.name}: {sample.rps:,.0f}/s", file=sys.stderr)


def footprint(bench: Bench, contender: Contender) -> dict[str, float]:
    """Median seconds from start to the first forwarded request, and the bytes in use after it."""
    seconds = []
    for _ in range(bench.options.starts):
        with bench.started(contender) as process:
            seconds.append(process.until_answering(contender.port, READ))
            time.sleep(bench.options.settle)
            memory = process.memory()
    return {"first_request_s": statistics.median(seconds), "rss": memory.rss, "pss": memory.pss}


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Our figure divided by theirs, round by round: median and extremes."""
    quotients = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(quotients), "min": min(quotients), "max": max(quotients)}


def summary(bench: Bench, taking_part: list[Contender]) -> dict[str, object]:
    """Medians for each contender, and the gateway's requests per second relative to it."""
    result: dict[str, object] = {}
    for one in taking_part:
        samples = bench.samples[one.name]
        figures: dict[str, object] = {
            key: statistics.median(getattr(sample, key) for sample in samples)
            for key in ("rps", "cpu_us", "p50_us", "p99_us")
        }
        if GATEWAY in bench.samples and one.name != GATEWAY:
            ours = [sample.rps for sample in bench.samples[GATEWAY]]
            figures["gateway_ratio"] = ratio(ours, [sample.rps for sample in samples])
        result[one.name] = {**figures, "samples": [asdict(sample) for sample in samples]}
    return result


def table(results: dict[str, dict], descriptions: dict[str, str]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| proxy | requests/s | CPU µs/request | p50 ms | p99 ms | gateway is … times as fast | "
        "start to first request | idle RSS / PSS |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, one in results.items():
        against = one.get("gateway_ratio")
        times = "{median:.2f} ({min:.2f} to {max:.2f})".format(**against) if against else "–"
        start = f"{one['first_request_s'] * 1000:.0f} ms" if "first_request_s" in one else "–"
        memory = f"{one['rss'] / 1e6:.0f} / {one['pss'] / 1e6:.0f} MB" if "rss" in one else "–"
        lines.append(
            f"| {descriptions[name]} | {one['rps']:,.0f} | {one['cpu_us']:.1f} "
            f"| {one['p50_us'] / 1000:.2f} | {one['p99_us'] / 1000:.2f} "
            f"| {times} | {start} | {memory} |"
        )
    return "\n".join(lines)


def cpu_model() -> str:
    """The processor's name, as the kernel gives it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "unknown")


def read_options() -> argparse.Namespace:
    """The command line; the defaults are what `make bench` measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    parser.add_argument("--connections", type=int, default=32, help="kept alive")
    parser.add_argument("--starts", type=int, default=5, help="for the time to the first request")
    parser.add_argument("--settle", type=float, default=2, help="seconds before memory is read")
    parser.add_argument("--without", action="append", default=[], metavar="NAME")
    parser.add_argument(
        "--max-others", type=float, default=0.05, help="share of a core that others may use"
    )
    parser.add_argument("--attempts", type=int, default=20, help="at one undisturbed measurement")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "build" / "bench.json")
    return parser.parse_args()


@contextlib.contextmanager
def surroundings(load_core: int) -> Iterator[tuple[Surroundings, list[Pinned]]]:
    """Runs the platform and the SSO on the load generator's core."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as stack:
        around = Surroundings(Path(name), free_port(), free_port())
        document = around.directory / "documents" / "fhir" / "Patient" / "example"
        document.parent.mkdir(parents=True)
        document.write_bytes((HERE / "patient.json").read_bytes())
        configuration = around.fill_in("nginx_upstream.conf", around.upstream_port, "upstream.conf")
        commands = {
            "upstream": nginx_command(configuration, around.directory),
            "sso": [sys.executable, HERE / "tiny_sso.py", str(around.sso_port), TOKEN],
        }
        yield (
            around,
            [
                stack.enter_context(running(command, load_core, around.directory / f"{label}.err"))
                for label, command in commands.items()
            ],
        )


def main() -> None:
    """Runs the benchmark and prints the table."""
    options = read_options()
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise SystemExit("The benchmark needs two cores: one for the proxy, one for the load.")
    proxy_core, load_core = usable[:2]
    os.sched_setaffinity(0, {load_core})
    provide_debian_programs("nginx", "wrk")
    taking_part = contenders(options.without)
    load = Load(program("wrk") or "wrk", options.connections, options.seconds, READ, load_core)
    with surroundings(load_core) as (around, own):
        bench = Bench(options, around, proxy_core, load, list(own))
        small = [
            footprint_of for footprint_of in taking_part if footprint_of.name in (GATEWAY, "envoy")
        ]
        footprints = {one.name: footprint(bench, one) for one in small}
        bench.run_rounds(taking_part)
    results = summary(bench, taking_part)
    for name, figures in footprints.items():
        results[name] = {**results[name], **figures}
    report = {
        "machine": {"system": platform.platform(), "cpu": cpu_model(), "python": sys.version},
        "options": vars(options),
        "dropped": bench.dropped,
        "results": results,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2, default=str) + "\n")
    print(table(results, {one.name: one.description for one in taking_part}))
    print(f"\n{bench.dropped} disturbed measurements were dropped; all figures: {options.json}")


if __name__ == "__main__":
    main()
