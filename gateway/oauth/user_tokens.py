"""The tokens of people who signed in, beside those of the gateway's own credentials.

Renewed ahead of their end by the requests that use them, one renewal of a session at a time. While
the SSO is away a token is used for as long as it lives; a renewal that the SSO refuses ends the
session, for then the person has to sign in again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.errors import (
    CALLER_UNAUTHENTICATED,
    SHUTTING_DOWN,
    SSO_UNAVAILABLE,
    TOKEN_REJECTED,
    GatewayError,
)
from gateway.oauth.sessions import Session, Sessions, UserCredential
from gateway.oauth.token import Token
from gateway.oauth.token_response import TokenRequestError
from gateway.oauth.user_grants import UserEndpoint

_log = logging.getLogger(__name__)

# Renewal begins when so much of the lifetime is left, but not earlier than that many seconds.
_AHEAD_SHARE: Final = 0.25
_AHEAD_MOST: Final = 60.0
_LONGEST_PAUSE: Final = 30.0
# Mistakes of the client, not of the person: they end no session before its token does.
_THE_CLIENTS: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)


class CredentialTokens(Protocol):
    """What is needed of `gateway.oauth.tokens.Tokens`."""

    def current(self, credential: str) -> Token | None: ...  # noqa: D102
    async def obtain(self, credential: str) -> Token: ...  # noqa: D102
    async def replace(self, credential: str, rejected: Token) -> Token: ...  # noqa: D102
    def drop(self, credential: str, token: Token) -> None: ...  # noqa: D102
    def rejected_again(self, credential: str, token: Token) -> None: ...  # noqa: D102
    def accepted(self, credential: str, token: Token) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class RenewalManners:
    """How long a request waits, in seconds; the fields of a 401; who is told of a session's end."""

    wait_timeout: float
    challenge: tuple[tuple[str, str], ...] = ()
    on_end: Callable[[Session, str], None] = lambda _session, _why: None


