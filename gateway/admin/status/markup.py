"""Formats numbers and durations for the operators' pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Words = Mapping[str, str]

_SIZES: Final = (("day", 86400), ("hour_unit", 3600), ("minute", 60), ("second", 1))
# A space at which browsers do not break the line.
_SPACE: Final = "\N{NO-BREAK SPACE}"
# Smaller numbers have no thousands separator.
_GROUPED_FROM: Final = 10_000


def format_number(value: int, words: Words) -> str:
    """Return an integer as text, with thousands separators from `_GROUPED_FROM` on."""
    return f"{value:,}".replace(",", words["thousands"]) if value >= _GROUPED_FROM else str(value)


def format_percentage(part: int, whole: int, words: Words) -> str:
    """Return `part` as a percentage of `whole`: `100 %` only for all, `0 %` only for none."""
    percent = 100 * part / whole
    if part and percent < 0.1:
        return f"< {_decimal(0.1, words)}{_SPACE}%"
    if part < whole and percent > 99.9:
        return f"> {_decimal(99.9, words)}{_SPACE}%"
    few = percent < 10 or percent > 99
    return f"{_decimal(percent, words) if few else round(percent)}{_SPACE}%"


def format_duration(duration: float, words: Words) -> str:
    """Return a duration, given in milliseconds, in milliseconds, seconds or larger units."""
    if duration >= 59_950:
        return format_span(round(duration / 1000), words)
    if duration >= 999.5:
        return f"{_decimal(duration / 1000, words)}{_SPACE}{words['second']}"
    shown = _decimal(duration, words) if duration < 9.95 else round(duration)
    return f"{shown}{_SPACE}{words['millisecond']}"


def _decimal(value: float, words: Words) -> str:
    """Return a number with one decimal, which is left out if it is 0."""
    return f"{value:.1f}".removesuffix(".0").replace(".", words["decimal"])


def unit_names(words: Words) -> str:
    """Return the names of days, hours, minutes and seconds for the script, separated by `|`."""
    return "|".join(words[name] for name, _ in _SIZES)


def format_span(duration: int, words: Words) -> str:
    """Return a number of seconds in its two largest units."""
    for place, (name, size) in enumerate(_SIZES):
        if duration >= size or size == 1:
            text = f"{duration // size} {words[name]}"
            if size > 1:
                smaller, smaller_size = _SIZES[place + 1]
                text += f" {duration % size // smaller_size} {words[smaller]}"
            return text
    raise AssertionError("seconds are the smallest unit")
