"""Provides the tokens of signed-in users, beside those of the gateway's credentials.

A user's token is renewed before its expiry, by the requests that use it. While the SSO is
unreachable, a token is used until it expires. If the SSO refuses the refresh token
(`invalid_grant`) or the refresh cookie, the session ends, and the user has to sign in again.

There is at most one renewal of a session at a time. Within a process, requests join the renewal in
progress; between replicas that share the session, a lease decides which one renews. A refresh token
may be valid for a single use. Therefore the tokens that the SSO issued must reach the store, and no
request uses a refresh token that is not the newest one in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cachetools import LRUCache

from gateway.clock import TimeSource, backoff
from gateway.errors import (
    CALLER_UNAUTHENTICATED,
    SSO_UNAVAILABLE,
    GatewayError,
)
from gateway.login.logout import SignOutFlow
from gateway.login.session_store import Session
from gateway.login.sessions import SessionManager
from gateway.oauth.grants import UserTokenEndpoint
from gateway.oauth.token_backoff import (
    RejectionState,
    refresh_time,
    rejected_error,
    wait_for_fetch,
)
from gateway.oauth.token_response import AccessToken, TokenRequestError
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.audit.audit_trail import AuditTrail
    from gateway.config.outbound_settings import SsoSettings

_log = get_logger(__name__)

_MAX_PAUSE: Final = 30.0
# The number of sessions whose renewal state this process remembers.
_MAX_STATES: Final = 20_000
# Delays between the attempts to store renewed tokens, in seconds.
_SAVE_RETRY_DELAYS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
# Seconds for which the shutdown waits for renewals whose outcome other processes need.
_SHUTDOWN_WAIT: Final = 5.0


@dataclass(slots=True, eq=False)
class RenewalState:
    """The state of a session's renewals in this process. Times are of the monotonic clock.

    `refresh_position` (`refresh_time`) spreads the renewals of users who signed in together.
    `rejected` is a token that the platform rejected. `task` is the renewal in progress.
    `not_before` is the end of the backoff after `failures` failed renewals in a row. `rejections`
    pauses renewals that a 401 causes, and knows whether the platform accepted a token of the
    session. `unsaved` is the session with renewed tokens that could not be stored yet.
    """

    refresh_position: float
    rejected: AccessToken | None = None
    task: asyncio.Task[Session] | None = None
    not_before: float = 0.0
    failures: int = 0
    rejections: RejectionState = field(default_factory=RejectionState)
    unsaved: Session | None = None

    def postpone(self, now: float, retry_after: float | None = None) -> None:
        """Count a failed renewal and delay the next by `retry_after` (seconds) or the backoff."""
        self.failures += 1
        self.not_before = now + (retry_after or backoff(self.failures, 1.0, _MAX_PAUSE))


class SessionRenewals:
    """Starts renewals, stores their tokens, and waits for them at the shutdown.

    `sessions_persist`: sessions outlive this process, because the store is shared. `challenge` are
    the fields of a 401.
    """

    def __init__(
        self,
        *,
        endpoint: UserTokenEndpoint,
        sessions: SessionManager,
        sign_out: SignOutFlow,
        audit: AuditTrail,
        sso: SsoSettings,
        challenge: tuple[tuple[str, str], ...],
        times: TimeSource,
        sessions_persist: bool,
    ) -> None:
        self.clock = times.clock
        self._times = times
        self.wait_timeout = sso.timeout
        self._challenge = challenge
        self._endpoint = endpoint
        self._sessions = sessions
        self._sign_out = sign_out
        self._audit = audit
        self._sessions_persist = sessions_persist
        self._states: LRUCache[str, RenewalState] = LRUCache(_MAX_STATES)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def state_of(self, session: Session) -> RenewalState:
        """Return the mutable renewal state of a session, creating it if there is none."""
        state: RenewalState | None = self._states.get(session.key.name)
        if state is None:
            state = self._states[session.key.name] = RenewalState(self._times.random())
        return state

    def was_accepted(self, session: Session) -> bool:
        """Return whether the platform accepted a token of the session in this process."""
        return self.state_of(session).rejections.has_been_accepted

    def sign_in_again(self) -> GatewayError:
        """Return the error for a request whose session has ended."""
        return GatewayError(CALLER_UNAUTHENTICATED, "the sign-in is over", headers=self._challenge)

    def has_usable_token(self, session: Session) -> bool:
        """Return whether the session's token may be sent to the platform now."""
        token = session.token
        rejected = self.state_of(session).rejected
        return not session.is_ended and self.clock() < token.usable_until and token != rejected

    def start_renewal(self, session: Session) -> asyncio.Task[Session] | None:
        """Return the renewal in progress, or start one; None if the session cannot be renewed.

        The task returns `session` with the newest known token, or marked as ended. It raises no
        error of the renewal.
        """
        state = self.state_of(session)
        if state.task is not None:
            return state.task
        if session.is_ended or not session.renewal.is_possible or self._closed:
            return None
        state.task = task = asyncio.get_running_loop().create_task(
            self._run_renewal(session, state)
        )
        self._track(task)
        return task

    async def end(self, session: Session, why: str) -> None:
        """End the session because its token cannot be renewed.

        Raises `GatewayError` while the store fails.
        """
        if not session.is_ended:
            await self._sessions.end(session)
            self._audit.record_event("logout", user=session.user, outcome=why)

    async def finish(self) -> None:
        """Wait for the renewals in progress: a refresh token for single use must not be lost."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Cancel all renewals, after waiting up to 5 s if other processes need their outcome."""
        self._closed = True
        if self._sessions_persist and self._tasks:
            await asyncio.wait(self._tasks, timeout=_SHUTDOWN_WAIT)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _track(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_renewal(self, session: Session, state: RenewalState) -> Session:
        try:
            await self._attempt(session, state)
        except GatewayError:  # the store fails, and has logged it
            state.postpone(self.clock())
        # A bug must not make requests send old tokens. The text of the error may contain secrets.
        except Exception as error:
            _log.error("the renewal of a user's token failed: %s", type(error).__name__)
            state.postpone(self.clock())
        finally:
            state.task = None
        return session

    async def _attempt(self, session: Session, state: RenewalState) -> None:
        if state.unsaved is not None:
            # `unsaved` is newer than the stored session, whose refresh token may be invalid by now.
            await self._sessions.save(state.unsaved)
            session.update_from(state.unsaved)
            state.unsaved = None
        try:
            await self._renew(session, state)
        except TokenRequestError as error:
            await self._failed(session, state, error)

    async def _renew(self, session: Session, state: RenewalState) -> None:
        old_token = session.token

        def renewed(latest: Session) -> bool:
            return latest.token != old_token and self.has_usable_token(latest)

        async with self._sessions.renewal_lock(session, renewed) as latest:
            if latest is None:
                session.is_ended = True
                return
            session.update_from(latest)
            if not renewed(latest):
                tokens = await self._endpoint.refresh(session.renewal)
                session.token, session.renewal = tokens.token, tokens.renewal
                await self._save_or_retry(session, state)
        state.failures, state.not_before = 0, 0.0

    async def _save_or_retry(self, session: Session, state: RenewalState) -> None:
        loop = asyncio.get_running_loop()
        try:
            is_stored = await self._sessions.save(session)
        except GatewayError:
            state.unsaved = session
            self._track(loop.create_task(self._save_until_stored(session, state)))
        else:
            if not is_stored:
                # The session ended before its new tokens arrived.
                self._track(loop.create_task(self._sign_out.revoke(session)))

    async def _save_until_stored(self, session: Session, state: RenewalState) -> None:
        for delay in _SAVE_RETRY_DELAYS:
            await self._times.sleep(delay)
            if state.unsaved is not session:
                return
            with contextlib.suppress(GatewayError):
                await self._sessions.save(session)
                state.unsaved = None
                return
        _log.error("a renewed token could not be stored: its user must sign in again")

    async def _failed(
        self, session: Session, state: RenewalState, error: TokenRequestError
    ) -> None:
        _log.warning("a user's token could not be renewed: %s", error)
        # Any other failure is an error of the client's configuration or an outage.
        if not error.is_grant_invalid:
            state.postpone(self.clock(), error.retry_after)
            return
        latest = await self._sessions.latest(session)
        if latest is None:
            session.is_ended = True
        elif latest.renewal != session.renewal:
            # Another process has used the refresh token before, which explains the refusal.
            session.update_from(latest)
        else:
            await self.end(session, "refused")


class UserTokens:
    """The tokens of one session, as `gateway.oauth.tokens.Tokens` are those of a credential.

    A request waits for a token as long as for one of the gateway's own. `name` is that in
    records, which never name a session.
    """

    name: Final = "login"

    def __init__(self, session: Session, renewals: SessionRenewals) -> None:
        self._session = session
        self._renewals = renewals
        self._state = renewals.state_of(session)
        self._clock = renewals.clock

    def current(self) -> AccessToken | None:
        """Return the token to use now, or None if `wait_for_token` must be awaited.

        Starts a renewal if the token expires soon.
        """
        session, state = self._session, self._state
        if state.unsaved is not None:
            session.update_from(state.unsaved)
        if not self._renewals.has_usable_token(session):
            return None
        token, now = session.token, self._clock()
        if now >= max(refresh_time(token, state.refresh_position), state.not_before):
            self._renewals.start_renewal(session)
        return token

    async def wait_for_token(self) -> AccessToken:
        """Return the token to use now, waiting for a renewal if there is no usable one.

        Raises `GatewayError` caller-unauthenticated, sso-unavailable, token-rejected or
        shutting-down.
        """
        if not self._renewals.has_usable_token(self._session):
            await self._renewed()
        return self._session.token

    async def replace_rejected(self, rejected: AccessToken) -> AccessToken:
        """Return another token than `rejected`, to which the platform responded with 401.

        Raises `GatewayError` caller-unauthenticated if the user has to sign in again,
        token-rejected if fresh tokens were rejected just before, and the other errors of
        `wait_for_token`.
        """
        if self._session.token == rejected:
            self._state.rejected = rejected
            if self._state.rejections.is_paused(self._clock()):
                raise rejected_error("the platform refused this user's fresh tokens just before")
            await self._renewed()
        return self._session.token

    def invalidate(self, token: AccessToken) -> None:
        """Called when the platform rejected `token` and the request is not retryable.

        The next request of the session gets another token.
        """
        if self._session.token == token:
            self._state.rejected = token

    def on_fresh_token_rejected(self, _token: AccessToken) -> None:
        """Called when the platform rejected a fresh token too. Pauses renewals caused by a 401."""
        self._state.rejections.on_fresh_token_rejected(self._clock())

    def on_token_accepted(self, _token: AccessToken) -> None:
        """Called when the platform accepted a token. Ends a pause of renewals caused by a 401."""
        self._state.rejections.on_token_accepted(self._clock())

    async def _renewed(self) -> None:
        """Return when a renewal has given the session a usable token. Raises `GatewayError`."""
        session, state, renewals = self._session, self._state, self._renewals
        wait = state.not_before - self._clock()
        if state.task is None and wait > 0 and not session.is_ended:
            raise _unavailable("the SSO gave no new token just before", wait)
        task = renewals.start_renewal(session)
        if task is None:
            await renewals.end(session, "expired")
            raise renewals.sign_in_again()
        timeout = renewals.wait_timeout
        renewed = await wait_for_fetch(task, timeout, f"no new token within {timeout:g} s")
        session.update_from(renewed)
        if session.is_ended:
            raise renewals.sign_in_again()
        if renewals.has_usable_token(session):
            return
        if session.token == state.rejected and not state.failures:
            raise rejected_error("the SSO gave the token again that the platform refuses")
        raise _unavailable("the SSO gave no new token", max(1.0, state.not_before - self._clock()))


def _unavailable(detail: str, wait: float) -> GatewayError:
    return GatewayError(SSO_UNAVAILABLE, detail, retry_after=wait)
