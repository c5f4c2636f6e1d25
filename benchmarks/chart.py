"""The gateway's figures divided by those of other proxies, as an SVG picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.contenders import GATEWAY
from benchmarks.figures import Spread, inverted
from benchmarks.report import Result

COLOURS = {
    "envoy": "#c2410c",
    "nginx": "#15803d",
    "haproxy": "#1d4ed8",
    "usual": "#7e22ce",
    "gateway-unaudited": "#525252",
    "gateway-file": "#a16207",
    "beside": "#0f766e",
}
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
_LEFT, _WIDTH, _RIGHT = 420, 460, 30
_ROW, _GAP, _TOP, _BOTTOM = 18, 12, 78, 46


@dataclass(frozen=True, slots=True)
class Row:
    """One contender in one workload: the ratio of rates, and the inverted ratio of CPU times."""

    workload: str
    label: str
    rate: Spread
    cpu: Spread | None


def rows(results: Sequence[Result]) -> list[Row]:
    """Return a row for each contender of each workload that has a rate."""
    found = []
    for result in results:
        for label in result.samples:
            rate = result.ratio("rate", GATEWAY, label) if label != GATEWAY else None
            if rate is not None:
                cpu = result.ratio("cpu_us", GATEWAY, label)
                found.append(Row(result.workload, label, rate, cpu and inverted(cpu)))
    return found


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps ratios to horizontal positions, on a logarithmic scale."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> _Scale:
        """Return a scale with ticks at both ends, and 1 between them."""
        low = max((tick for tick in _TICKS if tick <= min(*values, 0.5)), default=_TICKS[0])
        high = min((tick for tick in _TICKS if tick >= max(*values, 2)), default=_TICKS[-1])
        return cls(low, high)

    def x(self, ratio: float) -> float:
        """Return the position of a ratio; one outside of the scale is drawn at the border."""
        share = math.log(ratio / self.low) / math.log(self.high / self.low)
        return round(_LEFT + _WIDTH * min(1.0, max(0.0, share)), 1)


def chart(results: Sequence[Result], descriptions: Mapping[str, str]) -> str | None:
    """Return the picture; None when nothing was compared."""
    drawn = rows(results)
    if not drawn:
        return None
    values = [
        value
        for row in drawn
        for value in (row.rate.low, row.rate.high, *((row.cpu.median,) if row.cpu else ()))
    ]
    scale = _Scale.around(values)
    breaks = sum(one.workload != other.workload for one, other in itertools.pairwise(drawn))
    height = _TOP + len(drawn) * _ROW + breaks * _GAP + _BOTTOM
    width = _LEFT + _WIDTH + _RIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="12" '
        'role="img" aria-label="The gateway compared with other proxies">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *_legend(),
        *_grid(scale, height),
        *_rows(drawn, scale, descriptions),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y}" fill="#1f2937" {more}>{escape(text)}</text>'


def _legend() -> Iterator[str]:
    yield _text(16, 22, "The gateway compared with other proxies", 'font-size="15"')
    yield '<circle cx="22" cy="38" r="4" fill="#1f2937"/>'
    yield _text(32, 42, "its rate ÷ theirs (median; line: all rounds)")
    yield '<circle cx="318" cy="38" r="4" fill="#ffffff" stroke="#1f2937" stroke-width="1.5"/>'
    yield _text(328, 42, "their CPU time for a request (or MiB) ÷ its")
    yield _text(_LEFT + _WIDTH, 42, "right of 1: the gateway is ahead", 'text-anchor="end"')


def _grid(scale: _Scale, height: int) -> Iterator[str]:
    for tick in _TICKS:
        if scale.low <= tick <= scale.high:
            x, strong = scale.x(tick), tick == 1
            colour, thickness = ("#1f2937", 1.5) if strong else ("#d1d5db", 1)
            yield (
                f'<line x1="{x}" x2="{x}" y1="{_TOP - 14}" y2="{height - _BOTTOM + 6}" '
                f'stroke="{colour}" stroke-width="{thickness}"/>'
            )
            yield _text(x, height - _BOTTOM + 24, f"{tick:g} ×", 'text-anchor="middle"')


def _rows(drawn: Sequence[Row], scale: _Scale, descriptions: Mapping[str, str]) -> Iterator[str]:
    y, before = _TOP, ""
    for row in drawn:
        if row.workload != before:
            y += _GAP if before else 0
            yield _text(16, y + 4, row.workload, 'font-weight="bold"')
            before = row.workload
        name = descriptions.get(row.label, row.label).partition(",")[0].replace("`", "")
        yield _text(120, y + 4, name)
        yield _text(_LEFT - 16, y + 4, f"{row.rate.median:.2f} ×", 'text-anchor="end"')
        colour = COLOURS.get(row.label, "#1f2937")
        low, high = scale.x(row.rate.low), scale.x(row.rate.high)
        yield (
            f'<line x1="{low}" x2="{high}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
        )
        if row.cpu is not None:
            yield (
                f'<circle cx="{scale.x(row.cpu.median)}" cy="{y}" r="4" fill="#ffffff" '
                f'stroke="{colour}" stroke-width="1.5"/>'
            )
        yield f'<circle cx="{scale.x(row.rate.median)}" cy="{y}" r="4" fill="{colour}"/>'
        y += _ROW
