"""Manages the access tokens: fetches at start, refreshes before expiry, replaces after a 401.

The request path calls `current`, which nearly always returns the token, and `wait_for_token` where
it returns None. Each credential has at most one fetch in progress, which takes a token from the
store or else from the SSO. The fetch belongs to the `TokenManager` object: requests wait for it,
but a cancelled request does not cancel it. When it ends, its outcome is reported and installed, and
a timer is set for the next fetch, after success and failure alike. There is no long-running refresh
loop that could end by an error.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.clock import TimeSource
from gateway.errors import INTERNAL, SHUTTING_DOWN, SSO_UNAVAILABLE, TOKEN_REJECTED, GatewayError
from gateway.i18n import format_duration
from gateway.oauth.token_backoff import FailureState, RefreshSchedule, RejectionState
from gateway.oauth.token_failures import failure_text
from gateway.oauth.token_fetcher import TokenFetcher
from gateway.oauth.token_response import AccessToken, TokenRequestError
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.audit.audit_trail import AuditTrail
    from gateway.config.outbound_settings import SsoSettings
    from gateway.oauth.credential import CredentialSource
    from gateway.oauth.token_response import Cause, FailureKind
    from gateway.oauth.token_store import TokenStore
    from gateway.telemetry.metrics import Metrics

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TokenState:
    """The state of one credential, for readiness and the status page; times in seconds from now.

    `failure`, `cause`, `status`, `oauth_error` and `description` are those of the last attempt's
    `TokenRequestError`, None or "" if it succeeded. `next_attempt_in`: seconds until the next token
    request, None while one is in progress (`is_fetching`). `is_rejected`: the platform rejects
    fresh tokens. `uses_previous_secret`: the SSO refuses the first client secret.
    """

    is_valid: bool
    expires_in: float | None
    failure: FailureKind | None
    cause: Cause | None
    status: int | None
    oauth_error: str | None
    next_attempt_in: float | None
    is_fetching: bool
    is_rejected: bool
    uses_previous_secret: bool = False
    description: str = ""


class _CredentialState:
    """The mutable state of one credential."""

    __slots__ = (
        "credential",
        "discarded",
        "failure",
        "fetch_task",
        "next_attempt",
        "rejections",
        "retry_at_once",
        "source",
        "timer",
        "token",
        "waiters",
    )

    def __init__(self, credential: str, source: CredentialSource) -> None:
        self.credential = credential
        self.source = source
        self.token: AccessToken | None = None
        # A token that the platform rejected and that is not replaced yet. It may stay in use until
        # its successor is installed.
        self.discarded: AccessToken | None = None
        self.failure: FailureState | None = None
        self.rejections = RejectionState()
        self.fetch_task: asyncio.Task[AccessToken | FailureState] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.next_attempt: float | None = None
        self.retry_at_once = False
        self.waiters = 0


class TokenManager:
    """The tokens of all credentials.

    `sources` maps the name of each credential to its source. Methods raise KeyError for an unknown
    name and no other exception than `GatewayError`.
    """

    def __init__(
        self,
        *,
        sources: Mapping[str, CredentialSource],
        store: TokenStore,
        metrics: Metrics,
        audit: AuditTrail,
        sso: SsoSettings,
        times: TimeSource | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._sso = sso
        self._wait_timeout = sso.timeout
        self._times = times or TimeSource()
        self._clock = self._times.clock
        self._pacing = RefreshSchedule(rng or random.Random())  # nosec B311 # noqa: S311 - spreads load
        self._metrics = metrics
        self._fetcher = TokenFetcher(
            store=store,
            metrics=metrics,
            audit=audit,
            pacing=self._pacing,
            times=self._times,
            replica_wait=sso.replica_wait,
        )
        self._states = {key: _CredentialState(key, source) for key, source in sources.items()}
        self._closed = False
        self._renewing = True

    async def start(self, previous_tokens: Mapping[str, AccessToken] | None = None) -> None:
        """Start fetching the token of every credential, without waiting for the SSO.

        `previous_tokens` maps credentials to valid tokens from before. They are installed instead
        of fetching, and refreshed before they expire.
        """
        for name, state in self._states.items():
            token = previous_tokens.get(name) if previous_tokens is not None else None
            if token is None:
                self._start_fetch(state)
                continue
            now = self._clock()
            self._install(state, token, now)
            self._schedule(state, self._pacing.refresh_delay(token, now))

    def stop_renewing(self) -> None:
        """Stop refreshing in advance, because another object has taken over.

        Tokens that a request still needs are fetched.
        """
        self._renewing = False
        for state in self._states.values():
            if state.timer is not None:
                state.timer.cancel()
            state.timer = state.next_attempt = None

    async def close(self) -> None:
        """Cancel all fetches and timers; requests that still wait fail with `shutting-down`."""
        self._closed = True
        tasks = []
        for state in self._states.values():
            if state.timer is not None:
                state.timer.cancel()
            if state.fetch_task is not None:
                state.fetch_task.cancel()
                tasks.append(state.fetch_task)
        await asyncio.gather(*tasks, return_exceptions=True)

    def current(self, credential: str) -> AccessToken | None:
        """Return the token to use now, or None if `wait_for_token` must be awaited.

        The token is never an expired one.
        """
        token = self._states[credential].token
        if token is not None and self._clock() < token.usable_until:
            return token
        return None

    async def wait_for_token(self, credential: str) -> AccessToken:
        """Return the token to use now, waiting at most `sso.timeout` seconds for a fetch.

        Raises `GatewayError` token-refused or sso-unavailable, without waiting during the backoff
        after a failure, or shutting-down.
        """
        token = self.current(credential)
        return token if token is not None else await self._await_fetch(self._states[credential])

    async def replace_rejected(self, credential: str, rejected: AccessToken) -> AccessToken:
        """Return another token than `rejected`, to which the platform responded with 401.

        Raises `GatewayError` token-rejected when the SSO issues no other token or forced fetches
        are paused, and the errors of `wait_for_token`.
        """
        state = self._states[credential]
        self._discard_rejected(state, rejected, keep_if_accepted=True)
        if state.rejections.is_paused(self._clock()):
            raise _rejected("fresh tokens were refused before; none is fetched for a moment")
        token = self.current(credential)
        if token is None or token == rejected:
            token = await self._await_fetch(state)
        if token == rejected:
            raise _rejected("the SSO gave the token again that the platform refuses")
        return token

    def on_fresh_token_rejected(self, credential: str, token: AccessToken) -> None:
        """Pause forced fetches: the platform rejected the token of `replace_rejected` too."""
        state = self._states[credential]
        state.rejections.on_fresh_token_rejected(self._clock())
        _log.warning(
            "credential %s: the platform refused a fresh token",
            credential,
            credential=credential,
            reason=TOKEN_REJECTED.code,
        )

    def on_token_accepted(self, credential: str, token: AccessToken) -> None:
        """Called when the platform accepted `token`. Ends a pause if `token` is in use."""
        state = self._states[credential]
        if token is state.token or token == state.token:
            state.rejections.on_token_accepted(self._clock())

    def invalidate(self, credential: str, token: AccessToken) -> None:
        """Discard `token`, which the platform rejected, for later requests.

        Called where the rejected request itself is not retryable. The fetch counts as a forced one:
        the token stays in use while forced fetches are paused or must wait for their minimum
        interval.
        """
        state = self._states[credential]
        self._discard_rejected(state, token, keep_if_accepted=False)
        given_up = state.token is None or state.token == state.discarded
        if given_up and not self._closed and not self._is_in_backoff(state):
            self._start_fetch(state)

    def fetch_now(self, credential: str) -> None:
        """Fetch a token at once, without regard to earlier failures: the secret was changed."""
        state = self._states[credential]
        state.failure = None
        state.retry_at_once = state.fetch_task is not None
        if not self._closed:
            self._start_fetch(state)

    def token_states(self) -> Mapping[str, TokenState]:
        """Return the state of each credential, by name."""
        now = self._clock()
        return {name: self._state(state, now) for name, state in self._states.items()}

    def _state(self, state: _CredentialState, now: float) -> TokenState:
        token = self.current(state.credential)
        failure = state.failure.error if state.failure is not None else None
        return TokenState(
            is_valid=token is not None,
            expires_in=token.expires_at - now if token is not None else None,
            failure=failure.kind if failure is not None else None,
            cause=failure.cause if failure is not None else None,
            status=failure.status if failure is not None else None,
            oauth_error=failure.oauth_error if failure is not None else None,
            next_attempt_in=max(0.0, state.next_attempt - now) if state.next_attempt else None,
            is_fetching=state.fetch_task is not None and state.next_attempt is None,
            is_rejected=state.rejections.is_paused(now),
            uses_previous_secret=state.source.uses_previous_secret,
            description=failure.description if failure is not None else "",
        )

    def _discard_rejected(
        self, state: _CredentialState, rejected: AccessToken, *, keep_if_accepted: bool
    ) -> None:
        """Discard `rejected` if it is the token in use, unless forced fetches are paused.

        It stays in use until its successor is installed if the next forced fetch has to wait. With
        `keep_if_accepted` it also stays in use if the platform has just accepted it for another
        request.
        """
        now = self._clock()
        rejections = state.rejections
        if state.token != rejected or rejections.is_paused(now):
            return
        if rejections.suspect_token == rejected:
            self.on_fresh_token_rejected(state.credential, rejected)
            return
        state.discarded = rejected
        if rejections.seconds_until_forced_fetch(now) or (
            keep_if_accepted and rejections.was_recently_accepted(now)
        ):
            return
        state.token = None
        self._metrics.on_token_expiry(state.credential, 0.0)

    def _is_in_backoff(self, state: _CredentialState) -> bool:
        return state.failure is not None and self._clock() < state.failure.until

    async def _await_fetch(self, state: _CredentialState) -> AccessToken:
        """Return the token of the fetch in progress, or of a new one.

        Cancelling the waiter does not cancel the fetch. Raises `GatewayError`.
        """
        if state.fetch_task is None and state.failure is not None and self._is_in_backoff(state):
            raise self._failed(state, state.failure)
        task = self._start_fetch(state)
        begins_in = max(0.0, (state.next_attempt or 0.0) - self._clock())
        self._count_waiter(state, 1)
        try:
            await asyncio.wait({task}, timeout=begins_in + self._wait_timeout)
        finally:
            self._count_waiter(state, -1)
        if not task.done():
            waited = f"no token within {self._wait_timeout:g} s"
            raise GatewayError(SSO_UNAVAILABLE, detail=waited, retry_after=1.0)
        if task.cancelled():
            raise GatewayError(SHUTTING_DOWN, close_connection=True)
        outcome = task.result()
        now = self._clock()
        if isinstance(outcome, FailureState):
            raise self._failed(state, outcome)
        if now >= outcome.usable_until:
            expired = "the token expired while the request waited for it"
            raise GatewayError(SSO_UNAVAILABLE, detail=expired, retry_after=1.0)
        return outcome

    def _failed(self, state: _CredentialState, failure: FailureState) -> GatewayError:
        return failure.gateway_error(self._clock(), self._explain(state, failure.error))

    def _explain(self, state: _CredentialState, error: TokenRequestError) -> str:
        return failure_text(error, state.credential, self._sso)

    def _count_waiter(self, state: _CredentialState, change: int) -> None:
        state.waiters += change
        self._metrics.on_waiters_changed(state.credential, state.waiters)

    def _start_fetch(self, state: _CredentialState) -> asyncio.Task[AccessToken | FailureState]:
        """Return the fetch in progress, or start one. Raises `GatewayError` shutting-down."""
        if self._closed:
            raise GatewayError(SHUTTING_DOWN, close_connection=True)
        if state.fetch_task is None:
            if state.timer is not None:
                state.timer.cancel()
            now = self._clock()
            # A fetch is forced only while a rejected token is still in use. Without any token the
            # fetch must not wait.
            forced = state.token is not None and state.token == state.discarded
            wait = state.rejections.seconds_until_forced_fetch(now) if forced else 0.0
            state.timer, state.next_attempt = None, now + wait if wait else None
            state.fetch_task = asyncio.get_running_loop().create_task(self._run_fetch(state, wait))
        return state.fetch_task

    async def _run_fetch(self, state: _CredentialState, wait: float) -> AccessToken | FailureState:
        outcome: AccessToken | TokenRequestError
        try:
            if wait:
                await self._times.sleep(wait)
                state.next_attempt = None
            if state.discarded is not None:
                state.rejections.on_forced_fetch(self._clock())
            outcome = await self._fetcher.fetch(
                state.credential, state.source, lambda: (state.token, state.discarded)
            )
        except TokenRequestError as error:
            outcome = error
        # A bug must not end the refreshing. Only the class is logged: the text may contain secrets.
        except Exception as error:
            _log.error(
                "credential %s: fetch broke: %s",
                state.credential,
                type(error).__name__,
                credential=state.credential,
                reason=INTERNAL.code,
            )
            outcome = TokenRequestError("transient", "internal error")
        finally:
            state.fetch_task = None
        return self._finish_fetch(state, outcome)

    def _finish_fetch(
        self, state: _CredentialState, outcome: AccessToken | TokenRequestError
    ) -> AccessToken | FailureState:
        now = self._clock()
        if isinstance(outcome, AccessToken):
            self._install(state, outcome, now)
            self._schedule(state, self._pacing.refresh_delay(outcome, now))
            return outcome
        count = state.failure.count + 1 if state.failure is not None else 1
        remaining = state.token.usable_until - now if state.token is not None else 0.0
        pause = self._pacing.retry_delay(outcome, count, remaining)
        if state.retry_at_once:
            pause, state.retry_at_once = 0.0, False
        state.failure = FailureState(outcome, now + pause, count)
        self._schedule(state, pause)
        _log.warning(
            "credential %s: %s; asking again in %s",
            state.credential,
            self._explain(state, outcome),
            format_duration(pause),
            credential=state.credential,
            reason=state.failure.reason.code,
        )
        return state.failure

    def _install(self, state: _CredentialState, token: AccessToken, now: float) -> None:
        if token != state.token:
            state.rejections.on_token_replaced()
        state.token, state.failure, state.retry_at_once = token, None, False
        if state.discarded is not None:
            if token == state.discarded:
                # The SSO issued the rejected token again. It is used nevertheless: there is no
                # other one, and the platform may accept it by now.
                state.rejections.on_fresh_token_rejected(now)
            else:
                state.rejections.suspect_token = token
            state.discarded = None
        self._metrics.on_token_expiry(state.credential, token.wall_expiry)

    def _schedule(self, state: _CredentialState, delay: float) -> None:
        if not self._renewing:
            return
        state.next_attempt = self._clock() + delay
        state.timer = self._times.call_later(delay, lambda: self._start_fetch(state))


def _rejected(detail: str) -> GatewayError:
    # No request was sent now, but the cause is an earlier 401 of the platform.
    return GatewayError(TOKEN_REJECTED, detail=detail, upstream_status=401)
