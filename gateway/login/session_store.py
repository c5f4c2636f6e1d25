"""The session of a signed-in user, the state of a sign-in in progress, and the store of both.

The browser holds a random identifier of 256 bits. Stores contain only its SHA-256, so that their
content gives no access to a session. Data that is stored outside of this process is encrypted with
the identifier.

The module has the interface of stores, and the store in memory. `gateway.login.redis_session_store`
is the store that several replicas share.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from cachetools import TLRUCache

from gateway.oauth.grants import RenewalGrant
from gateway.oauth.token_response import AccessToken
from gateway.oauth.token_store import StoreKey, TokenLease
from gateway.secret import Secret

_IDENTIFIER_BYTES: Final = 32
# Seconds. Users need time to look up a password; an abandoned sign-in should soon become useless.
SIGN_IN_LIFETIME: Final = 600.0


def new_secret() -> str:
    """Return 256 random bits as a text that is valid in a cookie and in a URL."""
    return secrets.token_urlsafe(_IDENTIFIER_BYTES)


def digest(*secret_parts: str) -> str:
    """Return the SHA-256 of a secret in hexadecimal, which identifies it in a store."""
    # The value is from the browser and may contain surrogates that UTF-8 cannot encode.
    return hashlib.sha256("\n".join(secret_parts).encode("utf-8", "surrogatepass")).hexdigest()


def store_key(*secret_parts: str) -> StoreKey:
    """Return the key of an entry that is accessible only with all `secret_parts`."""
    return StoreKey(digest(*secret_parts), Secret("\n".join(secret_parts)))


@dataclass(frozen=True, slots=True)
class SignedInUser:
    """The user of a session: the subject, and a display name if the SSO stated one.

    `logout_marks` are digests of the subject and of the SSO's own session, by which the SSO can end
    sessions (OpenID Connect Back-Channel Logout).
    """

    user: str
    name: str | None = None
    logout_marks: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Session:
    """A session as it was read from the store. Times are of this process's monotonic clock.

    `identity` identifies client, SSO and platform of the tokens. `state_digest` is that of the
    state of the sign-in that created the session, `return_to` the target of that sign-in: a browser
    may go back to its callback. `is_ended` is the knowledge of this process: in a shared store,
    another process may have ended the session since it was read.
    """

    key: StoreKey
    identity: str
    signed_in_user: SignedInUser
    started_at: float
    last_used_at: float
    token: AccessToken
    renewal: RenewalGrant
    state_digest: str
    return_to: str
    is_ended: bool = False

    @property
    def user(self) -> str:
        """The user's subject."""
        return self.signed_in_user.user

    def update_from(self, latest: Session) -> None:
        """Copy the tokens of a newer version of the session, and whether it has ended."""
        self.token, self.renewal = latest.token, latest.renewal
        self.is_ended = self.is_ended or latest.is_ended

    def __repr__(self) -> str:
        return f"Session({self.key.name[:8]})"


@dataclass(frozen=True, slots=True)
class SignInState:
    """The state of a sign-in in progress that the browser must not be able to change.

    `verifier` is the PKCE code verifier, `nonce` that of the ID token, `return_to` the target after
    the sign-in.
    """

    verifier: Secret
    nonce: str | None
    return_to: str


_MAX_SESSIONS: Final = 100_000
_MAX_SIGN_INS: Final = 20_000


