"""What the charts of the status page show: an hour, minute by minute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from gateway.admin.status.markup import Words, format_number
from gateway.admin.status.recent_requests import MINUTES

Minutes = Sequence[Mapping[str, Any]]

_BAR: Final = 5
_HEIGHT: Final = 60
# From one mark of the axis to the next, in minutes.
_STEP: Final = 15
# A bar of fewer is not as high as the chart: one request must not look like many.
_FEW: Final = 5


def chart(minutes: Minutes, kinds: Sequence[str], words: Words) -> dict[str, Any]:
    """A bar for each minute with a part for each kind, the newest on the right; for a template.

    `empty` is the key of what is said where there is nothing to draw.
    """
    most = max(sum(minute[kind] for kind in kinds) for minute in minutes)
    floors = [0.0] * len(minutes)
    empty = "no-errors" if any(minute["requests"] for minute in minutes) else "no-requests"
    top = max(most, _FEW)
    return {
        "kind": kinds[0],
        "most": most,
        "empty": None if most else empty,
        "width": MINUTES * _BAR,
        "height": _HEIGHT,
        "marks": [place * _BAR for place in range(_STEP, MINUTES, _STEP)],
        "bars": {kind: list(_bars(minutes, kind, top, floors, words)) for kind in kinds},
        "times": list(_times(minutes)),
    }


def _bars(
    minutes: Minutes, kind: str, top: int, floors: list[float], words: Words
) -> Iterator[dict[str, Any]]:
    """The bars of a kind, each upon its floor, which it raises."""
    for at, minute in enumerate(minutes):
        if minute[kind]:
            # Never so low that one among many cannot be seen.
            height = max(1.5, round(minute[kind] / top * _HEIGHT, 1))
            floors[at] = min(_HEIGHT, floors[at] + height)
            told = f"{words[kind]} {format_number(minute[kind], words)}"
            yield {
                "x": (at + MINUTES - len(minutes)) * _BAR,
                "y": f"{_HEIGHT - floors[at]:g}",
                "width": _BAR - 1,
                "height": f"{height:g}",
                "title": f"{minute['from'][11:16]} UTC: {told}",
            }


def _times(minutes: Minutes) -> Iterator[str]:
    """The times at the marks."""
    begin = datetime.fromisoformat(minutes[-1]["from"]) - timedelta(minutes=MINUTES - 1)
    yield from ((begin + timedelta(minutes=at)).isoformat() for at in range(0, MINUTES, _STEP))
