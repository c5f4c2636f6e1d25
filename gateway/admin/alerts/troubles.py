"""When a trouble is told: once when it has lasted, once when it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.admin.alerts.rules import COVERED, HOLD_SECONDS, AlertKey, Value

# What comes back sooner was never over.
_RESOLVE_SECONDS: Final = 60.0


@dataclass(slots=True)
class AlertState:
    """One trouble from its first to its last sight, on the monotonic clock."""

    name: str
    about: str
    first_seen_at: float
    last_seen_at: float
    value: Value
    is_notified: bool = False


class AlertStates:
    """All troubles that are known."""

    def __init__(self) -> None:
        self._states: dict[AlertKey, AlertState] = {}

    def update(
        self, found: Mapping[AlertKey, Value], now: float
    ) -> tuple[list[AlertState], list[AlertState]]:
        """Those to be told now that they have begun, and those that they are over."""
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
        """How many were told that are not over."""
        return sum(trouble.is_notified for trouble in self._states.values())


def _is_due(trouble: AlertState, now: float) -> bool:
    return not trouble.is_notified and now - trouble.first_seen_at >= HOLD_SECONDS[trouble.name]


def _is_resolved(trouble: AlertState, now: float) -> bool:
    # Of one that nobody was told of, each pause begins it anew.
    return not trouble.is_notified or now - trouble.last_seen_at >= _RESOLVE_SECONDS
