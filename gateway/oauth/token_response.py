"""What the SSO's token endpoint answers, and how far it is believed (RFC 6749 section 5).

An answer is judged before anything of it is kept. Nothing here shows what the answer held: a body
may echo the secret.

    Exception
     └─ TokenRequestError   no token this time, and why
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from gateway.nesting import exceeds_depth
from gateway.oauth.error_description import description_of
from gateway.secret import Secret

FailureKind = Literal["refused", "throttled", "transient"]
LifetimeSource = Literal["expires_in", "jwt", "default"]
# Why there is no token, in fixed words: `explaining` and the status page have a text for each.
Cause = Literal[
    "refused",
    "throttled",
    "redirect",
    "error status",
    "no OAuth error",
    "web page",
    "empty answer",
    "unreadable answer",
    "not HTTP",
    "not a JSON object",
    "no usable access_token",
    "token_type is not Bearer",
    "token expired on arrival",
    "time-out",
    "name not found",
    "no connection",
    "connection broken",
    "proxy",
    "certificate",
    "certificate name",
    "certificate time",
    "no TLS",
    "TLS",
    "internal error",
]

MAX_LIFETIME: Final = 24 * 3600.0
# Levels of an SSO's JSON; what is defined for it has three.
_DEEPEST: Final = 32

OAUTH_ERRORS: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)

# Visible ASCII: what RFC 6749 appendix A.12 allows, less the space, which would end the value.
_ACCESS_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_SCOPE: Final = re.compile(r"[\x20-\x7e]{1,1024}")
# The form of a code (section 8.5), which HTTP's reason phrases, such as "Forbidden", have not.
_ERROR_CODE: Final = re.compile(r"[a-z][\x21\x23-\x40\x5b\x5d-\x7e]*")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,4})?")


class TokenRequestError(Exception):
    """The SSO gave no token.

    `kind` says how to go on: `refused` (an OAuth error with 400, 401 or 403: somebody must act),
    `throttled` (429) or `transient`. `cause` is never text of the SSO. `oauth_error` is a code of
    RFC 6749 section 5.2 or `other`; `description` what the SSO says of it, for operators only;
    `retry_after` is in seconds, from the header of that name.
    """

    def __init__(
        self,
        kind: FailureKind,
        cause: Cause,
        *,
        oauth_error: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        description: str = "",
    ) -> None:
        super().__init__(kind, cause)
        self.kind = kind
        self.cause = cause
        self.oauth_error = oauth_error
        self.status = status
        self.retry_after = retry_after
        self.description = description

    @property
    def is_grant_invalid(self) -> bool:
        """Whether the SSO says that a code or refresh token is worth nothing (any more)."""
        return self.kind == "refused" and self.oauth_error == "invalid_grant"

    def __str__(self) -> str:
        parts: list[str] = [] if self.cause == self.kind else [self.cause]
        if self.status is not None:
            parts.append(f"status {self.status}")
        if self.oauth_error not in (None, "other"):
            parts.append(f"error {self.oauth_error}")
        if self.description:
            parts.append(f'"{self.description}"')
        return f"token request {self.kind}: {', '.join(parts)}"


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """A token as the SSO gave it.

    `lifetime` is in seconds from `requested_at`, a moment of the monotonic clock before the request
    was sent; `lifetime_source` says where it is from. `refusals` are those of other secrets that
    were tried before.
    """

    access_token: Secret
    lifetime: float
    lifetime_source: LifetimeSource
    requested_at: float
    scope: str | None = None
    refusals: tuple[TokenRequestError, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestTime:
    """When a token was asked for: on the monotonic clock and as Unix time."""

    monotonic: float
    wall: float


def parse_object(body: bytes) -> dict[str, object] | None:
    """The JSON object that `body` is, or None. Numbers come as floats, whatever their length."""
    try:
        # parse_int: a number of 5000 digits is then infinity; as an int it would be an error.
        value = json.loads(body, parse_int=float)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and not exceeds_depth(value, _DEEPEST) else None


def parse_token_response(
    body: bytes, asked: RequestTime, default_lifetime: float, secrets: Iterable[str] = ()
) -> TokenResponse:
    """Judge a successful answer; raises a transient `TokenRequestError` if it holds no token.

    `secrets` are those of the request, which no description may show.
    """
    answer = parse_object(body)
    if answer is None:
        raise TokenRequestError("transient", _invalid_response(body))
    access_token = answer.get("access_token")
    if not isinstance(access_token, str) or not _ACCESS_TOKEN.fullmatch(access_token):
        raise TokenRequestError(
            "transient",
            "no usable access_token",
            oauth_error=oauth_error_code(answer),
            description=description_of(answer, secrets),
        )
    token_type = answer.get("token_type")
    # REQUIRED by section 5.1, yet left out by some servers: then it can only mean Bearer.
    if token_type is not None and str(token_type).lower() != "bearer":
        raise TokenRequestError("transient", "token_type is not Bearer")
    lifetime, source = _lifetime(answer, access_token, asked.wall, default_lifetime)
    scope = answer.get("scope")
    return TokenResponse(
        Secret(access_token),
        lifetime,
        source,
        asked.monotonic,
        scope if isinstance(scope, str) and _SCOPE.fullmatch(scope) else None,
    )


def is_web_page(body: bytes) -> bool:
    """Whether it is markup, for people to read."""
    return body.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


def _invalid_response(body: bytes) -> Cause:
    if not body:
        return "empty answer"
    return "web page" if is_web_page(body) else "not a JSON object"


def oauth_error_code(answer: dict[str, object] | None) -> str | None:
    """The error code of section 5.2, `other` for any other code, None where there is none."""
    error = (answer or {}).get("error")
    if not isinstance(error, str) or not _ERROR_CODE.fullmatch(error):
        return None
    return error if error in OAUTH_ERRORS else "other"


def _lifetime(
    answer: dict[str, object], access_token: str, wall_now: float, default: float
) -> tuple[float, LifetimeSource]:
    expires_in = _positive(_number(answer.get("expires_in")))
    if expires_in is not None:
        return min(expires_in, MAX_LIFETIME), "expires_in"
    from_jwt = _positive(_jwt_lifetime(access_token, wall_now))
    if from_jwt is not None:
        return min(from_jwt, MAX_LIFETIME), "jwt"
    return min(default, MAX_LIFETIME), "default"


def _number(value: object) -> float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    return value if isinstance(value, float) else None


def _positive(value: float | None) -> float | None:
    return value if value is not None and not math.isnan(value) and value > 0 else None


def _jwt_lifetime(access_token: str, wall_now: float) -> float | None:
    """Seconds until the JWT's `exp`; its signature is the platform's business, not ours.

    With `iat` there is a lifetime that does not hang on our wall clock; the clock is believed
    only where it says that part of that lifetime has passed already (the SSO kept the token).
    """
    claims = unverified_claims(access_token)
    exp, iat = _number(claims.get("exp")), _number(claims.get("iat"))
    if exp is None:
        return None
    remaining = exp - wall_now
    if iat is None or exp <= iat:
        return remaining
    return remaining if 0 < remaining < exp - iat else exp - iat


def unverified_claims(access_token: str) -> dict[str, object]:
    """The claims of a JWT whose signature is not checked; none where it is no JWT."""
    parts = access_token.split(".")
    if len(parts) != 3:
        return {}
    payload = parts[1]
    try:
        decoded = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    except ValueError:
        return {}
    return parse_object(decoded) or {}
