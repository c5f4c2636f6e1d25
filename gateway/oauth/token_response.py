"""Access tokens, and the validation of token endpoint responses (RFC 6749 section 5).

A response is validated before any part of it is used. No error text contains text of the body,
except for the masked description: a body may echo the secret. An `AccessToken` has its complete
Authorization field value and its times.

`error_description` and `error_uri` are text of the SSO: they may be long, contain control
characters, and echo values of this request or of other clients' requests. They are therefore
masked. The masked text may be shown in the log, on the terminal and on the status page. It is never
shown to callers and never a value of a metric, an audit record or a trace.

    Exception
     └─ TokenRequestError   a token request failed; kind and cause
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qsl, quote, quote_plus, unquote_plus, urlsplit

from gateway.document_limits import exceeds_depth
from gateway.secret import MASK, Secret
from gateway.telemetry.log_masking import MASK as TEXT_MASK
from gateway.telemetry.log_masking import mask_text

FailureKind = Literal["refused", "throttled", "transient"]
LifetimeSource = Literal["expires_in", "jwt", "default"]
# The causes of a failed token request. `gateway.oauth.token_failures` and the status page have a
# text for each.
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
    "proxy password",
    "proxy route",
    "certificate",
    "certificate name",
    "certificate time",
    "no TLS",
    "TLS",
    "internal error",
]

MAX_LIFETIME: Final = 24 * 3600.0
# Maximum nesting of the SSO's JSON. The formats that are defined for it have three levels.
_MAX_DEPTH: Final = 32

# RFC 6749 section 5.2. SSOs use others, too.
TOKEN_ERROR_CODES: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)
_UNRELATED_ERROR_CODES: Final = frozenset({"invalid_scope", "unsupported_grant_type"})

# Visible ASCII: what RFC 6749 appendix A.12 allows, without the space, which would end the value
# in a header field. A stricter rule could turn an unusual SSO into an outage.
_ACCESS_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_SCOPE: Final = re.compile(r"[\x20-\x7e]{1,1024}")
# The syntax of an error code (RFC 6749 section 8.5), narrowed to a lower-case first letter and to
# one word: HTTP reason phrases, such as "Forbidden", and sentences of firewalls do not match.
_ERROR_CODE: Final = re.compile(r"[a-z][\x21\x23-\x40\x5b\x5d-\x7e]*")
_MAX_SHOWN_CODE_LENGTH: Final = 64
_DECIMAL_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,4})?")


class TokenRequestError(Exception):
    """A token request failed.

    `kind` decides about the next attempt: `refused` (an OAuth error with 400, 401 or 403: an
    operator or a user must act), `throttled` (429) or `transient`. `cause` is never text of the
    SSO. `oauth_error` is the SSO's error code, `other` for one that is not shown. `description` is
    the SSO's own description of the error, for operators only. `retry_after` is the delay of the
    Retry-After field in seconds. `is_grant_invalid`: the SSO refused the authorization code,
    refresh token or refresh cookie, so that the user has to sign in again.
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
        self.is_grant_invalid = kind == "refused" and oauth_error == "invalid_grant"

    @property
    def may_be_wrong_client(self) -> bool:
        """Whether the SSO may accept another secret or key.

        Servers use different error codes for a wrong secret, so only unrelated codes are excluded.
        Glewlwyd answers 403 without a body.
        """
        if self.kind == "refused":
            return self.oauth_error not in _UNRELATED_ERROR_CODES
        return self.oauth_error is None and self.status in (401, 403)

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
    """A token as the SSO issued it.

    `lifetime` is in seconds from `requested_at`, a moment of the monotonic clock before the request
    was sent. `lifetime_source` names the value that the lifetime was taken from. `refusals` are the
    errors of the client secrets that were tried before. The rest is used only by the sign-in of
    users: the refresh token, the ID token, and the cookies that the response sets, "" for one that
    it removes.
    """

    access_token: Secret
    lifetime: float
    lifetime_source: LifetimeSource
    requested_at: float
    scope: str | None = None
    refusals: tuple[TokenRequestError, ...] = ()
    refresh_token: Secret | None = None
    id_token: str | None = field(default=None, repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)

    def to_access_token(self, now: float, wall_now: float) -> AccessToken:
        """Return the token with its times; `now` is monotonic, `wall_now` is Unix time.

        Raises `TokenRequestError` if the token has expired on its way.
        """
        token = AccessToken(
            self.access_token.reveal(),
            received_at=self.requested_at,
            lifetime=self.lifetime,
            wall_expiry=wall_now + self.lifetime - (now - self.requested_at),
            scope=self.scope,
            has_default_lifetime=self.lifetime_source == "default",
        )
        if now >= token.usable_until:
            raise TokenRequestError("transient", "token expired on arrival")
        return token


