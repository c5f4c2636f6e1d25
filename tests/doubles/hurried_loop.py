"""An event loop whose time passes quickly while nothing happens, for tests that wait for a timeout.

Whoever measures time otherwise than by the loop, as a thread or a process, must not be waited for.
"""

from __future__ import annotations

import asyncio
import selectors

# Seconds without an event until the time is moved on, and by how much. A thread that the loop waits
# for has so long for each second of a timeout: 0.05 s.
_SILENCE = 0.005
_STEP = 0.1


class _HurriedSelector(selectors.DefaultSelector):
    """Waits for the next timer only as long as something happens; `ahead` is the time saved."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= _SILENCE:
            return super().select(timeout)
        events = super().select(_SILENCE)
        if not events:
            self.ahead += min(timeout - _SILENCE, _STEP)
        return events


class HurriedLoop(asyncio.SelectorEventLoop):
    """The loop; its `time` is ahead of the monotonic clock."""

    def __init__(self) -> None:
        self._hurried = _HurriedSelector()
        super().__init__(self._hurried)

    def time(self) -> float:
        return super().time() + self._hurried.ahead
