"""The charts of the status page: an hour, minute by minute, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from html import escape
from typing import Any, Final

from gateway.admin.status_markup import Words, moment, number
from gateway.admin.traffic import MINUTES

Minutes = Sequence[Mapping[str, Any]]

_BAR: Final = 5
_HEIGHT: Final = 60
# From one mark of the axis to the next, in minutes.
_STEP: Final = 15
# A bar of fewer is not as high as the chart: one request must not look like many.
_FEW: Final = 5


def chart(minutes: Minutes, kind: str, label: str, words: Words) -> str:
    """A bar for each minute, the newest on the right; `label` says it in words.

    Where there is nothing to draw it says so instead.
    """
    most = max(minute[kind] for minute in minutes)
    if not most:
        empty = "no-errors" if any(minute["requests"] for minute in minutes) else "no-requests"
        return f'<p class="chart empty">{escape(words[empty])}</p>{_axis(minutes, words)}'
    top = max(most, _FEW)
    bars = "".join(
        _bar(place, minute[kind] / top, _told(minute, kind, words))
        for place, minute in enumerate(minutes, MINUTES - len(minutes))
        if minute[kind]
    )
    marks = "".join(
        f'<path d="M{place * _BAR} 0v{_HEIGHT}"/>' for place in range(_STEP, MINUTES, _STEP)
    )
    return (
        f'<svg class="chart {kind}" role="img" aria-label="{escape(label)}" '
        f'preserveAspectRatio="none" viewBox="0 0 {MINUTES * _BAR} {_HEIGHT}">'
        f"{marks}{bars}</svg>{_axis(minutes, words)}"
    )


def _told(minute: Mapping[str, Any], kind: str, words: Words) -> str:
    return f"{minute['from'][11:16]} UTC: {number(minute[kind], words)}"


def _bar(place: int, part: float, told: str) -> str:
    # Never so low that one among many cannot be seen.
    height = max(1.5, round(part * _HEIGHT, 1))
    return (
        f'<rect x="{place * _BAR}" y="{_HEIGHT - height:g}" width="{_BAR - 1}" '
        f'height="{height:g}"><title>{escape(told)}</title></rect>'
    )


def _axis(minutes: Minutes, words: Words) -> str:
    """The times at the marks, and the word for the end."""
    begin = datetime.fromisoformat(minutes[-1]["from"]) - timedelta(minutes=MINUTES - 1)
    times = (begin + timedelta(minutes=at) for at in range(0, MINUTES, _STEP))
    marks = "</span><span>".join(moment(at.isoformat(), short=True) for at in times)
    return (
        f'<p class="axis"><span>{marks}</span><span>{escape(words["now"])}</span></p>'
        "<noscript>UTC</noscript>"
    )
