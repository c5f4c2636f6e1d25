"""Dates as ranges."""

from __future__ import annotations

import pytest

from gateway.sandbox.fhir.search import parse_date, range_of


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("2024", 366 * 86400),
        ("2026", 365 * 86400),
        ("2026-02", 28 * 86400),
        ("2026-02-01", 86400),
        ("2026-02-01T10:00", 60),
        ("2026-02-01T10:00Z", 60),
        ("2026-02-01T10:00:00+05:00", 1),
    ],
)
def test_a_date_is_as_wide_as_its_precision(text: str, width: float) -> None:
    range_ = parse_date(text)
    assert range_.high - range_.low == width


def test_fractions_of_a_second_count() -> None:
    range_ = parse_date("2026-02-01T10:00:00.250Z")
    assert range_.high - range_.low == pytest.approx(0.001, rel=1e-3)


def test_offsets_are_respected() -> None:
    utc = parse_date("2026-02-01T05:00:00Z")
    assert parse_date("2026-02-01T10:00:00+05:00") == utc
    assert parse_date("2026-02-01T10:00:00 05:00") == utc
    assert parse_date("2026-02-01T01:30:00-03:30") == utc


@pytest.mark.parametrize("text", ["", "26", "2026-2-1", "2026-02-30", "2026-02-01T24:01:00Z", "x"])
def test_invalid_dates_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_date(text)
    assert range_of(text) is None


def test_open_periods() -> None:
    open_end = range_of({"start": "2026"})
    assert open_end is not None
    assert open_end.contains(parse_date("2999"))
    assert range_of({"end": "2026"}) is not None
    assert range_of({}) is None
    assert range_of({"start": 5}) is None
