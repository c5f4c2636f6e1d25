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
            trouble = self._states.setdefault(
                key, AlertState(*key, first_seen_at=now, last_seen_at=now, value=value)
            )
            trouble.last_seen_at = now
            if not trouble.is_notified:
                trouble.value = value
                if (COVERED.get(trouble.name, ""), "") in found:
                    trouble.first_seen_at = now
        over = [
            key
            for key, each in self._states.items()
            if key not in found and _is_resolved(each, now)
        ]
        ended = [trouble for trouble in map(self._states.pop, over) if trouble.is_notified]
        begun = [each for key, each in self._states.items() if key in found and _is_due(each, now)]
        for trouble in begun:
            trouble.is_notified = True
        return begun, ended

    @property
    def notified_count(self) -> int:
        """Number of alerts that have been notified and are not resolved."""
        return sum(trouble.is_notified for trouble in self._states.values())


def _is_due(trouble: AlertState, now: float) -> bool:
    return not trouble.is_notified and now - trouble.first_seen_at >= HOLD_SECONDS[trouble.name]


def _is_resolved(trouble: AlertState, now: float) -> bool:
    # A pending alert, which has not been notified, starts again after each gap.
    return not trouble.is_notified or now - trouble.last_seen_at >= _RESOLVE_SECONDS
