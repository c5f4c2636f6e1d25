"""A part of a story: what it has shown, and the error that ended it."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Lane:
    """Rows read facts by name; one that was not come to fails with the error of the story."""

    facts: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None
    _is_shown: bool = False

    def see(self, name: str, fact: Any) -> None:
        """Keep what was observed."""
        self.facts[name] = fact

    async def run(self, story: Coroutine[Any, Any, None]) -> None:
        """Run to the end or to the error."""
        try:
            await story
        except Exception as error:
            self.error = error

    def __getitem__(self, name: str) -> Any:
        """Return a fact. Raises AssertionError where it was not come to."""
        if name in self.facts:
            return self.facts[name]
        # The first row that lacks something shows where the story ended.
        cause = None if self._is_shown else self.error
        self._is_shown = True
        raise AssertionError(f"not come to “{name}”: {self.error!r}") from cause


async def together(lanes: Mapping[str, Lane], story: Coroutine[Any, Any, None]) -> None:
    """Run what begins several lanes; its error is that of all of them."""
    try:
        await story
    except Exception as error:
        for lane in lanes.values():
            lane.error = lane.error or error
