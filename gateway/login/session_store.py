"""The interface of stores for sessions and sign-ins, and the store in memory.

`gateway.login.redis_sessions` is the store that several processes share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from cachetools import TLRUCache

from gateway.login.session import SIGN_IN_LIFETIME, Session, SignInState
from gateway.oauth.store import StoreKey, TokenLease

_MAX_SESSIONS: Final = 100_000
_MAX_SIGN_INS: Final = 20_000


class SessionStore(Protocol):
    """Stores sessions and sign-ins. Durations are in seconds.

    A store that cannot be reached raises an exception without long delay. It never returns None
    instead, because a signed-in user would then be treated as signed out.
    """

    async def get(self, key: StoreKey) -> Session | None:
        """Return the session, or None if there is none or it has expired."""
        ...

    async def add(self, session: Session, lifetime: float, max_lifetime: float) -> None:
        """Store a new session for `lifetime`, and its logout marks for `max_lifetime`."""
        ...

    async def touch(self, session: Session, lifetime: float) -> None:
        """Let a session expire `lifetime` from now. A deleted session is not restored."""
        ...

    async def save(self, session: Session) -> bool:
        """Store the new tokens of a session without changing its expiry.

        Return False, without a change, if the session was deleted.
        """
        ...

    async def delete(self, session: Session) -> None:
        """Delete a session."""
        ...

    async def delete_by_mark(self, mark: str) -> int:
        """Delete all sessions with a logout mark and return their number."""
        ...

    async def acquire_lease(self, session: Session) -> TokenLease | None:
        """Acquire the lease for renewing the session's tokens. Return None while it is held."""
        ...

    async def save_sign_in(self, key: StoreKey, sign_in: SignInState) -> None:
        """Store a sign-in for `SIGN_IN_LIFETIME` seconds."""
        ...

    async def pop_sign_in(self, key: StoreKey) -> SignInState | None:
        """Return a sign-in and delete it, so that it is used once. Return None without one."""
        ...

    async def register_once(self, mark: str, lifetime: float) -> bool:
        """Register `mark` for `lifetime` seconds. Return False if it is registered already.

        It protects from replays.
        """
        ...


class MemorySessionStore:
    """Stores the sessions of one process; its end ends all sessions.

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
        """Return the session, or None if there is none or it has expired."""
        entry = self._sessions.get(key.name)
        return None if entry is None else entry[0]

    async def add(self, session: Session, lifetime: float, max_lifetime: float) -> None:
        """Store a new session for `lifetime`; its marks are read from the session itself."""
        self._sessions[session.key.name] = (session, lifetime)

    async def touch(self, session: Session, lifetime: float) -> None:
        """Let a session expire `lifetime` from now. A deleted session is not restored."""
        if session.key.name in self._sessions:
            self._sessions[session.key.name] = (session, lifetime)

    async def save(self, session: Session) -> bool:
        """Return False if the session was deleted.

        Nothing is written: the store holds the same object, whose tokens have changed already.
        """
        return session.key.name in self._sessions

    async def delete(self, session: Session) -> None:
        """Delete a session."""
        self._sessions.pop(session.key.name, None)

    async def delete_by_mark(self, mark: str) -> int:
        """Delete all sessions with a logout mark and return their number."""
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
        """Store a sign-in for `SIGN_IN_LIFETIME` seconds."""
        self._sign_ins[key.name] = sign_in

    async def pop_sign_in(self, key: StoreKey) -> SignInState | None:
        """Return a sign-in and delete it, so that it is used once. Return None without one."""
        found: SignInState | None = self._sign_ins.pop(key.name, None)
        return found

    async def register_once(self, mark: str, lifetime: float) -> bool:
        """Register `mark` for `lifetime` seconds. Return False if it is registered already.

        It protects from replays.
        """
        if mark in self._seen:
            return False
        self._seen[mark] = lifetime
        return True


class _MemoryLease:
    def __init__(self, leased: set[str], name: str) -> None:
        self._leased = leased
        self._name = name

    async def release(self) -> None:
        """Release the lease."""
        self._leased.discard(self._name)
