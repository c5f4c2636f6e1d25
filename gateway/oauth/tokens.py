"""Manages the access tokens: fetches at start, refreshes before expiry, replaces after a 401.

Every caller has the `Tokens` of one credential. The request path calls `current`, which nearly
always returns the token, and `wait_for_token` where it returns None. Each credential has at most
one fetch in progress, which takes a token from the shared store or else from the SSO. The fetch
belongs to the `Tokens` object: requests wait for it, but a cancelled request does not cancel it.
When it ends, its outcome is reported and installed, and a timer is set for the next fetch, after
success and failure alike. There is no long-running refresh loop that could end by an error.

A forced fetch is one that a 401 of the platform causes. `RejectionState` limits them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gateway.clock import TimeSource
from gateway.errors import INTERNAL, SHUTTING_DOWN, SSO_UNAVAILABLE, TOKEN_REJECTED, GatewayError
from gateway.health.health import TokenState
from gateway.i18n import format_duration
from gateway.oauth.credential import Credential
from gateway.oauth.token_backoff import (
    FailureState,
    RejectionState,
    refresh_delay,
    refresh_time,
    rejected_error,
    retry_delay,
    wait_for_fetch,
)
from gateway.oauth.token_endpoint import TokenRequestQueue
from gateway.oauth.token_failures import failure_text
from gateway.oauth.token_fetcher import TokenFetcher
from gateway.oauth.token_response import AccessToken, TokenRequestError
from gateway.oauth.token_store import TokensAtHand
from gateway.telemetry.logs import get_logger
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.audit.audit_trail import AuditTrail
    from gateway.config.outbound_settings import SsoSettings
    from gateway.oauth.redis_token_store import RedisTokenStore

_log = get_logger(__name__)


class Tokens:
    """The tokens of one credential. Methods raise no other exception than `GatewayError`.

    `at_hand` has the tokens in use, by key. Credentials of the same client, scope and parameters
    have one key and share a token. `fetcher`, `queue` and `times` may be shared with other
    credentials.
    """

    def __init__(
        self,
        credential: Credential,
        *,
        at_hand: TokensAtHand,
        fetcher: TokenFetcher,
        queue: TokenRequestQueue,
        metrics: Metrics,
        sso: SsoSettings,
        times: TimeSource,
    ) -> None:
        self.name = credential.name
        self.credential = credential
        self._fetcher = fetcher
        self._queue = queue
        self._metrics = metrics
        self._sso = sso
        self._times = times
        self._clock = times.clock
        self._at_hand = at_hand
        # The key of the token in use. A token fetched with a changed secret has another key.
        self._key: str = credential.store_key.name
        # The token that the platform rejected, until its successor is installed. It may stay in
        # use until then.
        self._rejected_token: AccessToken | None = None
        self._failure: FailureState | None = None
        # Whether a failure was logged, here or by a predecessor, and no token was fetched since.
        self._is_failing = False
        self._is_short_lifetime_logged = False
        self._rejections = RejectionState()
        self._fetch_task: asyncio.Task[AccessToken | FailureState] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next_attempt: float | None = None
        self._retry_at_once = False
        self._waiters = 0
        self._closed = False
        self._refreshes_in_advance = True

    def start(self, before: Tokens | None = None) -> None:
        """Start fetching the token, without waiting for the SSO.

        A token that is at hand is used instead, and refreshed before it expires. `before` are the
        tokens of the same name in the settings before a reload. If they are for the same client,
        SSO and platform, their token stays in use, and so does the secret that the SSO accepted
        last.
        """
        previous, changed = None, False
        if before is not None:
            self._is_failing = before._is_failing
            self._is_short_lifetime_logged = before._is_short_lifetime_logged
        if before is not None and before.credential.identity == self.credential.identity:
            self.credential.take_over(before.credential)
            previous = before.current()
            changed = self.credential.store_key != before.credential.store_key
        token = previous or self.current()
        if token is None:
            self._start_fetch()
            return
        self._install(token)
        if changed:
            # Only a request to the SSO shows whether it accepts the new secret.
            self.fetch_now()

    def stop_renewing(self) -> None:
        """Stop refreshing in advance, because another object has taken over.

        If a request needs a token after that, one is fetched.
        """
        self._refreshes_in_advance = False
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._next_attempt = None

    async def close(self) -> None:
        """Cancel the fetch and the timer; requests that still wait fail with `shutting-down`."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._fetch_task is not None:
            self._fetch_task.cancel()
            await asyncio.gather(self._fetch_task, return_exceptions=True)

    def current(self) -> AccessToken | None:
        """Return the token to use now, or None if `wait_for_token` must be awaited.

        The token is never an expired one.
        """
        try:
            token: AccessToken = self._at_hand[self._key]
        except KeyError:
            return None
        return token

    async def wait_for_token(self) -> AccessToken:
        """Return the token to use now, waiting at most `sso.timeout` seconds for a fetch.

        Raises `GatewayError` token-refused or sso-unavailable, without waiting during the backoff
        after a failure, or shutting-down.
        """
        token = self.current()
        return token if token is not None else await self._await_fetch()

    async def replace_rejected(self, rejected: AccessToken) -> AccessToken:
        """Return another token than `rejected`, to which the platform responded with 401.

        Raises `GatewayError` token-rejected when the SSO issues no other token or forced fetches
        are paused, and the errors of `wait_for_token`.
        """
        self._discard_rejected(rejected, keep_if_accepted=True)
        if self._rejections.is_paused(self._clock()):
            raise rejected_error("fresh tokens were refused before; none is fetched for a moment")
        token = self.current()
        if token is None or token == rejected:
            token = await self._await_fetch()
        if token == rejected:
            raise rejected_error("the SSO gave the token again that the platform refuses")
        return token

    def on_fresh_token_rejected(self, token: AccessToken) -> None:
        """Pause forced fetches: the platform rejected the token of `replace_rejected` too."""
        if self._rejections.on_fresh_token_rejected(self._clock()):
            _log.warning(
                "credential %s: the platform refused a fresh token",
                self.name,
                credential=self.name,
                reason=TOKEN_REJECTED.code,
            )

    def on_token_accepted(self, token: AccessToken) -> None:
        """Called when the platform accepted `token`. Ends a pause if `token` is in use."""
        current = self.current()
        if token is current or token == current:
            self._rejections.on_token_accepted(self._clock())

    def invalidate(self, token: AccessToken) -> None:
        """Discard `token`, which the platform rejected, for later requests.

        Called where the rejected request itself is not retryable. The fetch counts as a forced one:
        the token stays in use while forced fetches are paused or must wait for their minimum
        interval.
        """
        self._discard_rejected(token, keep_if_accepted=False)
        current = self.current()
        needs_fetch = current is None or current == self._rejected_token
        if needs_fetch and not self._closed and not self._is_in_backoff():
            self._start_fetch()

    def fetch_now(self) -> None:
        """Fetch a token at once, without regard to earlier failures: the secret was changed."""
        self._failure = None
        self._retry_at_once = self._fetch_task is not None
        if not self._closed:
            self._start_fetch()

    def state(self) -> TokenState:
        """Return the state of the credential."""
        now = self._clock()
        token = self.current()
        failure = self._failure.error if self._failure is not None else None
        return TokenState(
            is_valid=token is not None,
            expires_in=token.expires_at - now if token is not None else None,
            failure=failure.kind if failure is not None else None,
            cause=failure.cause if failure is not None else None,
            status=failure.status if failure is not None else None,
            oauth_error=failure.oauth_error if failure is not None else None,
            next_attempt_in=max(0.0, self._next_attempt - now) if self._next_attempt else None,
            is_fetching=self._fetch_task is not None and self._next_attempt is None,
            is_rejected=self._rejections.is_paused(now),
            uses_previous_secret=self.credential.uses_previous_secret,
            description=failure.description if failure is not None else "",
        )

    def _discard_rejected(self, rejected: AccessToken, *, keep_if_accepted: bool) -> None:
        """Discard `rejected` if it is the token in use, unless forced fetches are paused.

        It stays in use until its successor is installed if the next forced fetch has to wait. With
        `keep_if_accepted` it also stays in use if the platform has just accepted it for another
        request.
        """
        now = self._clock()
        rejections = self._rejections
        if self.current() != rejected or rejections.is_paused(now):
            return
        # After the minimum interval the 401 does not come from the request that forced the fetch,
        # but from a later one, which is sent again with another token.
        may_retry = keep_if_accepted and not rejections.seconds_until_forced_fetch(now)
        if rejections.suspect_token == rejected and not may_retry:
            self.on_fresh_token_rejected(rejected)
            return
        self._rejected_token = rejected
        if rejected.has_default_lifetime and rejections.has_been_accepted:
            self._log_short_lifetime(now - rejected.received_at)
        if rejections.seconds_until_forced_fetch(now) or (
            keep_if_accepted and rejections.was_recently_accepted(now)
        ):
            return
        self._at_hand.pop(self._key, None)
        self._metrics.on_token_expiry(self.name, 0.0)

    def _log_short_lifetime(self, age: float) -> None:
        """Log once that the platform refused a token `age` seconds old that it had accepted."""
        if self._is_short_lifetime_logged:
            return
        self._is_short_lifetime_logged = True
        _log.warning(
            "credential %s: the platform refused a token %s after the SSO gave it: "
            "sso.default_token_lifetime (%s) seems to be longer than its tokens live",
            self.name,
            format_duration(age),
            format_duration(self._sso.default_token_lifetime),
            credential=self.name,
        )

    def _is_in_backoff(self) -> bool:
        return self._failure is not None and self._clock() < self._failure.until

    async def _await_fetch(self) -> AccessToken:
        """Return the token of the fetch in progress, or of a new one.

        Cancelling the waiter does not cancel the fetch. Raises `GatewayError`.
        """
        if self._fetch_task is None and self._failure is not None and self._is_in_backoff():
            raise self._gateway_error(self._failure)
        task = self._start_fetch()
        begins_in = max(0.0, (self._next_attempt or 0.0) - self._clock())
        timeout = self._sso.timeout
        self._count_waiter(1)
        try:
            outcome = await wait_for_fetch(
                task, begins_in + timeout, f"no token within {timeout:g} s"
            )
        finally:
            self._count_waiter(-1)
        if isinstance(outcome, FailureState):
            raise self._gateway_error(outcome)
        if self._clock() >= outcome.usable_until:
            raise GatewayError(
                SSO_UNAVAILABLE,
                "the token expired while the request waited for it",
                retry_after=1.0,
            )
        return outcome

    def _gateway_error(self, failure: FailureState) -> GatewayError:
        return failure.gateway_error(self._clock(), self._explain(failure.error))

    def _explain(self, error: TokenRequestError) -> str:
        return failure_text(error, self.name, self._sso)

    def _count_waiter(self, change: int) -> None:
        self._waiters += change
        self._metrics.on_waiters_changed(self.name, self._waiters)

    def _start_fetch(self) -> asyncio.Task[AccessToken | FailureState]:
        """Return the fetch in progress, or start one. Raises `GatewayError` shutting-down."""
        if self._closed:
            raise GatewayError(SHUTTING_DOWN, close_connection=True)
        if self._fetch_task is None:
            if self._timer is not None:
                self._timer.cancel()
            now = self._clock()
            # A fetch is forced only while a rejected token is still in use. Without any token the
            # fetch must not wait.
            current = self.current()
            forced = current is not None and current == self._rejected_token
            wait = self._rejections.seconds_until_forced_fetch(now) if forced else 0.0
            self._timer, self._next_attempt = None, now + wait if wait else None
            self._fetch_task = asyncio.get_running_loop().create_task(self._run_fetch(wait))
        return self._fetch_task

    async def _run_fetch(self, wait: float) -> AccessToken | FailureState:
        outcome: AccessToken | TokenRequestError
        key = self.credential.store_key.name
        known = self._at_hand.get(key)
        try:
            if wait:
                await self._times.sleep(wait)
                self._next_attempt = None
            before = self.credential.request_count
            async with self._queue.admission(
                lambda: self._waiters > 0, lambda: self.credential.request_count - before, key
            ):
                # Another object with this key may have fetched a token meanwhile, for example one
                # of the settings before a reload.
                fetched = self._at_hand.get(key)
                if fetched is not None and fetched not in (known, self._rejected_token):
                    outcome = fetched
                else:
                    if self._rejected_token is not None:
                        self._rejections.on_forced_fetch(self._clock())
                    outcome = await self._fetcher.fetch(
                        self.credential, lambda: (self.current(), self._rejected_token)
                    )
        except TokenRequestError as error:
            outcome = error
        # A bug must not end the refreshing. Only the class is logged: the text may contain secrets.
        except Exception as error:
            _log.error(
                "credential %s: the token request failed: %s",
                self.name,
                type(error).__name__,
                credential=self.name,
                reason=INTERNAL.code,
            )
            outcome = TokenRequestError("transient", "internal error")
        finally:
            self._fetch_task = None
        return self._finish_fetch(outcome)

    def _finish_fetch(self, outcome: AccessToken | TokenRequestError) -> AccessToken | FailureState:
        if isinstance(outcome, AccessToken):
            self._install(outcome)
            if self._is_failing:
                self._is_failing = False
                _log.info(
                    "credential %s: the SSO gives tokens again", self.name, credential=self.name
                )
            return outcome
        now, current, before = self._clock(), self.current(), self._failure
        has_token = current is not None
        count = before.count + 1 if before is not None and before.had_token == has_token else 1
        remaining = current.usable_until - now if current is not None else 0.0
        pause = retry_delay(outcome, count, remaining, self._times.random)
        if self._retry_at_once:
            pause, self._retry_at_once = 0.0, False
        self._failure = FailureState(outcome, now + pause, count, has_token)
        self._schedule(pause, self._start_fetch)
        self._is_failing = True
        # A refusal lasts until an operator acts; an outage passes.
        log = _log.error if outcome.kind == "refused" else _log.warning
        log(
            "credential %s: %s; asking again in %s",
            self.name,
            self._explain(outcome),
            format_duration(pause),
            credential=self.name,
            reason=self._failure.reason.code,
        )
        return self._failure

    def _install(self, token: AccessToken) -> None:
        """Use the token from now on, and schedule its refresh."""
        now = self._clock()
        if token != self.current():
            self._rejections.on_token_replaced()
        self._key = self.credential.store_key.name
        self._at_hand[self._key] = token
        self._failure, self._retry_at_once = None, False
        if self._rejected_token is not None:
            if token == self._rejected_token:
                # The SSO issued the rejected token again. It is used nevertheless: there is no
                # other one, and the platform may accept it by now.
                self._rejections.on_fresh_token_rejected(now)
            else:
                self._rejections.suspect_token = token
            self._rejected_token = None
        self._metrics.on_token_expiry(self.name, token.wall_expiry)
        self._schedule(refresh_delay(token, now, self._times.random), self._refresh)

    def _refresh(self) -> None:
        """Fetch the next token, unless a credential that shares it has done so."""
        current = self.current()
        if current is None or self._clock() >= refresh_time(current, 0.0):
            self._start_fetch()
        else:
            self._install(current)

    def _schedule(self, delay: float, action: Callable[[], object]) -> None:
        if not self._refreshes_in_advance:
            return
        self._next_attempt = self._clock() + delay
        self._timer = self._times.call_later(delay, action)


def make_tokens(
    credentials: Mapping[str, Credential],
    *,
    at_hand: TokensAtHand,
    store: RedisTokenStore | None,
    metrics: Metrics,
    audit: AuditTrail,
    sso: SsoSettings,
    times: TimeSource,
    queue: TokenRequestQueue,
) -> dict[str, Tokens]:
    """Return the tokens of all credentials, by name, which is the key of `credentials`.

    `store` is None where no replicas share tokens.
    """
    fetcher = TokenFetcher(
        store=store,
        metrics=metrics,
        audit=audit,
        times=times,
        replica_wait=sso.replica_wait,
    )
    return {
        name: Tokens(
            credential,
            at_hand=at_hand,
            fetcher=fetcher,
            queue=queue,
            metrics=metrics,
            sso=sso,
            times=times,
        )
        for name, credential in credentials.items()
    }
