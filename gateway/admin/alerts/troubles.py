"""The states of alerts: each is notified once when it fires and once when it is resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.admin.alerts.rules import COVERED, HOLD_SECONDS, AlertKey, Value

# Seconds without its condition after which a firing alert is resolved. A shorter gap is ignored.
_RESOLVE_SECONDS: Final = 60.0


@dataclass(slots=True)
class AlertState:
    """One alert. Times are those of evaluations in which its condition held, monotonic.

    `is_notified`: the alert fires and has been notified; otherwise it is pending.
    """

    name: str
    about: str
    first_seen_at: float
    last_seen_at: float
    value: Value
    is_notified: bool = False


class AlertStates:
    """All alerts that are pending or firing."""

    def __init__(self) -> None:
        self._states: dict[AlertKey, AlertState] = {}

    def update(
        self, found: Mapping[AlertKey, Value], now: float
    ) -> tuple[list[AlertState], list[AlertState]]:
        """Return the alerts that begin to fire and those that are resolved.

        `found` has the alerts whose condition holds; `now` is monotonic. The caller must notify
        both, because an alert is returned only once.
        """
        for key, value in found.items():
            alert = self._states.setdefault(
                key, AlertState(*key, first_seen_at=now, last_seen_at=now, value=value)
            )
            alert.last_seen_at = now
            if not alert.is_notified:
                alert.value = value
                if (COVERED.get(alert.name, ""), "") in found:
                    alert.first_seen_at = now
        over = [
            key
            for key, alert in self._states.items()
            if key not in found and _is_resolved(alert, now)
        ]
        ended = [alert for alert in map(self._states.pop, over) if alert.is_notified]
        begun = [
            alert for key, alert in self._states.items() if key in found and _is_due(alert, now)
        ]
        for alert in begun:
            alert.is_notified = True
        return begun, ended

    @property
    def notified_count(self) -> int:
        """Number of alerts that have been notified and are not resolved."""
        return sum(alert.is_notified for alert in self._states.values())


def _is_due(alert: AlertState, now: float) -> bool:
    return not alert.is_notified and now - alert.first_seen_at >= HOLD_SECONDS[alert.name]


def _is_resolved(alert: AlertState, now: float) -> bool:
    # A pending alert, which has not been notified, starts again after each gap.
    return not alert.is_notified or now - alert.last_seen_at >= _RESOLVE_SECONDS
