"""State of the SSO between requests: authorization codes and refresh tokens; and access tokens.

A code can be used once, and so can a refresh token, which is replaced at each use. A second use of
either revokes all refresh tokens of that sign-in (RFC 6749 sections 4.1.2 and 10.4, RFC 9700
section 4.14.2). Access tokens are JWTs (RS256), signed by the SSO and verified by the platform.
"""

from __future__ import annotations

import hmac
import re
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

_ALGORITHM: Final = "RS256"
_KEY_BITS: Final = 2048


class TokenError(Exception):
    """The token is not valid. The text is the reason and does not contain the token."""


@dataclass(frozen=True, slots=True)
class TokenBearer:
    """The subject of a valid token, and the seconds until it expires."""

    subject: str
    expires_in: float


def new_key() -> RSAKey:
    """Return a new signing key. This is slow, so it should run in a worker thread."""
    return RSAKey.generate_key(_KEY_BITS, {"use": "sig", "alg": _ALGORITHM}, auto_kid=True)


@dataclass(frozen=True, slots=True)
class TokenAuthority:
    """Issues and verifies tokens; `lifetime` is in seconds, `clock` returns Unix time."""

    key: RSAKey
    issuer: str
    audience: str
    lifetime: int
    clock: Callable[[], float]

    def issue(self, subject: str, client_id: str) -> str:
        """Return a new token (claims as in RFC 9068)."""
        now = int(self.clock())
        claims = {
            "iss": self.issuer,
            "sub": subject,
            "aud": self.audience,
            "client_id": client_id,
            "iat": now,
            "exp": now + self.lifetime,
            "jti": str(uuid.uuid4()),
        }
        header = {"alg": _ALGORITHM, "typ": "JWT", "kid": self.key.kid}
        return jwt.encode(header, claims, self.key)

    def verify(self, token: str) -> TokenBearer:
        """Return the bearer of a token. Raises TokenError."""
        try:
            claims = jwt.decode(token, self.key, algorithms=[_ALGORITHM]).claims
        except (JoseError, ValueError):
            raise TokenError("not a token of this SSO") from None
        if claims.get("iss") != self.issuer or claims.get("aud") != self.audience:
            raise TokenError("issued for another platform")
        left = float(claims["exp"]) - self.clock()
        if left <= 0:
            raise TokenError("expired")
        return TokenBearer(str(claims["sub"]), left)

    def jwks(self) -> dict[str, Any]:
        """Return the public key as a JWK Set (RFC 7517)."""
        return {"keys": [self.key.as_dict(private=False)]}


_VERIFIER: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")
# Seconds.
_CODE_LIFETIME: Final = 60
REFRESH_LIFETIME: Final = 8 * 3600


class GrantError(Exception):
    """The code or refresh token cannot be used; the text is the reason."""


@dataclass(frozen=True, slots=True)
class PendingSignIn:
    """A completed sign-in: the client, the user and the request that the user approved."""

    client_id: str
    subject: str
    redirect_uri: str
    challenge: str | None = None


@dataclass(slots=True)
class _Grant:
    sign_in: PendingSignIn
    family: str
    expires: float
    used: bool = False


class Grants:
    """Codes and refresh tokens of one SSO; `clock` returns Unix time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._codes: dict[str, _Grant] = {}
        self._refresh_tokens: dict[str, _Grant] = {}

    def new_code(self, sign_in: PendingSignIn) -> str:
        """Return a one-time code for the redirect."""
        expires = self._clock() + _CODE_LIFETIME
        return _add(self._codes, _Grant(sign_in, secrets.token_hex(8), expires))

    def redeem_code(
        self, code: str, *, client_id: str, redirect_uri: str, verifier: str | None
    ) -> tuple[PendingSignIn, str]:
        """Return the sign-in of a code, and a refresh token. Raises GrantError."""
        grant = self._redeem(self._codes, code)
        if grant.sign_in.client_id != client_id:
            raise GrantError("the code was issued to another client")
        if grant.sign_in.redirect_uri != redirect_uri:
            raise GrantError("redirect_uri is not the one of the authorization request")
        _require_verifier(grant.sign_in.challenge, verifier)
        return grant.sign_in, self._new_refresh_token(grant)

    def redeem_refresh_token(self, token: str, *, client_id: str) -> tuple[PendingSignIn, str]:
        """Return the sign-in of a refresh token, and the next refresh token. Raises GrantError."""
        grant = self._redeem(self._refresh_tokens, token)
        if grant.sign_in.client_id != client_id:
            raise GrantError("the refresh token was issued to another client")
        return grant.sign_in, self._new_refresh_token(grant)

    def _new_refresh_token(self, grant: _Grant) -> str:
        expires = self._clock() + REFRESH_LIFETIME
        return _add(self._refresh_tokens, _Grant(grant.sign_in, grant.family, expires))

    def _redeem(self, grants: dict[str, _Grant], token: str) -> _Grant:
        grant = grants.get(token)
        if grant is None:
            raise GrantError("unknown")
        if grant.used:
            self._revoke(grant.family)
            raise GrantError("used before")
        grant.used = True
        if grant.expires <= self._clock():
            raise GrantError("expired")
        return grant

    def _revoke(self, family: str) -> None:
        for token, grant in list(self._refresh_tokens.items()):
            if grant.family == family:
                del self._refresh_tokens[token]


def _add(grants: dict[str, _Grant], grant: _Grant) -> str:
    token = secrets.token_urlsafe(32)
    grants[token] = grant
    return token


def _require_verifier(challenge: str | None, verifier: str | None) -> None:
    """Check the verifier (RFC 7636 section 4.6). Raises GrantError.

    A verifier without a challenge is an attack (RFC 9700 section 2.1.1).
    """
    if challenge is None and verifier is None:
        return
    if challenge is None or verifier is None or not _VERIFIER.fullmatch(verifier):
        raise GrantError("code_verifier and code_challenge belong together")
    if not hmac.compare_digest(create_s256_code_challenge(verifier), challenge):
        raise GrantError("code_verifier does not match code_challenge")
