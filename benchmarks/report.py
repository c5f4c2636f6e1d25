"""What was measured, for people (Markdown) and programs (JSON)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import GATEWAY
from benchmarks.figures import Spread, ratio
from benchmarks.watching import Figures


@dataclass(frozen=True, slots=True)
class Result:
    """The samples of one workload by contender; `rate` and `cpu_us` are given for a `unit`."""

    workload: str
    title: str
    unit: str
    samples: Mapping[str, Sequence[Figures]]

    def spread(self, label: str, figure: str) -> Spread | None:
        """Over the rounds; None when that was not measured."""
        values = [sample[figure] for sample in self.samples.get(label, ()) if figure in sample]
        return Spread.of(values) if values else None

    def ratio(self, figure: str, ours: str, theirs: str) -> Spread | None:
        """Ours divided by theirs; None when one was not measured."""
        if self.spread(ours, figure) is None or self.spread(theirs, figure) is None:
            return None
        return ratio(
            [sample[figure] for sample in self.samples[ours]],
            [sample[figure] for sample in self.samples[theirs]],
        )

    @property
    def figures(self) -> list[str]:
        """The names of what was measured, in the order of the columns."""
        names = {name for samples in self.samples.values() for name in samples[0]}
        return [name for name in COLUMNS if name in names]


@dataclass(frozen=True, slots=True)
class Column:
    """How a figure is shown: its heading, in what it is divided for that, and decimals."""

    heading: str
    divisor: float = 1
    decimals: int = 0

    def show(self, spread: Spread | None) -> str:
        """The median."""
        return "–" if spread is None else f"{spread.median / self.divisor:,.{self.decimals}f}"


COLUMNS = {
    "rate": Column("{unit}/s"),
    "cpu_us": Column("CPU µs/{unit}", decimals=1),
    "p50_us": Column("p50 ms", 1000, 2),
    "p99_us": Column("p99 ms", 1000, 2),
    "p999_us": Column("p99.9 ms", 1000, 2),
    "added_p50_us": Column("added p50 ms", 1000, 2),
    "added_p99_us": Column("added p99 ms", 1000, 2),
    "added_p999_us": Column("added p99.9 ms", 1000, 2),
    "failed": Column("failed"),
    "first_request_s": Column("start to first request, ms", 0.001),
    "rss": Column("RSS idle, MB", 1e6, 1),
    "pss": Column("PSS idle, MB", 1e6, 1),
    "rss_connected": Column("RSS with 1,000 idle connections, MB", 1e6, 1),
    "pss_connected": Column("PSS with 1,000 idle connections, MB", 1e6, 1),
    "simulated_requests": Column("simulated requests"),
    "token_requests": Column("token requests"),
}


def show_ratio(spread: Spread | None) -> str:
    """A median with its extremes."""
    if spread is None:
        return "–"
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"


def table(result: Result, descriptions: Mapping[str, str]) -> str:
    """One workload as a Markdown table."""
    names = result.figures
    headings = ["proxy", *(COLUMNS[name].heading.format(unit=result.unit) for name in names)]
    compared = "rate" in names and GATEWAY in result.samples and len(result.samples) > 1
    if compared:
        headings.append("the gateway's rate ÷ its")
    growth = result.unit == "MiB"
    if growth:
        headings.append("memory growth MiB")
    lines = [_row(headings), _row(["---", *["---:"] * (len(headings) - 1)])]
    for label in result.samples:
        cells = [descriptions.get(label, label)]
        cells += [COLUMNS[name].show(result.spread(label, name)) for name in names]
        if compared:
            own = label == GATEWAY
            cells.append("–" if own else show_ratio(result.ratio("rate", GATEWAY, label)))
        if growth:
            cells.append(Column("", decimals=1).show(result.spread(label, "growth_mib")))
        lines.append(_row(cells))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def machine_readable(result: Result) -> dict[str, Any]:
    """All samples, their medians, and the gateway's rate relative to others."""
    contenders = {}
    for label, samples in result.samples.items():
        against = result.ratio("rate", GATEWAY, label) if label != GATEWAY else None
        spreads = {name: result.spread(label, name) for name in samples[0]}
        contenders[label] = {
            "median": {name: one.median for name, one in spreads.items() if one},
            "gateway_ratio": against
            and {"median": against.median, "min": against.low, "max": against.high},
            "samples": list(samples),
        }
    return {"title": result.title, "unit": result.unit, "contenders": contenders}
