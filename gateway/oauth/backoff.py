"""How long to wait until the SSO is asked again: before expiry, after failures and rejections."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from gateway.errors import SSO_UNAVAILABLE, TOKEN_REFUSED, GatewayError, Reason
from gateway.oauth.error_messages import NOT_THE_SSO, UNKNOWN_CODE
from gateway.oauth.token import AccessToken
from gateway.oauth.token_response import TokenRequestError
from gateway.timing import backoff

_ANY = "client_id, client secret or private key, sso.token_url"
# By the code of RFC 6749 section 5.2. Some servers say unauthorized_client to a wrong secret.
_TO_CHECK = {
    "invalid_client": "client_id, auth_method, client secret or private key",
    "unauthorized_client": "client secret; whether the client may use client_credentials",
    "invalid_scope": "scope",
    "unsupported_grant_type": "sso.token_url",
    "invalid_request": "extra_params, auth_method, sso.token_url",
}


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """The times of a token's life, in seconds.

    `wait_timeout` is how long a request waits for a token. A token is renewed when between
    `refresh_from` and `refresh_to` (shares) of its lifetime have passed, which leaves the rest for
    further attempts. `store_timeout` bounds every access to the store. `url` and `proxy_url` name
    the SSO in texts.
    """

    wait_timeout: float = 10.0
    url: str = ""
    proxy_url: str | None = None
    refresh_from: float = 0.7
    refresh_to: float = 0.8
    min_refresh_interval: float = 0.5
    backoff: float = 1.0
    max_backoff: float = 30.0
    urgent_backoff: float = 0.2
    refused_pause: float = 60.0
    rejection_pause: float = 1.0
    max_rejection_pause: float = 30.0
    store_timeout: float = 0.25

    @property
    def replica_wait(self) -> float:
        """How long to wait for a replica that asks the SSO, and have time to ask ourselves."""
        return self.wait_timeout / 2


@dataclass(frozen=True, slots=True)
class FailureState:
    """A failed attempt, remembered until `until` (monotonic); `count` attempts failed in a row."""

    error: TokenRequestError
    until: float
    count: int

    @property
    def reason(self) -> Reason:
        """What a request that needs the token fails with."""
        return TOKEN_REFUSED if self.error.kind == "refused" else SSO_UNAVAILABLE

    def gateway_error(self, now: float, detail: str) -> GatewayError:
        """What a request gets that needed the token; a new object each time.

        `detail` is what the log says of it.
        """
        error = self.error
        reported = error.cause if error.status is None else f"status {error.status}"
        if error.cause in ("no OAuth error", "web page"):
            reported += f", {NOT_THE_SSO}"
        if error.oauth_error is not None:
            known = error.oauth_error != "other"
            reported += f", error {error.oauth_error}" if known else f", {UNKNOWN_CODE}"
        if error.kind == "refused":
            check = _TO_CHECK.get(error.oauth_error or "", _ANY)
            hint = f"SSO: {reported}; to check: {check}"
            return GatewayError(self.reason, detail=detail, hint=hint)
        return GatewayError(
            self.reason,
            detail=detail,
            hint=f"SSO: {reported}",
            retry_after=max(1.0, self.until - now),
        )


class RefreshSchedule:
    """Turns the policy into moments, spread by `rng` so that many gateways do not act as one."""

    def __init__(self, policy: TokenPolicy, rng: random.Random) -> None:
        self.policy = policy
        self._rng = rng

    def refresh_delay(self, token: AccessToken, now: float) -> float:
        """Seconds from `now` until `token` should be renewed."""
        share = self._rng.uniform(self.policy.refresh_from, self.policy.refresh_to)
        due = token.received_at + share * token.lifetime
        return max(due - now, self.policy.min_refresh_interval)

    def is_due(self, token: AccessToken, now: float) -> bool:
        """Whether `token` is so old that it could be due for renewal."""
        return now >= token.received_at + self.policy.refresh_from * token.lifetime

    def retry_delay(self, error: TokenRequestError, count: int, remaining: float) -> float:
        """Seconds until the next attempt, after `count` failures in a row.

        `remaining` is what the present token still has to live: nothing must be hurried without
        one, but while there is one, the next attempt should come before its end.
        """
        policy = self.policy
        if error.kind == "refused":
            return policy.refused_pause * self._rng.uniform(1.0, 1.1)
        pause = backoff(count, policy.backoff, policy.max_backoff, self._rng.random)
        if error.kind == "throttled":
            named = error.retry_after if error.retry_after is not None else pause
            return max(1.0, named) * self._rng.uniform(1.0, 1.1)
        if remaining > 0:
            pause = min(pause, max(remaining / 2, policy.urgent_backoff))
        return max(pause, min(error.retry_after or 0.0, policy.max_backoff))


class RejectionState:
    """Keeps 401s from driving requests to the SSO, and from taking everybody's token away.

    `suspect_token` is a token that was fetched because its predecessor was rejected, and that the
    platform has not accepted yet. If it is rejected too, forced fetches pause. What the platform
    accepts ends a pause, but forced fetches keep their distance all the same: a caller whose
    request is answered with 401 whatever the token would otherwise cause one for each request.
    """

    __slots__ = ("_accepted_at", "_forced_at", "_pause", "_policy", "_until", "suspect_token")

    def __init__(self, policy: TokenPolicy) -> None:
        self._policy = policy
        self._pause = 0.0
        self._until = 0.0
        self._forced_at = -math.inf
        self._accepted_at = -math.inf
        self.suspect_token: AccessToken | None = None

    def is_paused(self, now: float) -> bool:
        """Whether forced fetches pause at the monotonic time `now`."""
        return self._pause > 0 and now < self._until

    def on_fresh_token_rejected(self, now: float) -> None:
        """A fresh token was rejected: begin a pause, twice as long as the one before."""
        if self.is_paused(now):
            return
        policy = self._policy
        longer = max(2 * self._pause, policy.rejection_pause)
        self._pause = min(longer, policy.max_rejection_pause)
        self._until = now + self._pause
        self.suspect_token = None

    def on_token_accepted(self, now: float) -> None:
        """The platform took the token in use: no pause any longer."""
        self._pause = 0.0
        self.suspect_token = None
        self._accepted_at = now

    def on_forced_fetch(self, now: float) -> None:
        """A forced fetch begins."""
        self._forced_at = now

    def on_token_replaced(self) -> None:
        """Another token is in use, of which nothing is known yet."""
        self._accepted_at = -math.inf

    def seconds_until_forced_fetch(self, now: float) -> float:
        """Seconds until another forced fetch may begin; 0 for at once."""
        return max(0.0, self._forced_at + self._policy.rejection_pause - now)

    def was_recently_accepted(self, now: float) -> bool:
        """Whether the token in use was good a moment ago, so that a 401 may be about the request.

        Then others go on with it until its successor is there.
        """
        return now < self._accepted_at + self._policy.rejection_pause
