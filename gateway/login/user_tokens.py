"""Provides the tokens of signed-in users, beside those of the gateway's credentials.

A user's token is renewed before its expiry, by the requests that use it. While the SSO is
unreachable, a token is used until it expires. If the SSO refuses the refresh token
(`invalid_grant`), the session ends, and the user has to sign in again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import (
    CALLER_UNAUTHENTICATED,
    SHUTTING_DOWN,
    SSO_UNAVAILABLE,
    TOKEN_REJECTED,
    GatewayError,
)
from gateway.login.renewal import MAX_PAUSE, SessionRenewals
from gateway.login.session import Session, UserCredential
from gateway.login.sessions import SessionManager
from gateway.login.user_grants import UserTokenEndpoint
from gateway.oauth.token import AccessToken
from gateway.pipeline.attempts import TokenProvider
from gateway.timing import backoff

# A renewal starts when this share of the lifetime is left, but at most this many seconds before the
# expiry.
_RENEW_AHEAD_SHARE: Final = 0.25
_MAX_RENEW_AHEAD: Final = 60.0


async def _discard(_session: Session) -> None:
    """Discard tokens that arrived after their session ended and cannot be revoked."""


@dataclass(frozen=True, slots=True)
class RenewalPolicy:
    """Settings and callbacks for renewals.

    `wait_timeout` is how long a request waits for a token, in seconds. `challenge` are the fields
    of a 401. `on_end` is called with each session that ends because its token cannot be renewed,
    and the reason. `on_orphan` is called with a session that had ended when new tokens for it
    arrived. `sessions_persist`: sessions outlive this process, because the store is shared.
    """

    wait_timeout: float
    challenge: tuple[tuple[str, str], ...] = ()
    on_end: Callable[[Session, str], None] = lambda _session, _why: None
    on_orphan: Callable[[Session], Coroutine[Any, Any, None]] = _discard
    sessions_persist: bool = False


class UserTokenProvider:
    """Provides tokens as `TokenManager` does; a `UserCredential` stands for its session's token.

    All other credentials are passed to `credential_tokens`. `clock` is monotonic.
    """

    def __init__(
        self,
        credential_tokens: TokenProvider,
        endpoint: UserTokenEndpoint,
        sessions: SessionManager,
        policy: RenewalPolicy,
        clock: Callable[[], float],
    ) -> None:
        self._credential_tokens = credential_tokens
        self._clock = clock
        self._wait_timeout = policy.wait_timeout
        self._challenge = policy.challenge
        self._renewals = SessionRenewals(
            endpoint,
            sessions,
            clock,
            on_end=policy.on_end,
            on_orphan=policy.on_orphan,
            sessions_persist=policy.sessions_persist,
        )

    def current(self, credential: str) -> AccessToken | None:
        """Return the token to use now, or None if `wait_for_token` must be awaited.

        Starts a renewal if the token expires soon.
        """
        if not isinstance(credential, UserCredential):
            return self._credential_tokens.current(credential)
        session = credential.session
        state = self._renewals.state_of(session)
        if state.unsaved is not None:
            session.update_from(state.unsaved)
        if not self._renewals.has_usable_token(session):
            return None
        token, now = session.token, self._clock()
        ahead = min(_RENEW_AHEAD_SHARE * token.lifetime, _MAX_RENEW_AHEAD)
        if now >= token.expires_at - ahead and now >= state.not_before:
            self._renewals.start_renewal(session)
        return token

    async def wait_for_token(self, credential: str) -> AccessToken:
        """Return the token to use now, waiting for a renewal if there is no usable one.

        Raises `GatewayError` caller-unauthenticated, sso-unavailable, token-rejected or
        shutting-down.
        """
        if not isinstance(credential, UserCredential):
            return await self._credential_tokens.wait_for_token(credential)
        session = credential.session
        if not self._renewals.has_usable_token(session):
            await self._renewed(session)
        return session.token

    async def replace_rejected(self, credential: str, rejected: AccessToken) -> AccessToken:
        """Return another token than `rejected`, to which the platform responded with 401.

        Raises `GatewayError` caller-unauthenticated if the user has to sign in again,
        token-rejected if fresh tokens were rejected just before, and the other errors of
        `wait_for_token`.
        """
        if not isinstance(credential, UserCredential):
            return await self._credential_tokens.replace_rejected(credential, rejected)
        session = credential.session
        if session.token == rejected:
            state = self._renewals.state_of(session)
            state.rejected = rejected
            if self._clock() < state.pause_until:
                raise _rejected("the platform refused this user's fresh tokens just before")
            await self._renewed(session)
        return session.token

    def invalidate(self, credential: str, token: AccessToken) -> None:
        """Called when the platform rejected `token` and the request is not retryable.

        The next request of the session gets another token.
        """
        if not isinstance(credential, UserCredential):
            self._credential_tokens.invalidate(credential, token)
        elif credential.session.token == token:
            self._renewals.state_of(credential.session).rejected = token

    def on_fresh_token_rejected(self, credential: str, token: AccessToken) -> None:
        """Called when the platform rejected a fresh token too. Pauses renewals caused by a 401."""
        if not isinstance(credential, UserCredential):
            self._credential_tokens.on_fresh_token_rejected(credential, token)
            return
        state = self._renewals.state_of(credential.session)
        state.refusals += 1
        state.pause_until = self._clock() + backoff(state.refusals, 1.0, MAX_PAUSE)

    def on_token_accepted(self, credential: str, token: AccessToken) -> None:
        """Called when the platform accepted `token`. Ends a pause of renewals caused by a 401."""
        if not isinstance(credential, UserCredential):
            self._credential_tokens.on_token_accepted(credential, token)
            return
        state = self._renewals.state_of(credential.session)
        state.refusals, state.pause_until, state.was_accepted = 0, 0.0, True

    def was_accepted(self, session: Session) -> bool:
        """Return whether the platform accepted a token of the session in this process."""
        return self._renewals.state_of(session).was_accepted

    async def finish(self) -> None:
        """Wait for the renewals in progress: a refresh token for single use must not be lost."""
        await self._renewals.finish()

    async def close(self) -> None:
        """Cancel all renewals, after a short wait if sessions outlive this process."""
        await self._renewals.close()

    async def _renewed(self, session: Session) -> None:
        """Return when a renewal has given the session a usable token. Raises `GatewayError`."""
        state = self._renewals.state_of(session)
        wait = state.not_before - self._clock()
        if state.task is None and wait > 0 and not session.is_ended:
            raise _unavailable("the SSO gave no new token just before", wait)
        task = self._renewals.start_renewal(session)
        if task is None:
            await self._renewals.end(session, "expired")
            raise self._sign_in_again()
        await asyncio.wait({task}, timeout=self._wait_timeout)
        if not task.done():
            raise _unavailable(f"no new token within {self._wait_timeout:g} s", 1.0)
        if task.cancelled():
            raise GatewayError(SHUTTING_DOWN, close_connection=True)
        session.update_from(task.result())
        if session.is_ended:
            raise self._sign_in_again()
        if self._renewals.has_usable_token(session):
            return
        if session.token == state.rejected and not state.failures:
            raise _rejected("the SSO gave the token again that the platform refuses")
        wait = max(1.0, state.not_before - self._clock())
        raise _unavailable("the SSO gave no new token", wait)

    def _sign_in_again(self) -> GatewayError:
        return GatewayError(CALLER_UNAUTHENTICATED, "the sign-in is over", headers=self._challenge)


def _unavailable(detail: str, wait: float) -> GatewayError:
    return GatewayError(SSO_UNAVAILABLE, detail, retry_after=wait)


def _rejected(detail: str) -> GatewayError:
    return GatewayError(TOKEN_REJECTED, detail, upstream_status=401)
