"""What grows with an installation, and by how much.

    .venv/bin/python -m benchmarks.growth                               # everything, about an hour
    .venv/bin/python -m benchmarks.growth --only callers,connections --largest 1000

Each dimension of an installation grows in steps of ten: callers, credentials, queued writes,
connections, sessions in Redis, the audit file. At each step the gateway, compiled unless `--plain`,
is measured from outside: processor time, memory, sizes and durations of pages and commands. The
exponent says how a figure grows: 0 not at all, 1 with the size, 2 with its square. It is that of
the last two steps, where constant costs hide least. What is measured for one request or one entry
may not grow by more than 0.1, all else not by more than 1.1: what does is reported as a fault, and
the program ends with 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import cpu_model, one_at_a_time, revision
from benchmarks.growing import DIMENSIONS, Dimension, Laboratory, Step
from benchmarks.growth_chart import growth_chart
from benchmarks.prerequisites import REPOSITORY, provide_compiled, provide_debian_programs

# What a figure for each request or entry, and any other figure, may grow by.
MOST_EACH, MOST = 0.1, 1.1


@dataclass(frozen=True, slots=True)
class Growth:
    """One figure of a dimension at every size; `exponent` is None for a figure of one size."""

    dimension: Dimension
    figure: str
    values: tuple[tuple[int, float], ...]

    @property
    def exponent(self) -> float | None:
        """Return the exponent between the last two sizes."""
        if len(self.values) < 2:
            return None
        (size, value), (larger, grown) = self.values[-2:]
        return math.log(max(grown, 1e-9) / max(value, 1e-9)) / math.log(larger / size)

    @property
    def most(self) -> float:
        """Return the exponent that is permitted."""
        return MOST_EACH if self.figure.endswith("each") else MOST

    @property
    def is_fault(self) -> bool:
        """Return whether the figure grows more than it may."""
        return self.exponent is not None and self.exponent > self.most


def growths(dimension: Dimension, steps: Sequence[Step]) -> list[Growth]:
    """Return the growth of each figure, in the order in which they were measured first."""
    names = dict.fromkeys(name for step in steps for name in step.figures)
    return [
        Growth(
            dimension,
            name,
            tuple((step.size, step.figures[name]) for step in steps if name in step.figures),
        )
        for name in names
    ]


def table(found: Sequence[Growth]) -> str:
    """Return the figures of one dimension as a Markdown table."""
    sizes = sorted({size for growth in found for size, _ in growth.values})
    dimension = found[0].dimension
    lines = [
        _row([dimension.unit, *(f"{size:,}" for size in sizes), "exponent"]),
        _row(["---", *["---:"] * (len(sizes) + 1)]),
    ]
    for growth in found:
        values = dict(growth.values)
        cells = [_shown(values[size]) if size in values else "–" for size in sizes]
        exponent = "–" if growth.exponent is None else f"{growth.exponent:.2f}"
        fault = " (fault)" if growth.is_fault else ""
        lines.append(_row([growth.figure, *cells, exponent + fault]))
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(value: float) -> str:
    """Return a value with three digits."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}"


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; the defaults are what docs/performance.md shows."""
    parser = argparse.ArgumentParser(prog="growth", description=__doc__, allow_abbrev=False)
    names = [dimension.name for dimension in DIMENSIONS]
    parser.add_argument("--only", default=",".join(names), metavar="A,B", help=", ".join(names))
    parser.add_argument("--largest", type=int, help="no step above this size")
    parser.add_argument("--requests", type=int, default=20_000, help="of a measurement of requests")
    parser.add_argument("--plain", action="store_true", help="do not compile the gateway")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "build" / "growth.json")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    for unknown in set(options.only) - set(names):
        parser.error(f"no dimension is called {unknown}")
    return options


def measure(options: argparse.Namespace, laboratory: Laboratory) -> list[Growth]:
    """Measure the selected dimensions, and print each as soon as it is there."""
    found: list[Growth] = []
    for dimension in DIMENSIONS:
        sizes = [size for size in dimension.sizes if size <= (options.largest or size)]
        if dimension.name not in options.only or not sizes:
            continue
        print(f"\n### {dimension.title}\n", flush=True)
        began = time.monotonic()
        grown = growths(dimension, list(dimension.measure(laboratory, sizes)))
        found += grown
        print(f"{table(grown)}\n\n{time.monotonic() - began:.0f} s", flush=True)
    return found


def write(found: Sequence[Growth], file: Path) -> list[Path]:
    """Write the JSON file and the picture. Return their paths."""
    content = {
        "revision": revision(),
        "machine": {"system": platform.platform(), "cpu": cpu_model(), "python": sys.version},
        "figures": [
            {
                "dimension": growth.dimension.name,
                "figure": growth.figure,
                "values": growth.values,
                "exponent": growth.exponent,
                "most": growth.most,
            }
            for growth in found
        ],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n")
    picture = file.with_suffix(".svg")
    series = [(each.dimension.name, each.figure, each.values) for each in found]
    picture.write_text(growth_chart(series), encoding="utf-8")
    return [file, picture]


def main() -> None:
    """Run the benchmark and print the tables."""
    options = read_options()
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("The benchmark needs two cores: one for the gateway, one for the load.")
    if "sessions" in options.only:
        provide_debian_programs("redis-server")
    compiled = None if options.plain else provide_compiled()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with one_at_a_time(), tempfile.TemporaryDirectory(prefix="growth-") as directory:
        core, load_core = sorted(os.sched_getaffinity(0))[:2]
        os.sched_setaffinity(0, {load_core})
        laboratory = Laboratory(Path(directory), core, load_core, compiled, options.requests)
        with laboratory.servers():
            found = measure(options, laboratory)
    print(f"\nwritten: {', '.join(map(str, write(found, options.json)))}")
    faults = [f"{each.dimension.name}: {each.figure}" for each in found if each.is_fault]
    if faults:
        raise SystemExit(f"grows more than it may: {'; '.join(faults)}")


if __name__ == "__main__":
    main()
