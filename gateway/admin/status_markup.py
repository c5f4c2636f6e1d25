"""Small parts of the status page: text that is markup, moments and spans of time."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

Words = Mapping[str, str]

_SIZES: Final = (("day", 86400), ("hour_unit", 3600), ("minute", 60), ("second", 1))


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def inside(value: object) -> str:
    """Markup as it is, anything else as text."""
    return value if isinstance(value, Html) else escape(str(value))


def commands(text: str) -> str:
    """Text in which what stands between backquotes is to be typed."""
    parts = escape(text).split("`")
    return Html(
        "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))
    )


def unit_names(words: Words) -> str:
    """The names of days, hours, minutes and seconds, for the script."""
    return escape("|".join(words[name] for name, _ in _SIZES))


def span(duration: int, words: Words) -> str:
    """A number of seconds in its two greatest units."""
    for place, (name, size) in enumerate(_SIZES):
        if duration >= size or size == 1:
            text = f"{duration // size} {words[name]}"
            if size > 1:
                smaller, smaller_size = _SIZES[place + 1]
                text += f" {duration % size // smaller_size} {words[smaller]}"
            return text
    raise AssertionError("seconds are the smallest unit")


def seconds(left: int | None, words: Words) -> str:
    """A span that the script counts down."""
    if left is None:
        return "–"
    return Html(f'<span data-seconds="{left}">{escape(span(max(0, left), words))}</span>')


def moment(iso: str, *, short: bool = False) -> str:
    """A time in UTC, which the script turns into the reader's; `short` is without seconds."""
    shown = f"{iso[11:16] if short else iso[:19].replace('T', ' ')} UTC"
    mark = " data-short" if short else ""
    return Html(f'<time datetime="{escape(iso)}"{mark}>{escape(shown)}</time>')
