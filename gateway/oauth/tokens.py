"""The life of the tokens: fetched at start, renewed ahead of expiry, dropped when rejected.

The request path calls `current`, which nearly always has the token, and `wait_for_token` where it
has not. Each credential has at most one fetch under way, which belongs to the `TokenManager`
object: requests wait for it, but leaving does not end it. When it ends, its outcome is installed
and a timer is set for the next one, after success and failure alike; no loop can die.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.duration import format_duration
from gateway.errors import INTERNAL, SHUTTING_DOWN, SSO_UNAVAILABLE, TOKEN_REJECTED, GatewayError
from gateway.oauth.backoff import FailureState, RefreshSchedule, RejectionState, TokenPolicy
from gateway.oauth.error_messages import SsoRoute, failure_text
from gateway.oauth.fetcher import TokenFetcher
from gateway.oauth.ports import TokenObserver, TokenSource
from gateway.oauth.store import TokenStore
from gateway.oauth.token import AccessToken
from gateway.oauth.token_response import Cause, FailureKind, TokenRequestError
from gateway.telemetry.logs import get_logger
from gateway.timing import TimerHandle, TimeSource

__all__ = [
    "AccessToken",
    "TimeSource",
    "TokenManager",
    "TokenObserver",
    "TokenPolicy",
    "TokenSource",
    "TokenState",
]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TokenState:
    """One credential for readiness and the status page; times in seconds from now.

    `failure` and `cause` tell of the last attempt if it failed, with what the SSO then reported:
    `status`, `oauth_error` and `description`, as in `TokenRequestError`. `next_attempt_in`: when
    the SSO will be asked again (None while it is being asked: `is_fetching`); `is_rejected` says
    that the platform refuses fresh tokens; `uses_previous_secret` that the SSO refuses the first
    secret.
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
    """All that is known of one credential."""

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

    def __init__(self, credential: str, source: TokenSource, policy: TokenPolicy) -> None:
        self.credential = credential
        self.source = source
        self.token: AccessToken | None = None
        # Rejected by the platform and not replaced yet; may be in use until it is.
        self.discarded: AccessToken | None = None
        self.failure: FailureState | None = None
        self.rejections = RejectionState(policy)
        self.fetch_task: asyncio.Task[AccessToken | FailureState] | None = None
        self.timer: TimerHandle | None = None
        self.next_attempt: float | None = None
        self.retry_at_once = False
        self.waiters = 0


