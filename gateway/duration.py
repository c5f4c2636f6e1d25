"""Spans of time as people say them."""

from __future__ import annotations


def in_words(seconds: float) -> str:
    """`45 s`, `5 min`, `3 h`, `3 h 20 min` or `2 days`; 10799 seconds are 3 hours."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    whole, minutes = round(seconds), round(seconds / 60)
    if minutes < 60:
        is_even = abs(60 * minutes - whole) <= whole / 50
        return f"{minutes} min" if is_even else f"{whole // 60} min {whole % 60} s"
    if minutes < 48 * 60:
        return _joined(*divmod(minutes, 60), "h", "min")
    return _joined(*divmod(round(seconds / 3600), 24), "days", "h")


def _joined(great: int, small: int, unit: str, smaller: str) -> str:
    return f"{great} {unit} {small} {smaller}" if small else f"{great} {unit}"
