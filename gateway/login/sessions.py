"""Begins, finds and ends the sessions of people who signed in with a browser.

How long they last is decided here, what is kept of them in `gateway.login.session_store`.
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

# A session in use is kept longer not at every request, but after so many seconds.
_LONGEST_STEP: Final = 15.0
_STEP_SHARE: Final = 0.05
# How often to look, in seconds, whether another process's renewal has brought something.
_LEASE_POLL_INTERVAL: Final = 0.05


@dataclass(frozen=True, slots=True)
class SessionLifetimes:
    """How long a session lasts, in seconds: at most, and without a request."""

    absolute: float
    idle: float

    @property
    def touch_interval(self) -> float:
        """How old the last use may be before another one is noted."""
        return min(_LONGEST_STEP, _STEP_SHARE * self.idle)


class SessionManager:
    """The sessions of one client of one SSO. What the store raises passes through."""

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
        self, person: SignedInUser, token: AccessToken, renewal: RenewalGrant
    ) -> tuple[str, Session]:
        """A new session and its identifier, which the browser alone will know."""
        identifier = new_secret()
        now = self._clock()
        key = store_key(identifier)
        session = Session(key, self._identity, person, now, now, token, renewal)
        await self._store.add(session, self._seconds_left(session), self._lifetimes.absolute)
        return identifier, session

    async def find(self, identifier: str, *, touch: bool) -> Session | None:
        """The session of an identifier; with `touch` its idle time begins anew."""
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
        """The session as it is now, None when it has ended.

        If that is not `is_sufficient`, it is our turn to renew its token; while another process has
        the turn it is waited for.
        """
        lease: TokenLease | None = None
        try:
            while True:
                lease = await self._store.acquire_lease(session)
                # After the claim: whoever had the turn before may have brought one.
                latest = await self._store.get(session.key)
                if lease is not None or latest is None or is_sufficient(latest):
                    break
                await asyncio.sleep(_LEASE_POLL_INTERVAL)
            yield latest
        finally:
            if lease is not None:
                await lease.release()

    async def latest(self, session: Session) -> Session | None:
        """The session as it is now; None when it has ended."""
        return await self._store.get(session.key)

    async def save(self, session: Session) -> bool:
        """Keep its new tokens; False when it has ended meanwhile."""
        kept = await self._store.save(session)
        session.is_ended = session.is_ended or not kept
        return kept

    async def end(self, session: Session) -> None:
        """Nobody can use it any more."""
        await self._store.delete(session)
        session.is_ended = True

    async def end_by_mark(self, mark: str) -> int:
        """End the sessions of a mark that a person has; how many there were."""
        return await self._store.delete_by_mark(mark)

    async def register_once(self, mark: str, lifetime: float) -> bool:
        """Whether a message that may come once has not come before, within so many seconds."""
        return await self._store.register_once(mark, lifetime)

    def expires_in(self, session: Session) -> float:
        """Seconds until the person has to sign in again if nothing is done meanwhile."""
        return self._seconds_left(session)

    def _seconds_left(self, session: Session) -> float:
        ends = session.started_at + self._lifetimes.absolute
        return min(ends, session.last_used_at + self._lifetimes.idle) - self._clock()
