"""The store of sessions behind a time limit: what it cannot tell is a 503, never a sign-out.

Nothing is kept here for the time in which a shared store is away: a session that was ended
elsewhere must not go on. Who calls with a key or password does not need the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from gateway.errors import SSO_UNAVAILABLE, GatewayError
from gateway.login.session import Session, SignInState
from gateway.login.session_store import SessionStore
from gateway.oauth.store import StoreKey, TokenLease
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)
_T = TypeVar("_T")

_TIMEOUT: Final = 1.0
# For so long after a failure nobody waits for the store.
_PAUSE: Final = 0.5


class GuardedSessionStore:
    """Gives what the store gives; raises `GatewayError` sso-unavailable while it cannot be used.

    Each access takes at most `timeout` seconds. That the store is away and that it is back is
    logged once each.
    """

    def __init__(
        self, store: SessionStore, clock: Callable[[], float], timeout: float = _TIMEOUT
    ) -> None:
        self._store = store
        self._clock = clock
        self._timeout = timeout
        self._disabled_until: float | None = None

    async def get(self, key: StoreKey) -> Session | None:
        """The session, unless its time is over."""
        return await self._call_or_unavailable(lambda: self._store.get(key))

    async def add(self, session: Session, lifetime: float, longest: float) -> None:
        """Keep a new session."""
        await self._call_or_unavailable(lambda: self._store.add(session, lifetime, longest))

    async def touch(self, session: Session, lifetime: float) -> None:
        """Keep a session for so long from now."""
        await self._call_or_unavailable(lambda: self._store.touch(session, lifetime))

    async def save(self, session: Session) -> bool:
        """Keep its new tokens; False for one that is gone. Tried also while the store is away."""
        return await self._try_call(lambda: self._store.save(session))

    async def delete(self, session: Session) -> None:
        """Forget a session."""
        await self._call_or_unavailable(lambda: self._store.delete(session))

    async def delete_by_mark(self, mark: str) -> int:
        """Forget the sessions of a mark; how many there were."""
        return await self._call_or_unavailable(lambda: self._store.delete_by_mark(mark))

    async def acquire_lease(self, session: Session) -> TokenLease | None:
        """The right to renew its tokens, which nobody has while the store is away."""
        lease = await self._call_or_unavailable(lambda: self._store.acquire_lease(session))
        return None if lease is None else _TimeLimitedLease(lease, self._timeout)

    async def save_sign_in(self, key: StoreKey, sign_in: SignInState) -> None:
        """Keep a sign-in."""
        await self._call_or_unavailable(lambda: self._store.save_sign_in(key, sign_in))

    async def pop_sign_in(self, key: StoreKey) -> SignInState | None:
        """The sign-in, which nobody gets a second time."""
        return await self._call_or_unavailable(lambda: self._store.pop_sign_in(key))

    async def register_once(self, mark: str, lifetime: float) -> bool:
        """Whether nobody asked this before."""
        return await self._call_or_unavailable(lambda: self._store.register_once(mark, lifetime))

    async def _call_or_unavailable(self, access: Callable[[], Awaitable[_T]]) -> _T:
        if self._disabled_until is not None and self._clock() < self._disabled_until:
            raise _unavailable()
        return await self._try_call(access)

    async def _try_call(self, access: Callable[[], Awaitable[_T]]) -> _T:
        try:
            async with asyncio.timeout(self._timeout):
                given = await access()
        except Exception as error:  # of whatever library the store is made with
            self._failed(error)
            raise _unavailable() from None
        if self._disabled_until is not None:
            self._disabled_until = None
            _log.info("session store: back")
        return given

    def _failed(self, error: Exception) -> None:
        if self._disabled_until is None:
            _log.error(
                "session store: %s; people who are signed in get 503 until it is back; to check: "
                "store.url",
                type(error).__name__,
            )
        self._disabled_until = self._clock() + _PAUSE


class _TimeLimitedLease:
    """Ends by itself where the store cannot be told that it ends."""

    def __init__(self, lease: TokenLease, timeout: float) -> None:
        self._lease = lease
        self._timeout = timeout

    async def release(self) -> None:
        """Let others have it."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self._timeout):
                await self._lease.release()


def _unavailable() -> GatewayError:
    return GatewayError(
        SSO_UNAVAILABLE,
        "the session store cannot be reached",
        hint="session store: away",
        retry_after=1.0,
    )
