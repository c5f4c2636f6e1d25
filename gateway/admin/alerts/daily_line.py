"""The daily message, which shows operators that alert messages would arrive."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final

_HOUR: Final = 8


class DailySummary:
    """When the next daily message is due, and the traffic since the last one.

    `wall` is a Unix time; the message is due at 08:00 local time.
    """

    def __init__(self, wall: float) -> None:
        now = datetime.fromtimestamp(wall)
        # A gateway started after that hour sends its first daily message the next morning.
        self._last_sent_on = now.date() if now.hour >= _HOUR else date.min
        self._before = (0, 0)

    def is_due(self, wall: float) -> bool:
        """Return whether today's message is due, and count it as sent.

        A clock that is set back does not make the message of a day due again.
        """
        now = datetime.fromtimestamp(wall)
        if now.hour < _HOUR or now.date() <= self._last_sent_on:
            return False
        self._last_sent_on = now.date()
        return True

    def traffic(self, status: Mapping[str, Any]) -> tuple[int, int]:
        """Return the numbers of requests and errors since the last call."""
        requests, errors = (
            sum(caller[what] for caller in status["callers"]) for what in ("requests", "errors")
        )
        before, self._before = self._before, (requests, errors)
        return requests - before[0], errors - before[1]
