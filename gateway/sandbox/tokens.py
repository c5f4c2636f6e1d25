"""Access tokens: JWTs (RS256), signed by the SSO and verified by the platform."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

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


class TokenAuthority:
    """Issues and verifies tokens; `lifetime` is in seconds, `clock` returns Unix time."""

    def __init__(
        self,
        key: RSAKey,
        *,
        issuer: str,
        audience: str,
        lifetime: int,
        clock: Callable[[], float],
    ) -> None:
        self._key = key
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self.lifetime = lifetime

    def issue(self, subject: str, client_id: str, scope: str | None) -> str:
        """Return a new token (claims as in RFC 9068)."""
        now = int(self._clock())
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": subject,
            "aud": self._audience,
            "client_id": client_id,
            "iat": now,
            "exp": now + self.lifetime,
            "jti": str(uuid.uuid4()),
        }
        if scope is not None:
            claims["scope"] = scope
        header = {"alg": _ALGORITHM, "typ": "JWT", "kid": self._key.kid}
        return jwt.encode(header, claims, self._key)

    def verify(self, token: str) -> TokenBearer:
        """Return the bearer of a token. Raises TokenError."""
        try:
            claims = jwt.decode(token, self._key, algorithms=[_ALGORITHM]).claims
        except (JoseError, ValueError):
            raise TokenError("not a token of this SSO") from None
        if claims.get("iss") != self._issuer or claims.get("aud") != self._audience:
            raise TokenError("issued for another platform")
        left = float(claims["exp"]) - self._clock()
        if left <= 0:
            raise TokenError("expired")
        return TokenBearer(str(claims["sub"]), left)

    def jwks(self) -> dict[str, Any]:
        """Return the public key as a JWK Set (RFC 7517)."""
        return {"keys": [self._key.as_dict(private=False)]}