def parse_object(body: bytes) -> dict[str, object] | None:
    """Return the JSON object in `body`, or None if it is none. All numbers become floats."""
    try:
        # With parse_int=float a number of 5000 digits becomes infinity; int() would raise.
        value = json.loads(body, parse_int=float)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and not exceeds_depth(value, _MAX_DEPTH) else None


def parse_token_response(
    body: bytes,
    *,
    requested_at: float,
    wall_now: float,
    default_lifetime: float,
    secrets: Iterable[str],
) -> TokenResponse:
    """Return the token of a response with status 2xx.

    `requested_at` (monotonic) and `wall_now` (Unix time) are the moment of the request.
    `default_lifetime` (seconds) applies where the response states none. `secrets` are those of the
    request, which are masked in the error's description. Raises `TokenRequestError` of the kind
    `transient` if the response contains no usable token.
    """
    members = parse_object(body)
    if members is None:
        raise TokenRequestError("transient", _invalid_response(body))
    access_token = members.get("access_token")
    if not isinstance(access_token, str) or not _ACCESS_TOKEN.fullmatch(access_token):
        raise TokenRequestError(
            "transient",
            "no usable access_token",
            oauth_error=oauth_error_code(members, secrets),
            description=description_of(members, secrets),
        )
    token_type = members.get("token_type")
    # RFC 6749 section 5.1 requires token_type, but some servers omit it. Bearer is assumed then.
    if token_type is not None and str(token_type).lower() != "bearer":
        raise TokenRequestError("transient", "token_type is not Bearer")
    lifetime, source = _lifetime(members, access_token, wall_now, default_lifetime)
    scope, refresh_token, id_token = map(members.get, ("scope", "refresh_token", "id_token"))
    return TokenResponse(
        Secret(access_token),
        lifetime,
        source,
        requested_at,
        scope if isinstance(scope, str) and _SCOPE.fullmatch(scope) else None,
        refresh_token=Secret(refresh_token)
        if isinstance(refresh_token, str) and refresh_token
        else None,
        id_token=id_token if isinstance(id_token, str) else None,
    )


def is_web_page(body: bytes) -> bool:
    """Return whether `body` is HTML or XML: its first character is `<`."""
    return body.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


def _invalid_response(body: bytes) -> Cause:
    if not body:
        return "empty answer"
    return "web page" if is_web_page(body) else "not a JSON object"


def oauth_error_code(
    members: Mapping[str, object] | None, secrets: Iterable[str] = ()
) -> str | None:
    """Return the error code (RFC 6749 section 5.2), None without.

    A code that is too long, looks random or has one of `secrets` (of the request) is `other`.
    """
    error = (members or {}).get("error")
    if not isinstance(error, str) or not _ERROR_CODE.fullmatch(error):
        return None
    is_shown = len(error) <= _MAX_SHOWN_CODE_LENGTH and masked_text(error, secrets) == error
    return error if is_shown else "other"


def _lifetime(
    members: dict[str, object], access_token: str, wall_now: float, default: float
) -> tuple[float, LifetimeSource]:
    expires_in = _positive(_number(members.get("expires_in")))
    if expires_in is not None:
        return min(expires_in, MAX_LIFETIME), "expires_in"
    from_jwt = _positive(_jwt_lifetime(access_token, wall_now))
    if from_jwt is not None:
        return min(from_jwt, MAX_LIFETIME), "jwt"
    return min(default, MAX_LIFETIME), "default"


def _number(value: object) -> float | None:
    if isinstance(value, str) and _DECIMAL_NUMBER.fullmatch(value.strip()):
        return float(value)
    return value if isinstance(value, float) else None


def _positive(value: float | None) -> float | None:
    return value if value is not None and not math.isnan(value) and value > 0 else None


