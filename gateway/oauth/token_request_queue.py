"""Limits the token requests of a gateway: how many are under way, and how many begin in a second.

A hospital group has a thousand credentials, whose tokens are all wanted at the start and after an
outage. An SSO behind a firewall takes many connections from one address for an attack. One queue
serves all credentials and signed-in users, also of two versions of the settings during a reload.
`gateway.oauth.token_backoff` spreads the renewals, so that the queue is short at other times.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from gateway.clock import TimeSource

# Token requests that may begin within a second.
_MAX_RATE: Final = 200


class TokenRequestQueue:
    """Admits token requests in the order of their arrival, those that a caller waits for first.

    `max_requests` are under way at once; it may be changed at any time.
    """

    def __init__(self, max_requests: int, times: TimeSource) -> None:
        self.max_requests = max_requests
        self._times = times
        self._waiting: dict[asyncio.Future[None], Callable[[], bool]] = {}
        self._active = 0
        self._begun_at: deque[float] = deque(maxlen=_MAX_RATE)
        self._is_timer_set = False

    @asynccontextmanager
    async def admission(self, is_urgent: Callable[[], bool]) -> AsyncIterator[None]:
        """Wait for the turn of a token request, which is sent in the context.

        `is_urgent` returns whether a caller waits for it; it is asked whenever a place is free,
        because callers may come while the request waits.
        """
        admitted = asyncio.get_running_loop().create_future()
        self._waiting[admitted] = is_urgent
        self._admit()
        try:
            await admitted
            yield
        finally:
            if self._waiting.pop(admitted, None) is None:
                self._active -= 1
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self._active < self.max_requests and not self._must_pause():
            urgent = (each for each, is_urgent in self._waiting.items() if is_urgent())
            admitted = next(urgent, next(iter(self._waiting)))
            del self._waiting[admitted]
            self._active += 1
            self._begun_at.append(self._times.clock())
            if not admitted.done():  # cancelled, and not yet out of its context
                admitted.set_result(None)

    def _must_pause(self) -> bool:
        """Return whether `_MAX_RATE` requests began within the last second; then set a timer."""
        if len(self._begun_at) < _MAX_RATE:
            return False
        pause = self._begun_at[0] + 1.0 - self._times.clock()
        if pause > 0 and not self._is_timer_set:
            self._is_timer_set = True
            self._times.call_later(pause, self._on_timer)
        return pause > 0

    def _on_timer(self) -> None:
        self._is_timer_set = False
        self._admit()
