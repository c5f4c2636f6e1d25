"""The line that people get every day, so that they know that messages would come."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final

_HOUR: Final = 8


class DailySummary:
    """When the next line of a day is due, and what has happened since the last one."""

    def __init__(self, wall: float) -> None:
        now = datetime.fromtimestamp(wall)
        # Who starts a gateway in the afternoon waits for the next morning.
        self._last_sent_on = now.date() if now.hour >= _HOUR else date.min
        self._before = (0, 0)

    def is_due(self, wall: float) -> bool:
        """Whether this day has had none and the morning has come; a clock put back counts not."""
        now = datetime.fromtimestamp(wall)
        if now.hour < _HOUR or now.date() <= self._last_sent_on:
            return False
        self._last_sent_on = now.date()
        return True

    def traffic(self, status: Mapping[str, Any]) -> tuple[int, int]:
        """Requests and errors since the last time."""
        requests, errors = (
            sum(caller[what] for caller in status["callers"]) for what in ("requests", "errors")
        )
        before, self._before = self._before, (requests, errors)
        if requests < before[0]:
            # A worker has ended, and what it had counted went with it.
            return requests, errors
        return requests - before[0], max(errors - before[1], 0)