def _jwt_lifetime(access_token: str, wall_now: float) -> float | None:
    """Return the seconds until the JWT's `exp`, None without `exp`.

    The signature is not checked: the platform checks it. `exp` - `iat` is a lifetime that does not
    depend on the gateway's wall clock. The wall clock is used only where it shows that a part of
    that lifetime has already passed, because the SSO returned a cached token.
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
    """Return the claims of a JWT without checking its signature, {} if it is no JWT."""
    parts = access_token.split(".")
    if len(parts) != 3:
        return {}
    payload = parts[1]
    try:
        decoded = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    except ValueError:
        return {}
    return parse_object(decoded) or {}


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
    of a JWT that has one, for the audit trail. `has_default_lifetime`: nothing but
    `sso.default_token_lifetime` says how long it lives. Two tokens are equal if their values are,
    whatever their times.
    """

    __slots__ = (
        "authorization",
        "expires_at",
        "has_default_lifetime",
        "lifetime",
        "received_at",
        "scope",
        "token_id",
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
        has_default_lifetime: bool = False,
    ) -> None:
        self.authorization = b"Bearer " + value.encode("ascii")
        self.received_at = received_at
        self.lifetime = lifetime
        self.expires_at = received_at + lifetime
        self.usable_until = self.expires_at - min(_SAFETY_MARGIN, _SAFETY_SHARE * lifetime)
        self.wall_expiry = wall_expiry
        self.scope = scope
        self.has_default_lifetime = has_default_lifetime
        self.token_id = _token_id(value)

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


_MAX_SHOWN_LENGTH: Final = 300
# Parameters of a token request whose values may be shown; the value of any other may be secret.
_PUBLIC_PARAMETERS: Final = frozenset(
    {
        "grant_type",
        "scope",
        "client_id",
        "redirect_uri",
        "client_assertion_type",
        "token_type_hint",
    }
)
# Shorter values are masked only as whole words, because they occur within many other words.
_MIN_INNER_SECRET_LENGTH: Final = 4
# Tokens, authorization codes and keys. A run of 16 or more characters is masked if it looks random:
# no word of a language and no error code of that length has digits or changes of case.
_LONG_RUN: Final = re.compile(r"[A-Za-z0-9+/=_.~%-]{16,}")
_URL_RUN: Final = re.compile(r"[A-Za-z0-9+=_~%-]{16,}")
_LOOKS_RANDOM: Final = re.compile(r"\d|(?:[a-z][A-Z].*){4}|[A-Za-z]{28}|.{64}", re.DOTALL)


def secrets_of(form: str, headers: Mapping[str, str]) -> frozenset[str]:
    """Return the secret values of a token request: plain, and in both forms of percent-encoding."""
    spelt: set[str] = set()
    for value in _secret_values(form, headers):
        spelt |= {value, quote(value, safe=""), quote_plus(value)}
    return frozenset(spelt - {""})


def _secret_values(form: str, headers: Mapping[str, str]) -> Iterator[str]:
    for name, value in parse_qsl(form):
        if name not in _PUBLIC_PARAMETERS:
            yield value
    credentials = headers.get("Authorization", "").partition(" ")[2]
    if credentials:
        yield credentials
        try:
            decoded = base64.b64decode(credentials).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        secret = decoded.partition(":")[2]
        yield from (secret, unquote_plus(secret))
    for cookie in headers.get("Cookie", "").split("; "):
        yield cookie.partition("=")[2]


def description_of(response: Mapping[str, object] | None, secrets: Iterable[str] = ()) -> str:
    """Return the masked `error_description` and `error_uri` of a response in one line, "" if none.

    `secrets` are the values to mask, from `secrets_of`. The text has at most 300 characters for
    each of the two members.
    """
    members = response or {}
    text, url = members.get("error_description"), members.get("error_uri")
    parts = [masked_text(text, secrets) if isinstance(text, str) else ""]
    if isinstance(url, str) and (shown := _without_query(url)):
        parts.append(f"({masked_text(shown, secrets, _URL_RUN)})")
    return " ".join(part for part in parts if part)


def masked_text(text: str, secrets: Iterable[str], run: re.Pattern[str] = _LONG_RUN) -> str:
    """Return a text of the SSO in one line of at most 300 characters, without `secrets`.

    What looks random is masked as well, in words that match `run`.
    """
    text = "".join(character if character.isprintable() else " " for character in text)
    for secret in sorted(secrets, key=len, reverse=True):
        pattern = re.escape(secret)
        if len(secret) < _MIN_INNER_SECRET_LENGTH:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        text = re.sub(pattern, TEXT_MASK, text, flags=re.IGNORECASE)
    text = run.sub(_masked_where_random, mask_text(text))
    text = " ".join(text.split())
    return text if len(text) <= _MAX_SHOWN_LENGTH else f"{text[: _MAX_SHOWN_LENGTH - 1]}…"


def _masked_where_random(run: re.Match[str]) -> str:
    return TEXT_MASK if _LOOKS_RANDOM.search(run[0]) else run[0]


def _without_query(url: str) -> str:
    """Return an HTTP(S) URL without user information, query and fragment, "" for other texts."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
