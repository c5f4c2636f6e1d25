"""Sessions of people who signed in with a browser, and sign-ins that are under way.

The browser holds a random identifier of 256 bits; the store knows its SHA-256 only, so that what
is read there opens nothing. Tokens stay on this side.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from cachetools import TLRUCache

from gateway.oauth.token import Token
from gateway.secret import Secret

_IDENTIFIER_BYTES: Final = 32
_MOST_SESSIONS: Final = 100_000
_MOST_SIGN_INS: Final = 20_000
# Long enough to find the password, short enough that what is left behind is soon worthless.
SIGN_IN_LIFETIME: Final = 600.0


def new_secret() -> str:
    """256 random bits as a text that may stand in a cookie and in a URL."""
    return secrets.token_urlsafe(_IDENTIFIER_BYTES)


def digest(*secret_parts: str) -> str:
    """What the store knows of a secret."""
    # What a browser shows may be anything, even what no UTF-8 is made of.
    return hashlib.sha256("\n".join(secret_parts).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Renewal:
    """What brings the next access token: a refresh token of the body, or cookies of the SSO."""

    refresh_token: Secret | None = None
    cookies: Mapping[str, Secret] = field(default_factory=dict, repr=False)

    @property
    def possible(self) -> bool:
        """Whether there is anything to show to the SSO."""
        return self.refresh_token is not None or bool(self.cookies)


@dataclass(slots=True, eq=False)
class Session:
    """A person who is signed in. Times are seconds of the monotonic clock.

    `identity` tells of which client, SSO and platform the tokens are. `rejected` is a token that
    the platform refused, `flight` the renewal under way; `renew_from` and `failures` pace what
    failed, `pause_until` and `refusals` what the platform refused again.
    """

    key: str
    identity: str
    user: str
    name: str | None
    began: float
    used: float
    token: Token
    renewal: Renewal
    ended: bool = False
    rejected: Token | None = None
    flight: asyncio.Task[None] | None = None
    renew_from: float = 0.0
    failures: int = 0
    pause_until: float = 0.0
    refusals: int = 0

    def __repr__(self) -> str:
        return f"Session({self.key[:8]})"


class UserCredential(str):
    """Stands in the place of a credential's name, and brings the session along."""

    session: Session

    def __new__(cls, session: Session) -> UserCredential:
        """`login` in records; no name of a session ever gets there."""
        made = super().__new__(cls, "login")
        made.session = session
        return made


@dataclass(frozen=True, slots=True)
class SignIn:
    """A sign-in under way: what the browser that began it must not be able to change."""

    verifier: Secret
    nonce: str | None
    return_to: str


class SessionStore(Protocol):
    """Keeps sessions and sign-ins by digests. Durations are in seconds."""

    async def get(self, key: str) -> Session | None:
        """The session, unless its time is over."""
        ...

    async def put(self, session: Session, lifetime: float) -> None:
        """Keep a session for so long, also one that is there already."""
        ...

    async def drop(self, key: str) -> None:
        """Forget a session."""
        ...

    async def keep(self, key: str, sign_in: SignIn) -> None:
        """Keep a sign-in for `SIGN_IN_LIFETIME`."""
        ...

    async def take(self, key: str) -> SignIn | None:
        """The sign-in, which nobody gets a second time."""
        ...


class MemorySessions:
    """The sessions of one process; at its end everybody is signed out."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._sessions: TLRUCache[str, tuple[Session, float]] = TLRUCache(
            _MOST_SESSIONS, ttu=lambda _key, kept, now: now + kept[1], timer=clock
        )
        self._sign_ins: TLRUCache[str, SignIn] = TLRUCache(
            _MOST_SIGN_INS, ttu=lambda _key, _kept, now: now + SIGN_IN_LIFETIME, timer=clock
        )

    async def get(self, key: str) -> Session | None:
        """The session, unless its time is over."""
        kept = self._sessions.get(key)
        return None if kept is None else kept[0]

    async def put(self, session: Session, lifetime: float) -> None:
        """Keep a session for so long, also one that is there already."""
        self._sessions[session.key] = (session, lifetime)

    async def drop(self, key: str) -> None:
        """Forget a session."""
        self._sessions.pop(key, None)

    async def keep(self, key: str, sign_in: SignIn) -> None:
        """Keep a sign-in for `SIGN_IN_LIFETIME`."""
        self._sign_ins[key] = sign_in

    async def take(self, key: str) -> SignIn | None:
        """The sign-in, which nobody gets a second time."""
        found: SignIn | None = self._sign_ins.pop(key, None)
        return found


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long a session lasts, in seconds: at most, and without a request."""

    absolute: float
    idle: float


class Sessions:
    """Begins, finds and ends sessions of one client of one SSO."""

    def __init__(
        self,
        store: SessionStore,
        lifetimes: Lifetimes,
        identity: str,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._lifetimes = lifetimes
        self._identity = identity
        self._clock = clock

    async def begin(
        self, user: str, name: str | None, token: Token, renewal: Renewal
    ) -> tuple[str, Session]:
        """A new session and its identifier, which nothing else on this side knows."""
        identifier = new_secret()
        now = self._clock()
        session = Session(digest(identifier), self._identity, user, name, now, now, token, renewal)
        await self._store.put(session, self._left(session))
        return identifier, session

    async def find(self, identifier: str, *, touch: bool) -> Session | None:
        """The session of an identifier; with `touch` its idle time begins anew."""
        session = await self._store.get(digest(identifier))
        if session is None or session.ended or session.identity != self._identity:
            return None
        now = self._clock()
        left = self._left(session)
        if left <= 0:
            await self.end(session)
            return None
        if touch:
            session.used = now
            await self._store.put(session, self._left(session))
        return session

    async def end(self, session: Session) -> None:
        """Nobody can use it any more."""
        session.ended = True
        await self._store.drop(session.key)

    def expires_in(self, session: Session) -> float:
        """Seconds until the person has to sign in again if nothing is done meanwhile."""
        return self._left(session)

    def _left(self, session: Session) -> float:
        ends = session.began + self._lifetimes.absolute
        return min(ends, session.used + self._lifetimes.idle) - self._clock()
