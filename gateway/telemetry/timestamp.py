"""Timestamps in the format of audit records."""

from __future__ import annotations

import time
from typing import Final

_FRACTIONS: Final = [f".{milliseconds:03d}Z" for milliseconds in range(1000)]


class TimestampFormatter:
    """Formats ISO 8601 in UTC with milliseconds. The text of the current second is cached.

    An object must be used in one thread only.
    """

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def format(self, seconds: float) -> str:
        """Return a text such as `2026-03-01T08:30:00.125Z` for a Unix time in seconds."""
        milliseconds = int(seconds * 1000 + 0.5)
        second = milliseconds // 1000
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return self._text + _FRACTIONS[milliseconds - second * 1000]
