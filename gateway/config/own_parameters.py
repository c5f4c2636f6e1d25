"""The parameters of OAuth requests that the gateway sets: `extra_params` must not name them.

Names are compared without case, because some servers accept `Client_ID` for `client_id`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

# RFC 6749 section 4.4.2, RFC 7521 section 4.2.
_RESERVED_FOR_CREDENTIALS: Final = frozenset(
    {
        "grant_type",
        "client_id",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
        "scope",
    }
)
# RFC 6749 sections 4.1.1, 4.1.3 and 6, RFC 7636, OpenID Connect Core 3.1.2.1; and those that make
# an SSO send its response elsewhere (OAuth multiple response types) or ignore the other parameters
# (RFC 9101).
_RESERVED_FOR_LOGIN: Final = _RESERVED_FOR_CREDENTIALS | {
    "response_type",
    "response_mode",
    "redirect_uri",
    "state",
    "nonce",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "refresh_token",
    "request",
    "request_uri",
}


def reserved_for_credentials(names: Iterable[str]) -> list[str]:
    """Return the names that a client credentials request has already."""
    return [name for name in names if name.lower() in _RESERVED_FOR_CREDENTIALS]


def reserved_for_login(names: Iterable[str]) -> list[str]:
    """Return the names that the login's requests have already, or that would defeat it."""
    return [name for name in names if name.lower() in _RESERVED_FOR_LOGIN]
