"""Creates, finds and ends the sessions of users who signed in with a browser.

This module decides how long sessions last; `gateway.login.session_store` stores them. The store is
used with a time limit. Its failure is a 503 and never a sign-out. No session is cached for the time
in which a shared store fails, because a session that another replica has ended must not continue.
Callers with a key or password do not need the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from gateway.errors import SSO_UNAVAILABLE, GatewayError
from gateway.login.session_store import Session, new_secret, store_key
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.operations_settings import LoginSettings
    from gateway.login.session_store import SessionStore, SignedInUser, SignInState
    from gateway.oauth.grants import RenewalGrant
    from gateway.oauth.token_response import AccessToken
    from gateway.oauth.token_store import StoreKey, TokenLease

_log = get_logger(__name__)
_T = TypeVar("_T")

# Seconds that an access to the store may take.
_STORE_TIMEOUT: Final = 1.0
# Seconds after a failure during which the store is not used and requests fail at once.
_STORE_PAUSE: Final = 0.5
# Seconds between two reads of the session while another process renews its token.
_LEASE_POLL_INTERVAL: Final = 0.05


class SessionManager:
    """The sessions of one client of one SSO.

    `identity` identifies client, SSO and platform; sessions with another identity are not found.
    `clock` is monotonic. Exceptions of the store are not caught.
    """

    def __init__(
        self,
        *,
        store: SessionStore,
        login: LoginSettings,
        identity: str,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._max_lifetime = login.session_lifetime
        self._idle_lifetime = login.idle_lifetime
        self._touch_interval = login.touch_interval
        self._identity = identity
        self._clock = clock

    async def create(
        self, signed_in_user: SignedInUser, token: AccessToken, renewal: RenewalGrant
    ) -> tuple[str, Session]:
        """Create and store a session. Return the pair of its identifier and the session.

        Only the browser keeps the identifier.
        """
        identifier = new_secret()
        now = self._clock()
        key = store_key(identifier)
        session = Session(key, self._identity, signed_in_user, now, now, token, renewal)
        await self._store.add(session, self._seconds_left(session), self._max_lifetime)
        return identifier, session

    async def find(self, identifier: str, *, touch: bool) -> Session | None:
        """Return the session of an identifier, None if there is none or it has ended.

        With `touch` its idle time starts anew.
        """
        session = await self._store.get(store_key(identifier))
        if session is None or session.is_ended or session.identity != self._identity:
            return None
        now = self._clock()
        if self._seconds_left(session) <= 0:
            await self.end(session)
            return None
        if touch and now - session.last_used_at >= self._touch_interval:
            session.last_used_at = now
            await self._store.touch(session, self._seconds_left(session))
        return session

    @asynccontextmanager
    async def renewal_lock(
        self, session: Session, is_sufficient: Callable[[Session], bool]
    ) -> AsyncIterator[Session | None]:
        """Yield the session as stored now, None if it has ended.

        If it is not `is_sufficient`, this process holds the lease and has to renew the token. While
        another process holds the lease, wait until it is released or the session is sufficient.
        """
        lease: TokenLease | None = None
        try:
            while True:
                lease = await self._store.acquire_lease(session)
                # Read after acquiring the lease: its former holder may have stored a new token.
                latest = await self._store.get(session.key)
                if lease is not None or latest is None or is_sufficient(latest):
                    break
                await asyncio.sleep(_LEASE_POLL_INTERVAL)
            yield latest
        finally:
            if lease is not None:
                await lease.release()

    async def latest(self, session: Session) -> Session | None:
        """Return the session as stored now, None if it has ended."""
        return await self._store.get(session.key)

    async def save(self, session: Session) -> bool:
        """Store the new tokens of a session. Return False if it has ended meanwhile."""
        is_stored = await self._store.save(session)
        session.is_ended = session.is_ended or not is_stored
        return is_stored

    async def end(self, session: Session) -> None:
        """End a session: delete it from the store, so that its identifier becomes useless."""
        await self._store.delete(session)
        session.is_ended = True

    async def end_by_mark(self, mark: str) -> int:
        """End all sessions with a logout mark and return their number."""
        return await self._store.delete_by_mark(mark)

    async def register_once(self, mark: str, lifetime: float) -> bool:
        """Register `mark` for `lifetime` seconds. Return False if it is registered already."""
        return await self._store.register_once(mark, lifetime)

    def expires_in(self, session: Session) -> float:
        """Return the seconds until the session ends if it is not used meanwhile."""
        return self._seconds_left(session)

    def _seconds_left(self, session: Session) -> float:
        ends = session.started_at + self._max_lifetime
        return min(ends, session.last_used_at + self._idle_lifetime) - self._clock()


class GuardedSessionStore:
    """Returns the results of `store`. Raises `GatewayError` sso-unavailable while the store fails.

    Each access takes at most `timeout` seconds. The failure and the recovery are logged once each.
    """

    def __init__(
        self, store: SessionStore, clock: Callable[[], float], timeout: float = _STORE_TIMEOUT
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
        self._disabled_until = self._clock() + _STORE_PAUSE


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
