"""Creates, finds and ends the sessions of users who signed in with a browser.

This module decides how long sessions last; `gateway.login.session_store` stores them. The store is
used with a time limit. Its failure is a 503 and never a sign-out. No session is cached for the time
in which a shared store fails, because a session that another replica has ended must not continue.
Callers with a key or password do not need the store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway.clock import TimeSource
from gateway.login.session_store import (
    Session,
    SessionStore,
    SignedInUser,
    SignInState,
    digest,
    new_secret,
    store_key,
)
from gateway.oauth.grants import RenewalGrant
from gateway.oauth.token_response import AccessToken
from gateway.oauth.token_store import StoreBreaker, StoreKey, TokenLease
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.operations_settings import LoginSettings

_log = get_logger(__name__)

# Seconds that an access to the store may take.
_STORE_TIMEOUT: Final = 1.0
# Seconds after a failure during which the store is not used and requests fail at once.
_STORE_PAUSE: Final = 0.5
# Seconds between two reads of the session while another process renews its token.
_LEASE_POLL_INTERVAL: Final = 0.05


class SessionManager:
    """The sessions of one client of one SSO.

    `identity` identifies client, SSO and platform; sessions with another identity are not found.
    All methods that use the store raise `GatewayError` sso-unavailable while
    it fails.
    """

    def __init__(
        self,
        *,
        store: SessionStore,
        login: LoginSettings,
        identity: str,
        times: TimeSource,
    ) -> None:
        self._store = store
        self._breaker = StoreBreaker(
            "session store",
            times.clock,
            timeout=_STORE_TIMEOUT,
            max_pause=_STORE_PAUSE,
            on_failure=partial(
                _log.error,
                "session store: %s; people who are signed in get 503 until it is back; to do: %s",
            ),
            on_recovery=partial(_log.info, "session store: back"),
        )
        self._login = login
        self._identity = identity
        self._times = times

    async def create(
        self,
        signed_in_user: SignedInUser,
        token: AccessToken,
        renewal: RenewalGrant,
        *,
        state: str,
        return_to: str,
    ) -> tuple[str, Session]:
        """Create and store a session. Return the pair of its identifier and the session.

        Only the browser keeps the identifier. `state` and `return_to` are those of the sign-in.
        """
        identifier = new_secret()
        now = self._times.clock()
        session = Session(
            store_key(identifier),
            self._identity,
            signed_in_user,
            started_at=now,
            last_used_at=now,
            token=token,
            renewal=renewal,
            state_digest=digest(state),
            return_to=return_to,
        )
        await self._breaker.call(
            self._store.add, session, self.seconds_left(session), self._login.session_lifetime
        )
        return identifier, session

    async def find(self, identifier: str, *, touch: bool) -> Session | None:
        """Return the session of an identifier, None if there is none or it has ended.

        With `touch` its idle time starts anew.
        """
        session = await self._breaker.call(self._store.get, store_key(identifier))
        if session is None or session.is_ended or session.identity != self._identity:
            return None
        now = self._times.clock()
        if self.seconds_left(session) <= 0:
            await self.end(session)
            return None
        if touch and now - session.last_used_at >= self._login.touch_interval:
            session.last_used_at = now
            await self._breaker.call(self._store.touch, session, self.seconds_left(session))
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
                lease = await self._breaker.call(self._store.acquire_lease, session)
                # Read after acquiring the lease: its former holder may have stored a new token.
                latest = await self._breaker.call(self._store.get, session.key)
                if lease is not None or latest is None or is_sufficient(latest):
                    break
                await self._times.sleep(_LEASE_POLL_INTERVAL)
            yield latest
        finally:
            if lease is not None:
                await self._breaker.release(lease)

    async def latest(self, session: Session) -> Session | None:
        """Return the session as stored now, None if it has ended."""
        return await self._breaker.call(self._store.get, session.key)

    async def save(self, session: Session) -> bool:
        """Store the new tokens of a session. Return False if it has ended meanwhile.

        This is also tried during the pause after a failure, because the tokens may exist only here.
        """
        is_stored = await self._breaker.attempt(self._store.save, session)
        session.is_ended = session.is_ended or not is_stored
        return is_stored

    async def end(self, session: Session) -> None:
        """End a session: delete it from the store, so that its identifier becomes useless."""
        await self._breaker.call(self._store.delete, session)
        session.is_ended = True

    async def end_by_mark(self, mark: str) -> int:
        """End all sessions with a logout mark and return their number."""
        return await self._breaker.call(self._store.delete_by_mark, mark)

    async def keep_sign_in(self, key: StoreKey, sign_in: SignInState) -> None:
        """Store a sign-in in progress for `SIGN_IN_LIFETIME` seconds."""
        await self._breaker.call(self._store.save_sign_in, key, sign_in)

    async def take_sign_in(self, key: StoreKey) -> SignInState | None:
        """Return a sign-in and delete it, so that it is used once. Return None without one."""
        return await self._breaker.call(self._store.pop_sign_in, key)

    async def register_once(self, mark: str, lifetime: float) -> bool:
        """Register `mark` for `lifetime` seconds. Return False if it is registered already."""
        return await self._breaker.call(self._store.register_once, mark, lifetime)

    def seconds_left(self, session: Session) -> float:
        """Return the seconds until the session ends if it is not used meanwhile."""
        ends = session.started_at + self._login.session_lifetime
        return min(ends, session.last_used_at + self._login.idle_lifetime) - self._times.clock()
