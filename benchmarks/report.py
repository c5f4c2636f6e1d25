"""The report of the results, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.contenders import GATEWAY
from benchmarks.figures import Spread, ratio
from benchmarks.watching import Figures


@dataclass(frozen=True, slots=True)
class Result:
    """The samples of one workload by contender; `rate` and `cpu_us` are given for a `unit`.

    `dropped` measurements are not among them: other processes used the cores meanwhile.
    """

    workload: str
    title: str
    unit: str
    samples: Mapping[str, Sequence[Figures]]
    dropped: int

    def spread(self, label: str, figure: str) -> Spread | None:
        """Return the spread over the rounds; None when the figure was not measured."""
        values = [sample[figure] for sample in self.samples.get(label, ()) if figure in sample]
        return Spread.of(values) if values else None

    def ratio(self, figure: str, ours: str, theirs: str) -> Spread | None:
        """Return `ours` divided by `theirs`; None when one was not measured."""
        if self.spread(ours, figure) is None or self.spread(theirs, figure) is None:
            return None
        return ratio(
            [sample[figure] for sample in self.samples[ours]],
            [sample[figure] for sample in self.samples[theirs]],
        )

    @property
    def compared(self) -> str | None:
        """Return the figure by which the gateway is compared with others, None without one."""
        if GATEWAY not in self.samples or len(self.samples) == 1:
            return None
        return next((name for name in COMPARED if name in self.samples[GATEWAY][0]), None)

    @property
    def figures(self) -> list[str]:
        """Return the names of the measured figures, in the order of the columns."""
        names = {name for samples in self.samples.values() for name in samples[0]}
        return [name for name in COLUMNS if name in names]


@dataclass(frozen=True, slots=True)
class Column:
    """How a figure is shown: its heading, its divisor, and its number of decimals."""

    heading: str
    divisor: float = 1
    decimals: int = 0

    def show(self, spread: Spread | None) -> str:
        """Return the median."""
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
    "p99_ratio": Column("p99 ÷ that with tokens of an hour", decimals=2),
    "failed": Column("failed"),
    "new_tokens": Column("tokens used"),
    "refused": Column("refused by the platform"),
    "first_request_s": Column("start to first request, ms", 0.001),
    "start_cpu_s": Column("CPU ms of it", 0.001),
    "rss": Column("RSS idle, MB", 1e6, 1),
    "pss": Column("PSS idle, MB", 1e6, 1),
    "rss_connected": Column("RSS with 1,000 idle connections, MB", 1e6, 1),
    "pss_connected": Column("PSS with 1,000 idle connections, MB", 1e6, 1),
    "simulated_requests": Column("simulated requests"),
    "simulated_hours": Column("simulated hours", decimals=1),
    "token_requests": Column("token requests"),
    "waited": Column("requests that waited for a token"),
}
# The figure by which the gateway is compared with the others: the first of these that was measured.
COMPARED = {
    "rate": "rate",
    "added_p99_us": "added p99",
    "first_request_s": "time",
    "rss": "idle RSS",
}

# What a proxy costs, for `overview`.
COSTS = ("cpu_us", "first_request_s", "rss", "rss_connected")


def show_ratio(spread: Spread | None) -> str:
    """Return a median with its extremes."""
    if spread is None:
        return "–"
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"


def overview(results: Sequence[Result], descriptions: Mapping[str, str]) -> str:
    """Return what each contender costs in each workload as a Markdown table."""
    shown = [(one, name) for one in results for name in COSTS if name in one.figures]
    headings = [f"{one.workload}: {COLUMNS[name].heading}" for one, name in shown]
    headings = [text.format(unit=one.unit) for text, (one, _) in zip(headings, shown, strict=True)]
    lines = [_row(["proxy", *headings]), _row(["---", *["---:"] * len(shown)])]
    for label in dict.fromkeys(label for one, _ in shown for label in one.samples):
        cells = [COLUMNS[name].show(one.spread(label, name)) for one, name in shown]
        lines.append(_row([descriptions.get(label, label), *cells]))
    return "\n".join(lines)


def table(result: Result, descriptions: Mapping[str, str]) -> str:
    """Return one workload as a Markdown table."""
    names = result.figures
    headings = ["proxy", *(COLUMNS[name].heading.format(unit=result.unit) for name in names)]
    compared = result.compared
    if compared:
        headings.append(f"the gateway's {COMPARED[compared]} ÷ its")
    growth = result.unit == "MiB"
    if growth:
        headings.append("memory growth MiB")
    lines = [_row(headings), _row(["---", *["---:"] * (len(headings) - 1)])]
    for label in result.samples:
        cells = [descriptions.get(label, label)]
        cells += [COLUMNS[name].show(result.spread(label, name)) for name in names]
        if compared:
            own = label == GATEWAY
            cells.append("–" if own else show_ratio(result.ratio(compared, GATEWAY, label)))
        if growth:
            cells.append(Column("", decimals=1).show(result.spread(label, "growth_mib")))
        lines.append(_row(cells))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def machine_readable(result: Result) -> dict[str, Any]:
    """Return all samples, their medians, and the gateway's rate relative to the others."""
    contenders = {}
    for label, samples in result.samples.items():
        figure = result.compared if label != GATEWAY else None
        against = figure and result.ratio(figure, GATEWAY, label)
        spreads = {name: result.spread(label, name) for name in samples[0]}
        contenders[label] = {
            "median": {name: one.median for name, one in spreads.items() if one},
            "gateway_ratio": against
            and {"median": against.median, "min": against.low, "max": against.high},
            "samples": list(samples),
        }
    return {
        "title": result.title,
        "unit": result.unit,
        "compared": result.compared,
        "dropped": result.dropped,
        "contenders": contenders,
    }