class UserTokens:
    """In the place of `Tokens`: a `UserCredential` means its session's token."""

    def __init__(
        self,
        others: CredentialTokens,
        endpoint: UserEndpoint,
        sessions: Sessions,
        manners: RenewalManners,
        clock: Callable[[], float],
    ) -> None:
        self._others = others
        self._endpoint = endpoint
        self._sessions = sessions
        self._clock = clock
        self._wait_timeout = manners.wait_timeout
        self._challenge = manners.challenge
        self._on_end = manners.on_end
        self._flights: set[asyncio.Task[None]] = set()
        self._closed = False

    def current(self, credential: str) -> Token | None:
        """The token to use now, or None if `obtain` must be awaited."""
        if not isinstance(credential, UserCredential):
            return self._others.current(credential)
        session = credential.session
        now = self._clock()
        if not self._usable(session, now):
            return None
        token = session.token
        ahead = min(_AHEAD_SHARE * token.lifetime, _AHEAD_MOST)
        if now >= token.expires_at - ahead and now >= session.renew_from:
            self._launch(session)
        return token

    async def obtain(self, credential: str) -> Token:
        """The token to use now. Raises caller-unauthenticated or sso-unavailable."""
        if not isinstance(credential, UserCredential):
            return await self._others.obtain(credential)
        session = credential.session
        if not self._usable(session, self._clock()):
            await self._renewed(session)
        return session.token

    async def replace(self, credential: str, rejected: Token) -> Token:
        """Another token than the one that the platform answered with 401.

        Raises caller-unauthenticated where there is none to be had without the person, and
        token-rejected where fresh tokens were refused just before.
        """
        if not isinstance(credential, UserCredential):
            return await self._others.replace(credential, rejected)
        session = credential.session
        if session.token == rejected:
            session.rejected = rejected
            if self._clock() < session.pause_until:
                raise _rejected("the platform refused this user's fresh tokens just before")
            await self._renewed(session)
        return session.token

    def drop(self, credential: str, token: Token) -> None:
        """The platform refused `token` and the request cannot be repeated."""
        if not isinstance(credential, UserCredential):
            self._others.drop(credential, token)
        elif credential.session.token == token:
            credential.session.rejected = token

    def rejected_again(self, credential: str, token: Token) -> None:
        """The platform refused a fresh token too: renewals that it forces pause."""
        if not isinstance(credential, UserCredential):
            self._others.rejected_again(credential, token)
            return
        session = credential.session
        session.pause_until = self._clock() + _pause(session.refusals)
        session.refusals += 1

    def accepted(self, credential: str, token: Token) -> None:
        """The platform took `token`."""
        if not isinstance(credential, UserCredential):
            self._others.accepted(credential, token)
            return
        credential.session.refusals, credential.session.pause_until = 0, 0.0

    async def finish(self) -> None:
        """Wait for the renewals under way: a refresh token that works once must not be lost."""
        await asyncio.gather(*self._flights, return_exceptions=True)

    async def close(self) -> None:
        """End all renewals."""
        self._closed = True
        for flight in self._flights:
            flight.cancel()
        await asyncio.gather(*self._flights, return_exceptions=True)

    @staticmethod
    def _usable(session: Session, now: float) -> bool:
        token = session.token
        return not session.ended and now < token.usable_until and token != session.rejected

    async def _renewed(self, session: Session) -> None:
        """Return when the session has another token. Raises `GatewayError`."""
        wait = session.renew_from - self._clock()
        if session.flight is None and wait > 0 and not session.ended:
            raise _unavailable("the SSO gave no new token just before", wait)
        flight = self._launch(session)
        if flight is None:
            await self._end(session, "expired")
            raise self._sign_in_again()
        await asyncio.wait({flight}, timeout=self._wait_timeout)
        if not flight.done():
            raise _unavailable(f"no new token within {self._wait_timeout:g} s", 1.0)
        if flight.cancelled():
            raise GatewayError(SHUTTING_DOWN, close=True)
        if session.ended:
            raise self._sign_in_again()
        if self._usable(session, self._clock()):
            return
        if session.token == session.rejected and not session.failures:
            raise _rejected("the SSO gave the token again that the platform refuses")
        wait = max(1.0, session.renew_from - self._clock())
        raise _unavailable("the SSO gave no new token", wait)

    def _launch(self, session: Session) -> asyncio.Task[None] | None:
        """The renewal under way, or a new one; None where nothing can renew."""
        if session.flight is not None:
            return session.flight
        if session.ended or not session.renewal.possible or self._closed:
            return None
        session.flight = flight = asyncio.get_running_loop().create_task(self._fly(session))
        self._flights.add(flight)
        flight.add_done_callback(self._flights.discard)
        return flight

    async def _fly(self, session: Session) -> None:
        try:
            made = await self._endpoint.refresh(session.renewal)
            session.token, session.renewal = made.token, made.renewal
            session.failures, session.renew_from = 0, 0.0
        except TokenRequestError as error:
            await self._failed(session, error)
        except Exception as error:  # a bug must not let old tokens out; its text may hold anything
            _log.error("a renewal broke: %s", type(error).__name__)
            await self._failed(session, TokenRequestError("transient", "internal error"))
        finally:
            session.flight = None

    async def _failed(self, session: Session, error: TokenRequestError) -> None:
        _log.warning("a user's token could not be renewed: %s", error)
        if error.kind == "refused" and (
            error.oauth_error not in _THE_CLIENTS or not self._usable(session, self._clock())
        ):
            await self._end(session, "refused")
            return
        session.renew_from = self._clock() + (error.retry_after or _pause(session.failures))
        session.failures += 1

    async def _end(self, session: Session, why: str) -> None:
        if not session.ended:
            await self._sessions.end(session)
            self._on_end(session, why)

    def _sign_in_again(self) -> GatewayError:
        return GatewayError(CALLER_UNAUTHENTICATED, "the sign-in is over", headers=self._challenge)


def _pause(failures: int) -> float:
    return float(min(_LONGEST_PAUSE, 2.0 ** min(failures, 5)))


def _unavailable(detail: str, wait: float) -> GatewayError:
    return GatewayError(SSO_UNAVAILABLE, detail, retry_after=wait)


def _rejected(detail: str) -> GatewayError:
    return GatewayError(TOKEN_REJECTED, detail, upstream_status=401)
