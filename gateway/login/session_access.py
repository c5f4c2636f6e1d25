"""A session store with a time limit, whose failure is a 503 and never a sign-out.

No session is cached for the time in which a shared store fails, because a session that another
process has ended must not continue. Callers with a key or password do not need the store.
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
# Seconds after a failure during which the store is not used and requests fail at once.
_PAUSE: Final = 0.5


class GuardedSessionStore:
    """Returns the results of `store`. Raises `GatewayError` sso-unavailable while the store fails.

    Each access takes at most `timeout` seconds. The failure and the recovery are logged once each.
    """

    def __init__(
        self, store: SessionStore, clock: Callable[[], float], timeout: float = _TIMEOUT
    ) -> None:
        self._store = store
        self._clock = clock
        self._timeout = timeout
        self._disabled_until: float | None = None

    async def get(self, key: StoreKey) -> Session | None:
        """Return the session, or None if there is none or it has expired."""
        return await self._call_or_unavailable(lambda: self._store.get(key))

    async def add(self, session: Session, lifetime: float, max_lifetime: float) -> None:
        """Store a new session for `lifetime`, and its logout marks for `max_lifetime`."""
        await self._call_or_unavailable(lambda: self._store.add(session, lifetime, max_lifetime))

    async def touch(self, session: Session, lifetime: float) -> None:
        """Let a session expire `lifetime` seconds from now. A deleted session is not restored."""
        await self._call_or_unavailable(lambda: self._store.touch(session, lifetime))

    async def save(self, session: Session) -> bool:
        """Store the new tokens of a session. Return False if the session was deleted.

        It is also tried during the pause after a failure, because the tokens may exist only here.
        """
        return await self._try_call(lambda: self._store.save(session))

    async def delete(self, session: Session) -> None:
        """Delete a session."""
        await self._call_or_unavailable(lambda: self._store.delete(session))

    async def delete_by_mark(self, mark: str) -> int:
        """Delete all sessions with a logout mark and return their number."""
        return await self._call_or_unavailable(lambda: self._store.delete_by_mark(mark))

    async def acquire_lease(self, session: Session) -> TokenLease | None:
        """Acquire the lease for renewing the session's tokens. Return None while it is held.

        While the store fails, it raises, so that no process renews.
        """
        lease = await self._call_or_unavailable(lambda: self._store.acquire_lease(session))
        return None if lease is None else _TimeLimitedLease(lease, self._timeout)

    async def save_sign_in(self, key: StoreKey, sign_in: SignInState) -> None:
        """Store a sign-in for `SIGN_IN_LIFETIME` seconds."""
        await self._call_or_unavailable(lambda: self._store.save_sign_in(key, sign_in))

    async def pop_sign_in(self, key: StoreKey) -> SignInState | None:
        """Return a sign-in and delete it, so that it is used once. Return None without one."""
        return await self._call_or_unavailable(lambda: self._store.pop_sign_in(key))

    async def register_once(self, mark: str, lifetime: float) -> bool:
        """Register `mark` for `lifetime` seconds. Return False if it is registered already."""
        return await self._call_or_unavailable(lambda: self._store.register_once(mark, lifetime))

    async def _call_or_unavailable(self, access: Callable[[], Awaitable[_T]]) -> _T:
        if self._disabled_until is not None and self._clock() < self._disabled_until:
            raise _unavailable()
        return await self._try_call(access)

    async def _try_call(self, access: Callable[[], Awaitable[_T]]) -> _T:
        try:
            async with asyncio.timeout(self._timeout):
                result = await access()
        except Exception as error:  # depends on the library that the store uses
            self._failed(error)
            raise _unavailable() from None
        if self._disabled_until is not None:
            self._disabled_until = None
            _log.info("session store: back")
        return result

    def _failed(self, error: Exception) -> None:
        if self._disabled_until is None:
            _log.error(
                "session store: %s; people who are signed in get 503 until it is back; to check: "
                "store.url",
                type(error).__name__,
            )
        self._disabled_until = self._clock() + _PAUSE


class _TimeLimitedLease:
    """A lease whose release never raises: where the release fails, the lease expires."""

    def __init__(self, lease: TokenLease, timeout: float) -> None:
        self._lease = lease
        self._timeout = timeout

    async def release(self) -> None:
        """Release the lease; failures are ignored."""
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
