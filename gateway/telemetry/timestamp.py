"""Times as audit records write them."""

from __future__ import annotations

import time


class Timestamp:
    """ISO 8601 in UTC with milliseconds; the part that changes once a second is kept.

    An object belongs to one thread.
    """

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def iso(self, seconds: float) -> str:
        """`2026-03-01T08:30:00.125Z` for seconds since 1970."""
        second, milliseconds = divmod(round(seconds * 1000), 1000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{milliseconds:03d}Z"
