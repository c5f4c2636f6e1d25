"""When a trouble is told: once when it has lasted, once when it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.admin.alerts.rules import COVERED, LASTING, Key, Value

# What comes back sooner was never over.
_CALM: Final = 60.0


@dataclass(slots=True)
class Course:
    """One trouble from its first to its last sight, on the monotonic clock."""

    name: str
    about: str
    began: float
    last: float
    value: Value
    told: bool = False


class Courses:
    """All troubles that are known."""

    def __init__(self) -> None:
        self._known: dict[Key, Course] = {}

    def look(self, found: Mapping[Key, Value], now: float) -> tuple[list[Course], list[Course]]:
        """Those to be told now that they have begun, and those that they are over."""
        for key, value in found.items():
            course = self._known.setdefault(key, Course(*key, began=now, last=now, value=value))
            course.last = now
            if not course.told:
                course.value = value
                if (COVERED.get(course.name, ""), "") in found:
                    course.began = now
        over = [
            key for key, each in self._known.items() if key not in found and _is_over(each, now)
        ]
        ended = [course for course in map(self._known.pop, over) if course.told]
        begun = [each for key, each in self._known.items() if key in found and _is_due(each, now)]
        for course in begun:
            course.told = True
        return begun, ended

    @property
    def open(self) -> int:
        """How many were told that are not over."""
        return sum(course.told for course in self._known.values())


def _is_due(course: Course, now: float) -> bool:
    return not course.told and now - course.began >= LASTING[course.name]


def _is_over(course: Course, now: float) -> bool:
    # Of one that nobody was told of, each pause begins it anew.
    return not course.told or now - course.last >= _CALM
