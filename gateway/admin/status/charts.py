"""The data of the charts of the status page: one hour, minute by minute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from gateway.admin.status.markup import Words, format_number
from gateway.admin.status.recent_requests import MINUTES

Minutes = Sequence[Mapping[str, Any]]

_BAR: Final = 5
_HEIGHT: Final = 60
# Minutes between two marks on the axis.
_STEP: Final = 15
# The smallest maximum of the scale: one request must not look like many.
_FEW: Final = 5


def chart(minutes: Minutes, kinds: Sequence[str], words: Words) -> dict[str, Any]:
    """Return a bar for each minute with a segment for each kind, the newest on the right.

    The result is the data of a template. `empty` is the key of the text that replaces the chart if
    all values are 0, else None.
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
    """Yield the bars of a kind. Each starts at its minute's height in `floors` and adds to it."""
    for at, minute in enumerate(minutes):
        if minute[kind]:
            # The minimum height keeps one request among many visible.
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
    """Yield the times (ISO 8601) of the marks on the axis, and of its beginning."""
    begin = datetime.fromisoformat(minutes[-1]["from"]) - timedelta(minutes=MINUTES - 1)
    yield from ((begin + timedelta(minutes=at)).isoformat() for at in range(0, MINUTES, _STEP))
