"""An access token with its complete Authorization field value and its times."""

from __future__ import annotations

import hmac
import re
from typing import Final

from gateway.oauth.token_response import unverified_claims
from gateway.secret import MASK

_SAFETY_MARGIN: Final = 1.0
_SAFETY_SHARE: Final = 0.1
# The `jti` values that are recorded in the audit trail: visible ASCII, at most 256 characters.
_TOKEN_ID: Final = re.compile(r"[\x21-\x7e]{1,256}")


class AccessToken:
    """A bearer token and its times, all of the monotonic clock except `wall_expiry`.

    `authorization` is the complete value of the Authorization field (RFC 6750 section 2.1).
    `lifetime` is in seconds from `received_at`, a moment before the token request was sent.
    `usable_until` is up to 1 s before `expires_at`, so that the token does not expire on its way to
    the platform. `wall_expiry` (Unix time) is for display and metrics only. `token_id` is the `jti`
    of a JWT that has one, for the audit trail. Two tokens are equal if their values are, whatever
    their times.
    """

    __slots__ = (
        "authorization",
        "expires_at",
        "lifetime",
        "received_at",
        "scope",
        "token_id",
        "token_type",
        "usable_until",
        "wall_expiry",
    )

    def __init__(
        self,
        value: str,
        *,
        received_at: float,
        lifetime: float,
        wall_expiry: float,
        scope: str | None = None,
    ) -> None:
        self.authorization = b"Bearer " + value.encode("ascii")
        self.received_at = received_at
        self.lifetime = lifetime
        self.expires_at = received_at + lifetime
        self.usable_until = self.expires_at - min(_SAFETY_MARGIN, _SAFETY_SHARE * lifetime)
        self.wall_expiry = wall_expiry
        self.scope = scope
        self.token_id = _token_id(value)
        self.token_type = "Bearer"  # noqa: S105 - the only type there is, not a secret

    def reveal(self) -> str:
        """Return the token itself, for a shared store and for `dhp-gateway token --show`."""
        return self.authorization[len(b"Bearer ") :].decode("ascii")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AccessToken):
            return NotImplemented
        return hmac.compare_digest(self.authorization, other.authorization)

    def __hash__(self) -> int:
        return hash(self.authorization)

    def __repr__(self) -> str:
        return f"AccessToken({MASK!r}, lifetime={self.lifetime:g})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("an AccessToken cannot be pickled")


def _token_id(value: str) -> str | None:
    found = unverified_claims(value).get("jti")
    # A `jti` that equals the token itself would be a secret.
    if not isinstance(found, str) or found == value or _TOKEN_ID.fullmatch(found) is None:
        return None
    return found
