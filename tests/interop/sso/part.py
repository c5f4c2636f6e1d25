"""A part of a scenario: its facts and the error that ended it."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class ScenarioPart:
    """Rows read facts by name; a missing one fails with the error of the part."""

    facts: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None
    _is_reported: bool = False

    def record(self, name: str, fact: Any) -> None:
        self.facts[name] = fact

    async def run(self, steps: Coroutine[Any, Any, None]) -> None:
        try:
            await steps
        except Exception as error:
            self.error = error

    def __getitem__(self, name: str) -> Any:
        """Return a fact. Raises AssertionError where it is missing."""
        if name in self.facts:
            return self.facts[name]
        # The first row that lacks something shows where the scenario ended.
        cause = None if self._is_reported else self.error
        self._is_reported = True
        raise AssertionError(f"not reached: “{name}”: {self.error!r}") from cause


async def run_parts(parts: Mapping[str, ScenarioPart], steps: Coroutine[Any, Any, None]) -> None:
    """Run what begins several parts; its error is that of all of them."""
    try:
        await steps
    except Exception as error:
        for part in parts.values():
            part.error = part.error or error
