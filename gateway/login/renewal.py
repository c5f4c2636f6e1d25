"""Renews the tokens of people: one renewal of a session at a time, whoever else shares the session.

In this process requests join the renewal under way; between processes a lease decides whose turn it
is. A refresh token may work only once, so what the SSO gave must reach the store, and nobody asks
with a refresh token that is not the store's newest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from cachetools import LRUCache

from gateway.errors import GatewayError
from gateway.login.session import Session
from gateway.login.sessions import SessionManager
from gateway.login.user_grants import UserTokenEndpoint
from gateway.oauth.token import AccessToken
from gateway.oauth.token_response import TokenRequestError
from gateway.telemetry.logs import get_logger
from gateway.timing import backoff

_log = get_logger(__name__)

MAX_PAUSE: Final = 30.0
# Of how many sessions this process remembers what failed.
_MAX_STATES: Final = 20_000
# When to try again to keep what the SSO gave, in seconds from the attempt before.
_SAVE_RETRY_DELAYS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
# How long the end of the process waits for renewals whose outcome others need.
_SHUTDOWN_WAIT: Final = 5.0


@dataclass(slots=True, eq=False)
class RenewalState:
    """What this process, and no other, knows of a session's renewals.

    `rejected` is a token that the platform refused, `task` the renewal under way; `not_before`
    and `failures` pace what failed, `pause_until` and `refusals` what the platform refused again;
    `was_accepted` tells that it took a token.
    `unsaved` is what the SSO gave and the store has not taken yet.
    """

    rejected: AccessToken | None = None
    task: asyncio.Task[Session] | None = None
    not_before: float = 0.0
    failures: int = 0
    pause_until: float = 0.0
    refusals: int = 0
    unsaved: Session | None = None
    was_accepted: bool = False

    def postpone(self, now: float, retry_after: float | None = None) -> None:
        """A renewal failed: the next one not at once."""
        self.failures += 1
        self.not_before = now + (retry_after or backoff(self.failures, 1.0, MAX_PAUSE))


class SessionRenewals:
    """Begins renewals and sees them to their end.

    `on_end` is told of a session that ends, and why; `on_orphan` gets tokens that came for one that
    had ended. `outlived`: sessions are needed after the end of this process.
    """

    def __init__(
        self,
        endpoint: UserTokenEndpoint,
        sessions: SessionManager,
        clock: Callable[[], float],
        *,
        on_end: Callable[[Session, str], None],
        on_orphan: Callable[[Session], Coroutine[Any, Any, None]],
        outlived: bool,
    ) -> None:
        self._endpoint = endpoint
        self._sessions = sessions
        self._clock = clock
        self._on_end = on_end
        self._on_orphan = on_orphan
        self._sessions_persist = outlived
        self._paces: LRUCache[str, RenewalState] = LRUCache(_MAX_STATES)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def state_of(self, session: Session) -> RenewalState:
        """What is known of a session's renewals, to be changed by whoever asks."""
        pace: RenewalState | None = self._paces.get(session.key.name)
        if pace is None:
            pace = self._paces[session.key.name] = RenewalState()
        return pace

    def has_usable_token(self, session: Session) -> bool:
        """Whether its token may go out now."""
        token = session.token
        rejected = self.state_of(session).rejected
        return not session.is_ended and self._clock() < token.usable_until and token != rejected

    def start_renewal(self, session: Session) -> asyncio.Task[Session] | None:
        """The renewal under way, or a new one; None where nothing can renew.

        It gives a session with the newest token that is known, or one that has ended.
        """
        pace = self.state_of(session)
        if pace.task is not None:
            return pace.task
        if session.is_ended or not session.renewal.is_possible or self._closed:
            return None
        pace.task = flight = asyncio.get_running_loop().create_task(
            self._run_renewal(session, pace)
        )
        self._track(flight)
        return flight

    async def end(self, session: Session, why: str) -> None:
        """End the session; raises `GatewayError` while the store is away."""
        if not session.is_ended:
            await self._sessions.end(session)
            self._on_end(session, why)

    async def finish(self) -> None:
        """Wait for the renewals under way: a refresh token that works once must not be lost."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """End all renewals; what others need is waited for a moment."""
        self._closed = True
        if self._sessions_persist and self._tasks:
            await asyncio.wait(self._tasks, timeout=_SHUTDOWN_WAIT)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _track(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_renewal(self, session: Session, pace: RenewalState) -> Session:
        try:
            await self._attempt(session, pace)
        except GatewayError:  # the store is away, which says so itself
            pace.postpone(self._clock())
        except Exception as error:  # a bug must not let old tokens out; its text may hold anything
            _log.error("a renewal broke: %s", type(error).__name__)
            pace.postpone(self._clock())
        finally:
            pace.task = None
        return session

    async def _attempt(self, session: Session, pace: RenewalState) -> None:
        if pace.unsaved is not None:
            # Newer than what the store has, whose refresh token may be worth nothing any more.
            await self._sessions.save(pace.unsaved)
            session.update_from(pace.unsaved)
            pace.unsaved = None
        try:
            await self._renew(session, pace)
        except TokenRequestError as error:
            await self._failed(session, pace, error)

    async def _renew(self, session: Session, pace: RenewalState) -> None:
        before = session.token

        def renewed(latest: Session) -> bool:
            return latest.token != before and self.has_usable_token(latest)

        async with self._sessions.renewal_lock(session, renewed) as latest:
            if latest is None:
                session.is_ended = True
                return
            session.update_from(latest)
            if not renewed(latest):
                made = await self._endpoint.refresh(session.renewal)
                session.token, session.renewal = made.token, made.renewal
                await self._save_or_retry(session, pace)
        pace.failures, pace.not_before = 0, 0.0

    async def _save_or_retry(self, session: Session, pace: RenewalState) -> None:
        loop = asyncio.get_running_loop()
        try:
            kept = await self._sessions.save(session)
        except GatewayError:
            pace.unsaved = session
            self._track(loop.create_task(self._save_until_stored(session, pace)))
        else:
            if not kept:
                self._track(loop.create_task(self._on_orphan(session)))

    async def _save_until_stored(self, session: Session, pace: RenewalState) -> None:
        for delay in _SAVE_RETRY_DELAYS:
            await asyncio.sleep(delay)
            if pace.unsaved is not session:
                return
            with contextlib.suppress(GatewayError):
                await self._sessions.save(session)
                pace.unsaved = None
                return
        _log.error("a renewed token could not be kept: its person will have to sign in again")

    async def _failed(self, session: Session, pace: RenewalState, error: TokenRequestError) -> None:
        _log.warning("a user's token could not be renewed: %s", error)
        # Only this says that the sign-in is over; all else is the client's mistake, or an outage.
        if not error.is_grant_invalid:
            pace.postpone(self._clock(), error.retry_after)
            return
        latest = await self._sessions.latest(session)
        if latest is None:
            session.is_ended = True
        elif latest.renewal != session.renewal:
            session.update_from(latest)  # another process was faster, and the refusal is no news
        else:
            await self.end(session, "refused")
