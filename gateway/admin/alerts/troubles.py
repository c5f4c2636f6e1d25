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
    began: float
    last: float
    value: Value
    told: bool = False


class AlertStates:
    """All troubles that are known."""

    def __init__(self) -> None:
        self._known: dict[AlertKey, AlertState] = {}

    def look(
        self, found: Mapping[AlertKey, Value], now: float
    ) -> tuple[list[AlertState], list[AlertState]]:
        """Those to be told now that they have begun, and those that they are over."""
        for key, value in found.items():
            trouble = self._known.setdefault(
                key, AlertState(*key, began=now, last=now, value=value)
            )
            trouble.last = now
            if not trouble.told:
                trouble.value = value
                if (COVERED.get(trouble.name, ""), "") in found:
                    trouble.began = now
        over = [
            key for key, each in self._known.items() if key not in found and _is_resolved(each, now)
        ]
        ended = [trouble for trouble in map(self._known.pop, over) if trouble.told]
        begun = [each for key, each in self._known.items() if key in found and _is_due(each, now)]
        for trouble in begun:
            trouble.told = True
        return begun, ended

    @property
    def open(self) -> int:
        """How many were told that are not over."""
        return sum(trouble.told for trouble in self._known.values())


def _is_due(trouble: AlertState, now: float) -> bool:
    return not trouble.told and now - trouble.began >= HOLD_SECONDS[trouble.name]


def _is_resolved(trouble: AlertState, now: float) -> bool:
    # Of one that nobody was told of, each pause begins it anew.
    return not trouble.told or now - trouble.last >= _RESOLVE_SECONDS
