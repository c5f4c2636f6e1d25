"""The number of token requests while a million requests pass, with the gateway's own tokens.

The clock is simulated, so that hours pass in a second. Each request takes a token as the request
path does; the SSO takes 100 ms for each response, during which requests continue.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable

from benchmarks.watching import Figures
from gateway.clock import TimeSource
from gateway.config.outbound_settings import SsoSettings
from gateway.oauth.token_endpoint import TokenRequestQueue
from gateway.oauth.token_response import TokenResponse
from gateway.oauth.token_store import StoreKey, tokens_at_hand
from gateway.oauth.tokens import make_tokens
from gateway.secret import Secret

REQUESTS = 1_000_000
ANSWER_TIME = 0.1
_NAME = "default"
_TURNS = 20  # Loop iterations until everything has run that needs no time to pass.


class _Timer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Cancel the timer: the callback is not called."""
        self.callback = None


class _Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, _Timer]] = []
        self._numbers = itertools.count()

    def __call__(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object]) -> _Timer:
        """Call back after `delay` seconds, as the event loop does."""
        timer = _Timer(callback)
        heapq.heappush(self._timers, (self.now + delay, next(self._numbers), timer))
        return timer

    async def advance(self, seconds: float) -> None:
        """Move the clock on, and run the timers that are due."""
        self.now += seconds
        while self._timers and self._timers[0][0] <= self.now:
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                timer.callback()
                await _settle()


async def _settle() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class _Sso:
    """Issues tokens of `lifetime` seconds, and counts the requests."""

    def __init__(self, lifetime: float, times: TimeSource) -> None:
        self.name = _NAME
        self.store_key = StoreKey("simulated", Secret("simulated"))
        self.uses_previous_secret = False
        self.request_count = 0
        self._lifetime, self._times = lifetime, times

    async def request(self) -> TokenResponse:
        """Return a new token after `ANSWER_TIME`."""
        asked = self._times.clock()
        await self._times.sleep(ANSWER_TIME)
        self.request_count += 1
        token = Secret(f"token-{self.request_count}")
        return TokenResponse(token, self._lifetime, "expires_in", asked)


class _Nobody:
    """Metrics and audit that ignore all events."""

    def on_token_requested(self, credential: str, outcome: str, seconds: float, /) -> None:
        """Ignore the event."""

    def on_token_expiry(self, credential: str, timestamp: float, /) -> None:
        """Ignore the event."""

    def on_waiters_changed(self, credential: str, waiting: int, /) -> None:
        """Ignore the event."""

    def record_event(self, name: str, /, **fields: object) -> None:
        """Ignore the event."""


async def _simulate(requests: int, rate: float, lifetime: float) -> Figures:
    clock = _Clock()
    jitter = random.Random(1).random  # noqa: S311
    times = TimeSource(clock, clock, clock.call_later, jitter)
    sso = _Sso(lifetime, times)
    settings = SsoSettings(token_url="https://sso.test/token")
    tokens = make_tokens(
        {_NAME: sso},
        at_hand=tokens_at_hand(clock),
        store=None,
        metrics=(nobody := _Nobody()),  # type: ignore[arg-type]
        audit=nobody,  # type: ignore[arg-type]
        sso=settings,
        times=times,
        queue=TokenRequestQueue(settings.max_requests, times),
    )[_NAME]
    tokens.start()
    waited = 0
    for _ in range(requests):
        if tokens.current() is None:
            waited += 1
            waiting = asyncio.ensure_future(tokens.wait_for_token())
            while not waiting.done():
                await _settle()
                await clock.advance(ANSWER_TIME / 10)
            await waiting
        await clock.advance(1 / rate)
    await tokens.close()
    return {
        "simulated_requests": float(requests),
        "simulated_hours": requests / rate / 3600,
        "token_requests": float(sso.request_count),
        "waited": float(waited),
    }


def token_requests(rate: float, lifetime: float, requests: int = REQUESTS) -> Figures:
    """Return the number of token requests; `rate` is per second, `lifetime` in seconds."""
    return asyncio.run(_simulate(requests, rate, lifetime))
