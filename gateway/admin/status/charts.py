"""The charts of the status page as SVG: one hour, minute by minute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from html import escape
from typing import Any, Final

from gateway.admin.status.markup import Words, format_number, time_element
from gateway.admin.status.recent_requests import MINUTES

Minutes = Sequence[Mapping[str, Any]]

_BAR: Final = 5
_HEIGHT: Final = 60
# Minutes from one mark of the axis to the next.
_STEP: Final = 15
# Minimum of the chart's scale: a single request must not have the full height.
_FEW: Final = 5


def chart(minutes: Minutes, kinds: Sequence[str], label: str, words: Words) -> str:
    """Return a bar for each minute with a segment for each kind, the newest on the right.

    `label` is the chart's text for screen readers. If all values are 0, a text replaces the chart.
    """
    most = max(sum(minute[kind] for kind in kinds) for minute in minutes)
    if not most:
        empty = "no-errors" if any(minute["requests"] for minute in minutes) else "no-requests"
        return f'<p class="chart empty">{escape(words[empty])}</p>{_axis(minutes, words)}'
    top = max(most, _FEW)
    floors = [0.0] * len(minutes)
    bars = "".join(
        f'<g class="{kind}">{"".join(_bars(minutes, kind, top, floors, words))}</g>'
        for kind in kinds
    )
    marks = "".join(
        f'<path d="M{place * _BAR} 0v{_HEIGHT}"/>' for place in range(_STEP, MINUTES, _STEP)
    )
    return (
        f'<svg class="chart {kinds[0]}" role="img" aria-label="{escape(label)}" '
        f'preserveAspectRatio="none" viewBox="0 0 {MINUTES * _BAR} {_HEIGHT}">'
        f"{marks}{bars}</svg>{_axis(minutes, words)}"
    )


def _bars(
    minutes: Minutes, kind: str, top: int, floors: list[float], words: Words
) -> Iterator[str]:
    """Yield the bars of a kind. Each starts at its minute's height in `floors` and adds to it."""
    for at, minute in enumerate(minutes):
        if minute[kind]:
            # A minimum height, so that a small value beside large ones remains visible.
            height = max(1.5, round(minute[kind] / top * _HEIGHT, 1))
            floors[at] = min(_HEIGHT, floors[at] + height)
            told = (
                f"{minute['from'][11:16]} UTC: {words[kind]} {format_number(minute[kind], words)}"
            )
            yield (
                f'<rect x="{(at + MINUTES - len(minutes)) * _BAR}" y="{_HEIGHT - floors[at]:g}" '
                f'width="{_BAR - 1}" height="{height:g}"><title>{escape(told)}</title></rect>'
            )


def _axis(minutes: Minutes, words: Words) -> str:
    """Return the times at the marks, and the text for the end."""
    begin = datetime.fromisoformat(minutes[-1]["from"]) - timedelta(minutes=MINUTES - 1)
    times = (begin + timedelta(minutes=at) for at in range(0, MINUTES, _STEP))
    marks = "</span><span>".join(time_element(at.isoformat(), short=True) for at in times)
    return (
        f'<p class="axis"><span>{marks}</span><span>{escape(words["now"])}</span></p>'
        "<noscript>UTC</noscript>"
    )
