"""Checks bearer tokens as a platform would: signature, issuer, audience, expiry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from multidict import CIMultiDictProxy


@dataclass(slots=True)
class BearerGuard:
    """Returns what is wrong with a request's token; None admits the request.

    `clients` and `tokens` hold what was admitted, in order. A leeway of one second is needed
    because `iat` and `exp` are whole seconds.
    """

    jwks: Any
    issuer: str
    audience: str
    clients: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def __call__(self, headers: CIMultiDictProxy[str]) -> str | None:
        """Check the `Authorization` fields, of which there must be exactly one."""
        fields = headers.getall("Authorization", [])
        if len(fields) != 1:
            return f"{len(fields)} Authorization fields"
        scheme, _, token = fields[0].partition(" ")
        if scheme != "Bearer":
            return "no bearer token"
        try:
            claims = self._verified_claims(token)
        except (JoseError, ValueError) as error:
            return type(error).__name__
        self.clients.append(claims["client_id"])
        self.tokens.append(token)
        return None

    def _verified_claims(self, token: str) -> dict[str, Any]:
        decoded = jwt.decode(token, KeySet.import_key_set(self.jwks), algorithms=["RS256"])
        registry = jwt.JWTClaimsRegistry(
            leeway=1,
            iss={"essential": True, "value": self.issuer},
            aud={"essential": True, "value": self.audience},
            exp={"essential": True},
        )
        registry.validate(decoded.claims)
        return decoded.claims
