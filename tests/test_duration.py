"""Durations as text for users."""

from __future__ import annotations

import pytest

from gateway.i18n import format_duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.25, "0.25 s"),
        (5, "5 s"),
        (89.4, "89 s"),
        (100, "1 min 40 s"),
        (299, "5 min"),
        (300, "5 min"),
        (3599, "1 h"),
        (5400, "1 h 30 min"),
        (10799, "3 h"),
        (86400, "24 h"),
        (172799, "2 days"),
        (200000, "2 days 8 h"),
    ],
)
def test_a_duration_is_in_its_largest_units(seconds: float, words: str) -> None:
    """Hours are printed as hours, whether or not a second is missing."""
    assert format_duration(seconds) == words
