"""Delays until the next token request, and what a request that waits for one gets."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from gateway.clock import backoff
from gateway.errors import (
    SHUTTING_DOWN,
    SSO_UNAVAILABLE,
    TOKEN_REFUSED,
    TOKEN_REJECTED,
    GatewayError,
    Reason,
)
from gateway.oauth.token_failures import NOT_THE_SSO, UNKNOWN_CODE
from gateway.oauth.token_response import AccessToken, TokenRequestError

_T = TypeVar("_T")

_CHECK_ALL = "client_id, client secret or private key, sso.token_url"
# What the operator has to check, by the error code of RFC 6749 section 5.2. Some servers respond to
# a wrong secret with unauthorized_client.
_TO_CHECK = {
    "invalid_client": "client_id, auth_method, client secret or private key",
    "unauthorized_client": "client secret; whether the client may use client_credentials",
    "invalid_scope": "scope",
    "unsupported_grant_type": "sso.token_url",
    "invalid_request": "extra_params, auth_method, sso.token_url",
}


# A token is refreshed at a random time between these shares of its lifetime: tokens that were
# fetched together are not refreshed together, and some time is left for further attempts.
_REFRESH_FROM: Final = 0.6
_REFRESH_TO: Final = 0.9
# Seconds, as are all that follow.
_MIN_REFRESH_DELAY: Final = 0.5
# The first and the longest delay after failures. While a token is still valid, the delay is also
# limited by half of its remaining lifetime, but not below `_MIN_URGENT_DELAY`.
_FIRST_RETRY_DELAY: Final = 1.0
_MAX_RETRY_DELAY: Final = 30.0
_MIN_URGENT_DELAY: Final = 0.2
_REFUSED_DELAY: Final = 60.0
# The first and the longest pause of forced fetches.
_REJECTION_PAUSE: Final = 1.0
_MAX_REJECTION_PAUSE: Final = 30.0


@dataclass(frozen=True, slots=True)
class FailureState:
    """A failed attempt, whose backoff ends at `until` (monotonic).

    `count` is the number of attempts that have failed in a row, since the token's end if it has
    ended: those before it follow each other closely. `had_token`: it had not.
    """

    error: TokenRequestError
    until: float
    count: int
    had_token: bool = False

    @property
    def reason(self) -> Reason:
        """The reason with which requests that need the token fail."""
        return TOKEN_REFUSED if self.error.kind == "refused" else SSO_UNAVAILABLE

    def gateway_error(self, now: float, detail: str) -> GatewayError:
        """Return a new error for a request that needs the token.

        `now` is monotonic, `detail` is the text for the log. `retry_after` of the error is the rest
        of the backoff, at least 1 s; a refusal has none.
        """
        error = self.error
        reported = error.cause if error.status is None else f"status {error.status}"
        if error.cause in ("no OAuth error", "web page"):
            reported += f", {NOT_THE_SSO}"
            if error.may_be_wrong_client:
                reported += ", or a wrong client_id or secret, which some SSOs refuse in this way"
        if error.oauth_error is not None:
            known = error.oauth_error != "other"
            reported += f", error {error.oauth_error}" if known else f", {UNKNOWN_CODE}"
        if error.kind == "refused":
            check = _TO_CHECK.get(error.oauth_error or "", _CHECK_ALL)
            return GatewayError(
                self.reason, detail=detail, hint=f"SSO: {reported}; to check: {check}"
            )
        return GatewayError(
            self.reason,
            detail=detail,
            hint=f"SSO: {reported}",
            retry_after=max(1.0, self.until - now),
        )


def refresh_time(token: AccessToken, position: float) -> float:
    """Return the monotonic time at which `token` is refreshed.

    `position`, from 0 to 1, is that between the earliest and the latest time.
    """
    share = _REFRESH_FROM + (_REFRESH_TO - _REFRESH_FROM) * position
    return token.received_at + share * token.lifetime


def refresh_delay(token: AccessToken, now: float, random: Callable[[], float]) -> float:
    """Return the seconds from `now` (monotonic) until `token` should be refreshed.

    `random` returns numbers from 0 to 1, here and below.
    """
    # Where a reload comes late in the life of the tokens, what is left is divided.
    earliest, latest = (max(refresh_time(token, position), now) for position in (0.0, 1.0))
    return max(earliest + (latest - earliest) * random() - now, _MIN_REFRESH_DELAY)


def retry_delay(
    error: TokenRequestError, count: int, remaining: float, random: Callable[[], float]
) -> float:
    """Return the seconds until the next attempt, after `count` failures in a row.

    `remaining` is how long the present token is still usable, in seconds, 0 or less without one.
    While a token is usable, the next attempt should come before its expiry; without one the normal
    backoff applies.
    """
    if error.kind == "refused":
        return _REFUSED_DELAY * (1.0 + 0.1 * random())
    pause = backoff(count, _FIRST_RETRY_DELAY, _MAX_RETRY_DELAY, random)
    if error.kind == "throttled":
        named = error.retry_after if error.retry_after is not None else pause
        return max(1.0, named) * (1.0 + 0.1 * random())
    if remaining > 0:
        pause = min(pause, max(remaining / 2, _MIN_URGENT_DELAY))
    return max(pause, min(error.retry_after or 0.0, _MAX_RETRY_DELAY))


class RejectionState:
    """Limits forced fetches, that is token requests caused by a 401 of the platform.

    It prevents 401s from causing a token request each, and from discarding a token that works for
    other requests. `suspect_token` is a token that was fetched because its predecessor was
    rejected, and that the platform has not accepted yet. If it is rejected too, forced fetches
    pause. An accepted token ends the pause, but `_REJECTION_PAUSE` remains the minimum interval
    between forced fetches: a caller whose requests get a 401 with any token would otherwise cause
    one for each request.
    """

    __slots__ = ("_accepted_at", "_forced_at", "_pause", "_until", "suspect_token")

    def __init__(self) -> None:
        self._pause = 0.0
        self._until = 0.0
        self._forced_at = -math.inf
        self._accepted_at = -math.inf
        self.suspect_token: AccessToken | None = None

    def is_paused(self, now: float) -> bool:
        """Return whether forced fetches are paused at the monotonic time `now`."""
        return self._pause > 0 and now < self._until

    def on_fresh_token_rejected(self, now: float) -> bool:
        """Start a pause, twice as long as the one before, because a fresh token was rejected.

        Return False in a pause that another request has started.
        """
        if self.is_paused(now):
            return False
        self._pause = min(max(2 * self._pause, _REJECTION_PAUSE), _MAX_REJECTION_PAUSE)
        self._until = now + self._pause
        self.suspect_token = None
        return True

    def on_token_accepted(self, now: float) -> None:
        """End the pause, because the platform accepted the token in use."""
        self._pause = 0.0
        self.suspect_token = None
        self._accepted_at = now

    def on_forced_fetch(self, now: float) -> None:
        """Note the start of a forced fetch at the monotonic time `now`."""
        self._forced_at = now

    def on_token_replaced(self) -> None:
        """Forget the last acceptance: it is unknown whether the platform accepts the new token."""
        self._accepted_at = -math.inf

    def seconds_until_forced_fetch(self, now: float) -> float:
        """Return the seconds until the next forced fetch may start, 0 if it may start now."""
        return max(0.0, self._forced_at + _REJECTION_PAUSE - now)

    @property
    def has_been_accepted(self) -> bool:
        """Whether the platform accepted the token in use."""
        return self._accepted_at > -math.inf

    def was_recently_accepted(self, now: float) -> bool:
        """Return whether the platform accepted the token in use during the last `_REJECTION_PAUSE`.

        A 401 may then be caused by the request and not by the token; other requests go on using the
        token until its successor is installed.
        """
        return now < self._accepted_at + _REJECTION_PAUSE


async def wait_for_fetch(task: asyncio.Task[_T], timeout: float, late: str) -> _T:
    """Return the result of a fetch of tokens, which goes on if its waiter is cancelled.

    Raises `GatewayError` sso-unavailable with the detail `late` after `timeout` seconds, and
    shutting-down if the fetch was cancelled.
    """
    await asyncio.wait({task}, timeout=timeout)
    if not task.done():
        raise GatewayError(SSO_UNAVAILABLE, late, retry_after=1.0)
    if task.cancelled():
        raise GatewayError(SHUTTING_DOWN, close_connection=True)
    return task.result()


def rejected_error(detail: str) -> GatewayError:
    """Return the error for a request for which there is no token that the platform accepts."""
    # No request was sent now, but the cause is an earlier 401 of the platform.
    return GatewayError(TOKEN_REJECTED, detail, upstream_status=401)
