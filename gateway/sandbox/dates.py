"""Dates in searches: every date is a range, as wide as its precision.

FHIR R5 search, 3.2.1.5.8. A range is half-open and in seconds of Unix time. A date without an
offset is taken as UTC.
"""

from __future__ import annotations

import calendar
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

# A plus sign that was not percent-encoded arrives as a space.
_DATE: Final = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?(Z|[+ -]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class DateRange:
    """The range from `low`, inclusive, to `high`, exclusive."""

    low: float
    high: float

    def contains(self, other: DateRange) -> bool:
        """Return whether the other range lies completely in this one."""
        return self.low <= other.low and other.high <= self.high

    def overlaps(self, other: DateRange) -> bool:
        """Return whether the two ranges have a moment in common."""
        return self.low < other.high and other.low < self.high


def matches(prefix: str, requested: DateRange, found: DateRange) -> bool:
    """Return whether a resource's date (`found`) matches the searched one by the prefix."""
    match prefix:
        case "ne":
            return not requested.contains(found)
        case "gt":
            return found.high > requested.high
        case "lt":
            return found.low < requested.low
        case "ge":
            return found.high > requested.high or requested.contains(found)
        case "le":
            return found.low < requested.low or requested.contains(found)
        case "sa":
            return found.low >= requested.high
        case "eb":
            return found.high <= requested.low
        case "ap":
            return requested.overlaps(found)
        case _:
            return requested.contains(found)


def parse_date(text: str) -> DateRange:
    """Return the range of a FHIR date, dateTime or instant. Raises ValueError."""
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("not a date")
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    start = datetime(
        int(year),
        int(month or 1),
        int(day or 1),
        int(hour or 0),
        int(minute or 0),
        int(second or 0),
        tzinfo=_zone(offset),
    )
    low = start.timestamp() + float(fraction or 0)
    if fraction is not None:
        return DateRange(low, low + 10.0 ** -(len(fraction) - 1))
    return DateRange(low, low + _width(start, month, day, hour, second))


def range_of(value: Any) -> DateRange | None:
    """Return the range of a date or a Period in a resource; None if it is neither."""
    try:
        if isinstance(value, str):
            return parse_date(value)
        if isinstance(value, dict) and ("start" in value or "end" in value):
            low = parse_date(value["start"]).low if "start" in value else -math.inf
            high = parse_date(value["end"]).high if "end" in value else math.inf
            return DateRange(low, high)
    except (TypeError, ValueError):
        return None
    return None


def _zone(offset: str | None) -> timezone:
    if offset is None or offset == "Z":
        return UTC
    hours, minutes = offset[1:].split(":")
    shift = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(-shift if offset[0] == "-" else shift)


def _width(
    start: datetime, month: str | None, day: str | None, hour: str | None, second: str | None
) -> float:
    if month is None:
        return 86400.0 * (366 if calendar.isleap(start.year) else 365)
    if day is None:
        return 86400.0 * calendar.monthrange(start.year, start.month)[1]
    if hour is None:
        return 86400.0
    return 60.0 if second is None else 1.0