class TokenManager:
    """The tokens of all credentials.

    `sources` has an entry for each credential's name; every method that is given another name
    raises KeyError. Nothing here raises anything else than `GatewayError`.
    """

    def __init__(
        self,
        sources: Mapping[str, TokenSource],
        store: TokenStore,
        observer: TokenObserver,
        *,
        policy: TokenPolicy | None = None,
        times: TimeSource | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._policy = policy or TokenPolicy()
        self._times = times or TimeSource()
        self._clock = self._times.clock
        self._pacing = RefreshSchedule(self._policy, rng or random.Random())  # nosec B311 # noqa: S311 - spreads load
        self._observer = observer
        self._fetcher = TokenFetcher(store, observer, self._pacing, self._times)
        self._slots = {
            key: _CredentialState(key, each, self._policy) for key, each in sources.items()
        }
        self._closed = False
        self._renewing = True

    async def start(self, kept: Mapping[str, AccessToken] | None = None) -> None:
        """Begin to fetch every credential's token; does not wait for the SSO.

        `kept` are valid tokens, by credential, that are at hand already: they are used, and renewed
        in time.
        """
        for name, slot in self._slots.items():
            token = kept.get(name) if kept is not None else None
            if token is None:
                self._start_fetch(slot)
                continue
            now = self._clock()
            self._install(slot, token, now)
            self._schedule(slot, self._pacing.refresh_delay(token, now))

    def stop_renewing(self) -> None:
        """Another object has taken over: fetch only what a request still needs."""
        self._renewing = False
        for slot in self._slots.values():
            if slot.timer is not None:
                slot.timer.cancel()
            slot.timer = slot.next_attempt = None

    async def close(self) -> None:
        """End all fetches and timers; requests that still wait get `shutting-down`."""
        self._closed = True
        flights = []
        for slot in self._slots.values():
            if slot.timer is not None:
                slot.timer.cancel()
            if slot.fetch_task is not None:
                slot.fetch_task.cancel()
                flights.append(slot.fetch_task)
        await asyncio.gather(*flights, return_exceptions=True)

    def current(self, credential: str) -> AccessToken | None:
        """The token to use now, never an expired one; None if `wait_for_token` must be awaited."""
        token = self._slots[credential].token
        if token is not None and self._clock() < token.usable_until:
            return token
        return None

    async def wait_for_token(self, credential: str) -> AccessToken:
        """The token to use now; waits for one at most `wait_timeout` seconds.

        Raises `token-refused` or `sso-unavailable`, at once while a failure is remembered.
        """
        token = self.current(credential)
        return token if token is not None else await self._await_fetch(self._slots[credential])

    async def replace_rejected(self, credential: str, rejected: AccessToken) -> AccessToken:
        """Another token than `rejected`, which the platform has answered with 401.

        Raises `token-rejected` when there is none to be had or forced fetches pause, and what
        `wait_for_token` raises.
        """
        slot = self._slots[credential]
        self._discard_rejected(slot, rejected, spare=True)
        if slot.rejections.is_paused(self._clock()):
            raise _rejected("fresh tokens were refused before; none is fetched for a moment")
        token = self.current(credential)
        if token is None or token == rejected:
            token = await self._await_fetch(slot)
        if token == rejected:
            raise _rejected("the SSO gave the token again that the platform refuses")
        return token

    def on_fresh_token_rejected(self, credential: str, token: AccessToken) -> None:
        """The platform refused the token of `replace_rejected` too: forced fetches pause."""
        slot = self._slots[credential]
        slot.rejections.on_fresh_token_rejected(self._clock())
        _log.warning(
            "credential %s: the platform refused a fresh token",
            credential,
            credential=credential,
            reason=TOKEN_REJECTED.code,
        )

    def on_token_accepted(self, credential: str, token: AccessToken) -> None:
        """The platform took `token`."""
        slot = self._slots[credential]
        if token is slot.token or token == slot.token:
            slot.rejections.on_token_accepted(self._clock())

    def invalidate(self, credential: str, token: AccessToken) -> None:
        """The platform refused `token` and the request cannot be repeated: the next gets another.

        Counts as a forced fetch: nothing is dropped while these pause or keep their distance.
        """
        slot = self._slots[credential]
        self._discard_rejected(slot, token, spare=False)
        given_up = slot.token is None or slot.token == slot.discarded
        if given_up and not self._closed and not self._is_in_backoff(slot):
            self._start_fetch(slot)

    def fetch_now(self, credential: str) -> None:
        """Ask the SSO at once, whatever failed before: the secret was changed."""
        slot = self._slots[credential]
        slot.failure = None
        slot.retry_at_once = slot.fetch_task is not None
        if not self._closed:
            self._start_fetch(slot)

    def token_states(self) -> Mapping[str, TokenState]:
        """How each credential fares, by name."""
        now = self._clock()
        return {name: self._state(slot, now) for name, slot in self._slots.items()}

    def _state(self, slot: _CredentialState, now: float) -> TokenState:
        token = self.current(slot.credential)
        failure = slot.failure.error if slot.failure is not None else None
        return TokenState(
            is_valid=token is not None,
            expires_in=token.expires_at - now if token is not None else None,
            failure=failure.kind if failure is not None else None,
            cause=failure.cause if failure is not None else None,
            status=failure.status if failure is not None else None,
            oauth_error=failure.oauth_error if failure is not None else None,
            next_attempt_in=max(0.0, slot.next_attempt - now) if slot.next_attempt else None,
            is_fetching=slot.fetch_task is not None and slot.next_attempt is None,
            is_rejected=slot.rejections.is_paused(now),
            uses_previous_secret=slot.source.uses_previous_secret,
            description=failure.description if failure is not None else "",
        )

    def _discard_rejected(
        self, slot: _CredentialState, rejected: AccessToken, *, spare: bool
    ) -> None:
        """Discard `rejected` if it is the token in use, unless fetching another is no use now.

        It stays in use until its successor is there where that takes time, and with `spare` also
        where the platform has just accepted it from others.
        """
        now = self._clock()
        rejections = slot.rejections
        if slot.token != rejected or rejections.is_paused(now):
            return
        if rejections.suspect_token == rejected:
            self.on_fresh_token_rejected(slot.credential, rejected)
            return
        slot.discarded = rejected
        if rejections.seconds_until_forced_fetch(now) or (
            spare and rejections.was_recently_accepted(now)
        ):
            return
        slot.token = None
        self._observer.on_token_expiry(slot.credential, 0.0)

    def _is_in_backoff(self, slot: _CredentialState) -> bool:
        return slot.failure is not None and self._clock() < slot.failure.until

    async def _await_fetch(self, slot: _CredentialState) -> AccessToken:
        """Wait for the flight under way, or for a new one; a leaving waiter does not end it."""
        if slot.fetch_task is None and slot.failure is not None and self._is_in_backoff(slot):
            raise self._failed(slot, slot.failure)
        flight = self._start_fetch(slot)
        begins_in = max(0.0, (slot.next_attempt or 0.0) - self._clock())
        self._count_waiter(slot, 1)
        try:
            await asyncio.wait({flight}, timeout=begins_in + self._policy.wait_timeout)
        finally:
            self._count_waiter(slot, -1)
        if not flight.done():
            waited = f"no token within {self._policy.wait_timeout:g} s"
            raise GatewayError(SSO_UNAVAILABLE, detail=waited, retry_after=1.0)
        if flight.cancelled():
            raise GatewayError(SHUTTING_DOWN, close_connection=True)
        outcome = flight.result()
        now = self._clock()
        if isinstance(outcome, FailureState):
            raise self._failed(slot, outcome)
        if now >= outcome.usable_until:
            expired = "the token expired while the request waited for it"
            raise GatewayError(SSO_UNAVAILABLE, detail=expired, retry_after=1.0)
        return outcome

    def _failed(self, slot: _CredentialState, failure: FailureState) -> GatewayError:
        return failure.gateway_error(self._clock(), self._explain(slot, failure.error))

    def _explain(self, slot: _CredentialState, error: TokenRequestError) -> str:
        policy = self._policy
        return failure_text(
            error, slot.credential, SsoRoute(policy.url, policy.wait_timeout, policy.proxy_url)
        )

    def _count_waiter(self, slot: _CredentialState, change: int) -> None:
        slot.waiters += change
        self._observer.on_waiters_changed(slot.credential, slot.waiters)

    def _start_fetch(self, slot: _CredentialState) -> asyncio.Task[AccessToken | FailureState]:
        """The flight under way, or a new one."""
        if self._closed:
            raise GatewayError(SHUTTING_DOWN, close_connection=True)
        if slot.fetch_task is None:
            if slot.timer is not None:
                slot.timer.cancel()
            now = self._clock()
            # Where there is no token any more, nothing is forced: one is needed.
            forced = slot.token is not None and slot.token == slot.discarded
            wait = slot.rejections.seconds_until_forced_fetch(now) if forced else 0.0
            slot.timer, slot.next_attempt = None, now + wait if wait else None
            slot.fetch_task = asyncio.get_running_loop().create_task(self._run_fetch(slot, wait))
        return slot.fetch_task

    async def _run_fetch(self, slot: _CredentialState, wait: float) -> AccessToken | FailureState:
        outcome: AccessToken | TokenRequestError
        try:
            if wait:
                await self._times.sleep(wait)
                slot.next_attempt = None
            if slot.discarded is not None:
                slot.rejections.on_forced_fetch(self._clock())
            outcome = await self._fetcher.fetch(
                slot.credential, slot.source, lambda: (slot.token, slot.discarded)
            )
        except TokenRequestError as error:
            outcome = error
        except Exception as error:  # a bug must not end the renewals; its text may hold anything
            _log.error(
                "credential %s: fetch broke: %s",
                slot.credential,
                type(error).__name__,
                credential=slot.credential,
                reason=INTERNAL.code,
            )
            outcome = TokenRequestError("transient", "internal error")
        finally:
            slot.fetch_task = None
        return self._finish_fetch(slot, outcome)

    def _finish_fetch(
        self, slot: _CredentialState, outcome: AccessToken | TokenRequestError
    ) -> AccessToken | FailureState:
        now = self._clock()
        if isinstance(outcome, AccessToken):
            self._install(slot, outcome, now)
            self._schedule(slot, self._pacing.refresh_delay(outcome, now))
            return outcome
        count = slot.failure.count + 1 if slot.failure is not None else 1
        remaining = slot.token.usable_until - now if slot.token is not None else 0.0
        pause = self._pacing.retry_delay(outcome, count, remaining)
        if slot.retry_at_once:
            pause, slot.retry_at_once = 0.0, False
        slot.failure = FailureState(outcome, now + pause, count)
        self._schedule(slot, pause)
        _log.warning(
            "credential %s: %s; asking again in %s",
            slot.credential,
            self._explain(slot, outcome),
            format_duration(pause),
            credential=slot.credential,
            reason=slot.failure.reason.code,
        )
        return slot.failure

    def _install(self, slot: _CredentialState, token: AccessToken, now: float) -> None:
        if token != slot.token:
            slot.rejections.on_token_replaced()
        slot.token, slot.failure, slot.retry_at_once = token, None, False
        if slot.discarded is not None:
            if token == slot.discarded:
                # Kept all the same: the platform may have changed its mind, and there is no other.
                slot.rejections.on_fresh_token_rejected(now)
            else:
                slot.rejections.suspect_token = token
            slot.discarded = None
        self._observer.on_token_expiry(slot.credential, token.wall_expiry)

    def _schedule(self, slot: _CredentialState, delay: float) -> None:
        if not self._renewing:
            return
        slot.next_attempt = self._clock() + delay
        slot.timer = self._times.call_later(delay, lambda: self._start_fetch(slot))


def _rejected(detail: str) -> GatewayError:
    # Nothing was sent now, but it is the platform's 401 that stands in the way.
    return GatewayError(TOKEN_REJECTED, detail=detail, upstream_status=401)
