"""The sign-out, started at the gateway or at the SSO, and effective at both.

Started at the gateway: the refresh token is revoked (RFC 7009), and the browser may be sent to the
SSO's end session endpoint (OpenID Connect RP-Initiated Logout 1.0). Started at the SSO: the SSO
sends a logout token, which ends sessions of the gateway (OpenID Connect Back-Channel Logout 1.0).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from authlib.common.urls import add_params_to_uri

from gateway.login.authorization_code import MAX_NAME_LENGTH, logout_mark
from gateway.login.openid_provider import LEEWAY, IdTokenError, IdTokenFault, OpenIdProvider
from gateway.login.session_store import Session, digest
from gateway.login.sessions import SessionManager
from gateway.oauth.grants import UserTokenEndpoint
from gateway.oauth.token_response import TokenRequestError, unverified_claims
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.operations_settings import LoginSettings

_log = get_logger(__name__)

_LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
_MAX_NUMERIC_DATE: Final = 1e12
# Maximum age of a logout token, in seconds. It limits how long the `jti` of received tokens must be
# remembered.
_MAX_TOKEN_AGE: Final = 600.0
# Seconds. The revocation must not delay the user's sign-out for long.
_REVOCATION_TIMEOUT: Final = 3.0


class SignOutFlow:
    """Signs users of one client out; `wall_clock` returns Unix time."""

    def __init__(
        self,
        *,
        login: LoginSettings,
        endpoint: UserTokenEndpoint,
        provider: OpenIdProvider,
        sessions: SessionManager,
        wall_clock: Callable[[], float],
    ) -> None:
        self._login = login
        self._client_id = login.client_id or ""
        self._endpoint = endpoint
        self._provider = provider
        self._sessions = sessions
        self._wall_clock = wall_clock

    async def end_session_url(self) -> str | None:
        """Return the URL at which the browser can end the SSO's own session, None if unknown.

        It has no `id_token_hint`, because no token may be part of a URL.
        """
        try:
            async with asyncio.timeout(_REVOCATION_TIMEOUT):
                metadata = await self._provider.metadata()
        except TimeoutError:
            return None
        if metadata is None or metadata.end_session_endpoint is None:
            return None
        params = [("client_id", self._client_id)]
        if self._login.post_logout_redirect_uri is not None:
            params.append(("post_logout_redirect_uri", self._login.post_logout_redirect_uri))
        return str(add_params_to_uri(metadata.end_session_endpoint, params))

    async def revoke(self, session: Session) -> None:
        """Revoke the session's refresh token if the SSO supports that. Failures are only logged."""
        refresh_token = session.renewal.refresh_token
        if refresh_token is None:
            return
        try:
            async with asyncio.timeout(_REVOCATION_TIMEOUT):
                metadata = await self._provider.metadata()
                if metadata is not None and metadata.revocation_endpoint is not None:
                    await self._endpoint.revoke(metadata.revocation_endpoint, refresh_token)
        except TimeoutError:
            _log.warning(
                "a user's token could not be revoked: no response in %g s", _REVOCATION_TIMEOUT
            )
        except TokenRequestError as error:
            _log.warning("a user's token could not be revoked: %s", error)

    async def handle_back_channel(self, logout_token: str) -> tuple[str | None, int]:
        """End the sessions that a logout token names.

        Return the subject that the SSO signed out, None if the token does not name one, and the
        number of sessions that ended. Raises `IdTokenError`, and `GatewayError` if the session
        store fails. The claims are checked before the signature, so that forged tokens cost little.
        """
        claims = unverified_claims(logout_token)
        self._check(claims)
        metadata = await self._provider.metadata()
        if metadata is None:
            raise IdTokenError("document")
        if claims["iss"] != metadata.issuer:
            raise IdTokenError("iss")
        await self._provider.verified_claims(logout_token)
        seen = digest("logout", metadata.issuer, str(claims["jti"]))
        if not await self._sessions.register_once(seen, _MAX_TOKEN_AGE + 2 * LEEWAY):
            raise IdTokenError("jti")
        mark = logout_mark(claims, "sid") or logout_mark(claims, "sub")
        ended = 0 if mark is None else await self._sessions.end_by_mark(mark)
        user = claims.get("sub")
        return user[:MAX_NAME_LENGTH] if isinstance(user, str) else None, ended

    def _check(self, claims: Mapping[str, Any]) -> None:
        """Raise `IdTokenError` unless the claims are valid.

        Follows OpenID Connect Back-Channel Logout 1.0 section 2.6, except for the signature and the
        replay of a `jti`. Some SSOs, such as LemonLDAP::NG and Glewlwyd, send no `exp`: their
        tokens expire by `iat`, as all others do.
        """
        if not claims:
            raise IdTokenError("form")
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        events = claims.get("events")
        issued = _numeric_date(claims.get("iat")) - self._wall_clock()
        expires = _numeric_date(claims.get("exp")) - self._wall_clock()
        checks: dict[IdTokenFault, bool] = {
            "iss": _is_text(claims.get("iss")),
            "aud": self._client_id in audiences,
            "iat": -_MAX_TOKEN_AGE - LEEWAY < issued < LEEWAY,
            "exp": "exp" not in claims or expires > -LEEWAY,
            "jti": _is_text(claims.get("jti")),
            "events": isinstance(events, Mapping)
            and isinstance(events.get(_LOGOUT_EVENT), Mapping),
            # An ID token, which contains a nonce, must not be accepted as a logout token.
            "nonce": "nonce" not in claims,
            "sub": _is_text(claims.get("sub", "none")) and _is_text(claims.get("sid", "none")),
            "sid": "sub" in claims or "sid" in claims,
        }
        for name, is_valid in checks.items():
            if not is_valid:
                raise IdTokenError(name)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable()


def _numeric_date(value: object) -> float:
    """Return a NumericDate as a float, -inf if `value` is not a number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return -math.inf
    return float(min(value, _MAX_NUMERIC_DATE))
