"""What `gateway.oauth.tokens` needs from others: a source of tokens, an observer, the time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.oauth.store import StoreKey
from gateway.oauth.token_response import TokenResponse


class TokenSource(Protocol):
    """Where the tokens of one credential come from."""

    @property
    def store_key(self) -> StoreKey:
        """Tells these tokens from all others in the store; changes with the secret."""
        ...

    @property
    def has_spare_in_use(self) -> bool:
        """Whether the SSO refused the secret that is offered first, and took another."""
        ...

    async def request(self) -> TokenResponse:
        """Ask the SSO once; raises `TokenRequestError`."""
        ...


class TokenObserver(Protocol):
    """Told what happens to tokens; never shown one. `outcome` is `ok` or a `FailureKind`."""

    def token_requested(self, credential: str, outcome: str, seconds: float, /) -> None:
        """The SSO was asked and answered, or did not, after `seconds`."""
        ...

    def token_expires(self, credential: str, timestamp: float, /) -> None:
        """The token in use expires at the Unix time `timestamp`; 0 when it was dropped."""
        ...

    def token_waiters(self, credential: str, waiting: int, /) -> None:
        """So many requests wait for a token now."""
        ...

    def token_event(
        self, credential: str, outcome: str, detail: Mapping[str, str | float | None], /
    ) -> None:
        """For the audit trail: a token was fetched or could not be."""
        ...


class TimerHandle(Protocol):
    """A timer that was set."""

    def cancel(self) -> None:
        """Do not call back."""
        ...


def _call_later(delay: float, callback: Callable[[], object]) -> TimerHandle:
    return asyncio.get_running_loop().call_later(delay, callback)


@dataclass(frozen=True, slots=True)
class TimeSource:
    """The monotonic clock, Unix time, and timers on the monotonic clock; seconds all."""

    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    call_later: Callable[[float, Callable[[], object]], TimerHandle] = _call_later

    async def sleep(self, seconds: float) -> None:
        """Return when `seconds` have passed."""
        over = asyncio.Event()
        timer = self.call_later(seconds, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()
