"""Where sessions and sign-ins are kept: here in this process, elsewhere for several to share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from cachetools import TLRUCache

from gateway.login.session import SIGN_IN_LIFETIME, Session, SignInState
from gateway.oauth.store import StoreKey, TokenLease

_MAX_SESSIONS: Final = 100_000
_MOST_SIGN_INS: Final = 20_000


class SessionStore(Protocol):
    """Keeps sessions and sign-ins. Durations are in seconds.

    A store that cannot be reached raises an exception, soon: nobody is taken for signed out.
    """

    async def get(self, key: StoreKey) -> Session | None:
        """The session, unless its time is over."""
        ...

    async def add(self, session: Session, lifetime: float, longest: float) -> None:
        """Keep a new session for `lifetime`, and know its marks for `longest`."""
        ...

    async def touch(self, session: Session, lifetime: float) -> None:
        """Keep a session for so long from now; one that is gone stays so."""
        ...

    async def save(self, session: Session) -> bool:
        """Keep its new tokens, its time left as it is; False for one that is gone."""
        ...

    async def delete(self, session: Session) -> None:
        """Forget a session."""
        ...

    async def delete_by_mark(self, mark: str) -> int:
        """Forget the sessions of a mark; how many there were."""
        ...

    async def acquire_lease(self, session: Session) -> TokenLease | None:
        """The right to renew its tokens; None: another has it now."""
        ...

    async def save_sign_in(self, key: StoreKey, sign_in: SignInState) -> None:
        """Keep a sign-in for `SIGN_IN_LIFETIME`."""
        ...

    async def pop_sign_in(self, key: StoreKey) -> SignInState | None:
        """The sign-in, which nobody gets a second time."""
        ...

    async def register_once(self, mark: str, lifetime: float) -> bool:
        """Whether nobody asked this before, within so many seconds."""
        ...


class MemorySessionStore:
    """The sessions of one process; at its end everybody is signed out."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._sessions: TLRUCache[str, tuple[Session, float]] = TLRUCache(
            _MAX_SESSIONS, ttu=lambda _key, kept, now: now + kept[1], timer=clock
        )
        self._sign_ins: TLRUCache[str, SignInState] = TLRUCache(
            _MOST_SIGN_INS, ttu=lambda _key, _kept, now: now + SIGN_IN_LIFETIME, timer=clock
        )
        self._seen: TLRUCache[str, float] = TLRUCache(
            _MOST_SIGN_INS, ttu=lambda _key, lifetime, now: now + lifetime, timer=clock
        )
        self._claimed: set[str] = set()

    async def get(self, key: StoreKey) -> Session | None:
        """The session, unless its time is over."""
        kept = self._sessions.get(key.name)
        return None if kept is None else kept[0]

    async def add(self, session: Session, lifetime: float, longest: float) -> None:
        """Keep a new session for `lifetime`."""
        self._sessions[session.key.name] = (session, lifetime)

    async def touch(self, session: Session, lifetime: float) -> None:
        """Keep a session for so long from now; one that is gone stays so."""
        if session.key.name in self._sessions:
            self._sessions[session.key.name] = (session, lifetime)

    async def save(self, session: Session) -> bool:
        """Its tokens are kept with it; False for one that is gone."""
        return session.key.name in self._sessions

    async def delete(self, session: Session) -> None:
        """Forget a session."""
        self._sessions.pop(session.key.name, None)

    async def delete_by_mark(self, mark: str) -> int:
        """Forget the sessions of a mark; how many there were."""
        kept = [session for session, _ in list(self._sessions.values())]
        found = [session for session in kept if mark in session.person.logout_marks]
        for session in found:
            session.is_ended = True
            await self.delete(session)
        return len(found)

    async def acquire_lease(self, session: Session) -> TokenLease | None:
        """The right to renew its tokens; None: another version of the settings has it now."""
        name = session.key.name
        if name in self._claimed:
            return None
        self._claimed.add(name)
        return _MemoryLease(self._claimed, name)

    async def save_sign_in(self, key: StoreKey, sign_in: SignInState) -> None:
        """Keep a sign-in for `SIGN_IN_LIFETIME`."""
        self._sign_ins[key.name] = sign_in

    async def pop_sign_in(self, key: StoreKey) -> SignInState | None:
        """The sign-in, which nobody gets a second time."""
        found: SignInState | None = self._sign_ins.pop(key.name, None)
        return found

    async def register_once(self, mark: str, lifetime: float) -> bool:
        """Whether nobody asked this before, within so many seconds."""
        if mark in self._seen:
            return False
        self._seen[mark] = lifetime
        return True


class _MemoryLease:
    def __init__(self, claimed: set[str], name: str) -> None:
        self._claimed = claimed
        self._name = name

    async def release(self) -> None:
        """Let others have it."""
        self._claimed.discard(self._name)
