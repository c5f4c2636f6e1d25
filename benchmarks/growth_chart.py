"""The growth of each figure as an SVG picture: both axes logarithmic, one frame a dimension."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

# A dimension, a figure of it, and its values by size.
Series = tuple[str, str, Sequence[tuple[int, float]]]

_COLOURS = ("#0f766e", "#c2410c", "#1d4ed8", "#7e22ce", "#15803d", "#a16207", "#525252", "#be123c")
_WIDTH, _HEIGHT = 330, 230
_LEFT, _TOP, _LINE = 16, 44, 14
_COLUMNS = 3


def growth_chart(series: Sequence[Series]) -> str:
    """Return the picture: each figure divided by its value at the smallest size."""
    frames = [list(group) for _, group in itertools.groupby(series, key=lambda one: one[0])]
    legend = max((len(frame) for frame in frames), default=0) * _LINE
    cell = _HEIGHT + legend + 70
    rows = math.ceil(len(frames) / _COLUMNS)
    width, height = _COLUMNS * (_WIDTH + 60) + _LEFT, _TOP + rows * cell
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="11" role="img" '
        'aria-label="How figures grow with the size of an installation">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(_LEFT, 24, "Figures divided by those of the smallest size; dashed: as the size"),
    ]
    for number, frame in enumerate(frames):
        row, column = divmod(number, _COLUMNS)
        lines += _frame(frame, _LEFT + column * (_WIDTH + 60) + 30, _TOP + row * cell + 20)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#1f2937" {more}>{escape(text)}</text>'


def _frame(frame: Sequence[Series], left: float, top: float) -> Iterator[str]:
    sizes = sorted({size for _, _, values in frame for size, _ in values})
    relative = [
        (figure, [(size, value / max(values[0][1], 1e-9)) for size, value in values])
        for _, figure, values in frame
    ]
    most = sizes[-1] / sizes[0]
    high = max(most, *(ratio for _, values in relative for _, ratio in values))

    def place(size: float, ratio: float) -> str:
        across = math.log(size / sizes[0]) / math.log(max(most, 2))
        up = math.log(max(ratio, 0.5) / 0.5) / math.log(high / 0.5)
        return f"{left + across * _WIDTH:.1f},{top + (1 - up) * _HEIGHT:.1f}"

    yield _text(left, top - 8, frame[0][0], 'font-weight="bold"')
    yield (
        f'<rect x="{left}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" '
        'stroke="#d1d5db"/>'
    )
    for size in sizes:
        x = place(size, 1).partition(",")[0]
        yield _text(float(x), top + _HEIGHT + 14, f"{size:,}", 'text-anchor="middle"')
    for power in range(math.floor(math.log10(high)) + 1):
        y = place(sizes[0], 10**power).partition(",")[2]
        yield _text(left - 4, float(y) + 4, f"{10**power:g} ×", 'text-anchor="end"')
    ends = f"{place(sizes[0], 1)} {place(sizes[-1], most)}"
    yield f'<polyline points="{ends}" fill="none" stroke="#9ca3af" stroke-dasharray="4 4"/>'
    for number, (figure, values) in enumerate(relative):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(place(size, ratio) for size, ratio in values)
        dashes = ' stroke-dasharray="2 2"' if number >= len(_COLOURS) else ""
        stroke = f'stroke="{colour}" stroke-width="1.5"{dashes}'
        yield f'<polyline points="{points}" fill="none" {stroke}/>'
        y = top + _HEIGHT + 30 + number * _LINE
        yield f'<rect x="{left}" y="{y - 8}" width="10" height="8" fill="{colour}"/>'
        yield _text(left + 16, y, figure.replace("`", ""))