class SessionStore(Protocol):
    """Stores sessions and sign-ins. Durations are in seconds.

    A store that cannot be reached raises an exception without long delay. It never returns None
    instead, because a signed-in user would then be treated as signed out.
    """

    async def get(self, key: StoreKey) -> Session | None:
        """Return the session, or None if there is none or it has expired."""

    async def add(self, session: Session, lifetime: float, max_lifetime: float) -> None:
        """Store a new session for `lifetime`, and its logout marks for `max_lifetime`."""

    async def touch(self, session: Session, lifetime: float) -> None:
        """Let a session expire `lifetime` from now. A deleted session is not restored."""

    async def save(self, session: Session) -> bool:
        """Store the new tokens of a session without changing its expiry.

        Return False, without a change, if the session was deleted.
        """

    async def delete(self, session: Session) -> None:
        """Delete a session."""

    async def delete_by_mark(self, mark: str) -> int:
        """Delete all sessions with a logout mark and return their number."""

    async def acquire_lease(self, session: Session) -> TokenLease | None:
        """Acquire the lease for renewing the session's tokens. Return None while it is held."""

    async def save_sign_in(self, key: StoreKey, sign_in: SignInState) -> None:
        """Store a sign-in for `SIGN_IN_LIFETIME` seconds."""

    async def pop_sign_in(self, key: StoreKey) -> SignInState | None:
        """Return a sign-in and delete it, so that it is used once. Return None without one."""

    async def register_once(self, mark: str, lifetime: float) -> bool:
        """Register `mark` for `lifetime` seconds. Return False if it is registered already.

        It protects from replays.
        """


class MemorySessionStore:
    """Stores the sessions of one process (`SessionStore`); its end ends all sessions.

    `clock` is monotonic. Above a limit of entries, the least recently used ones are dropped.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._sessions: TLRUCache[str, tuple[Session, float]] = TLRUCache(
            _MAX_SESSIONS, ttu=lambda _key, entry, now: now + entry[1], timer=clock
        )
        self._sign_ins: TLRUCache[str, SignInState] = TLRUCache(
            _MAX_SIGN_INS, ttu=lambda _key, _sign_in, now: now + SIGN_IN_LIFETIME, timer=clock
        )
        self._seen: TLRUCache[str, float] = TLRUCache(
            _MAX_SIGN_INS, ttu=lambda _key, lifetime, now: now + lifetime, timer=clock
        )
        self._leased: set[str] = set()

    async def get(self, key: StoreKey) -> Session | None:
        entry = self._sessions.get(key.name)
        return None if entry is None else entry[0]

    async def add(self, session: Session, lifetime: float, max_lifetime: float) -> None:
        """Store a new session for `lifetime`; its marks are read from the session itself."""
        self._sessions[session.key.name] = (session, lifetime)

    async def touch(self, session: Session, lifetime: float) -> None:
        if session.key.name in self._sessions:
            self._sessions[session.key.name] = (session, lifetime)

    async def save(self, session: Session) -> bool:
        """Return False if the session was deleted.

        Nothing is written: the store holds the same object, whose tokens have changed already.
        """
        return session.key.name in self._sessions

    async def delete(self, session: Session) -> None:
        self._sessions.pop(session.key.name, None)

    async def delete_by_mark(self, mark: str) -> int:
        sessions = [session for session, _ in list(self._sessions.values())]
        found = [session for session in sessions if mark in session.signed_in_user.logout_marks]
        for session in found:
            session.is_ended = True
            await self.delete(session)
        return len(found)

    async def acquire_lease(self, session: Session) -> TokenLease | None:
        """Acquire the lease for renewing the session's tokens. Return None while it is held.

        Another holder is the core of another version of the settings in this process.
        """
        name = session.key.name
        if name in self._leased:
            return None
        self._leased.add(name)
        return _MemoryLease(self._leased, name)

    async def save_sign_in(self, key: StoreKey, sign_in: SignInState) -> None:
        self._sign_ins[key.name] = sign_in

    async def pop_sign_in(self, key: StoreKey) -> SignInState | None:
        found: SignInState | None = self._sign_ins.pop(key.name, None)
        return found

    async def register_once(self, mark: str, lifetime: float) -> bool:
        if mark in self._seen:
            return False
        self._seen[mark] = lifetime
        return True


@dataclass(frozen=True, slots=True)
class _MemoryLease:
    leased: set[str]
    name: str

    async def release(self) -> None:
        self.leased.discard(self.name)
