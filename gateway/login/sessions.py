"""Creates, finds and ends the sessions of users who signed in with a browser.

This module decides how long sessions last; `gateway.login.session_store` stores them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from gateway.login.session import RenewalGrant, Session, SignedInUser, new_secret, store_key
from gateway.login.session_store import SessionStore
from gateway.oauth.store import TokenLease
from gateway.oauth.token import AccessToken

# The last use of a session is not written at each request, but only when the stored one is older
# than this many seconds, or than this share of the idle time if that is less.
_MAX_TOUCH_INTERVAL: Final = 15.0
_TOUCH_INTERVAL_SHARE: Final = 0.05
# Seconds between two reads of the session while another process renews its token.
_LEASE_POLL_INTERVAL: Final = 0.05


@dataclass(frozen=True, slots=True)
class SessionLifetimes:
    """The maximum lifetime of a session, `absolute`, and its idle timeout, `idle`, in seconds."""

    absolute: float
    idle: float

    @property
    def touch_interval(self) -> float:
        """The seconds after which a newer last use is written to the store."""
        return min(_MAX_TOUCH_INTERVAL, _TOUCH_INTERVAL_SHARE * self.idle)


class SessionManager:
    """The sessions of one client of one SSO.

    `identity` identifies client, SSO and platform; sessions with another identity are not found.
    `clock` is monotonic. Exceptions of the store are not caught.
    """

    def __init__(
        self,
        store: SessionStore,
        lifetimes: SessionLifetimes,
        identity: str,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._lifetimes = lifetimes
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
        await self._store.add(session, self._seconds_left(session), self._lifetimes.absolute)
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
        if touch and now - session.last_used_at >= self._lifetimes.touch_interval:
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
        ends = session.started_at + self._lifetimes.absolute
        return min(ends, session.last_used_at + self._lifetimes.idle) - self._clock()
