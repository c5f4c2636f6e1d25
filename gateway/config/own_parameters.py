"""The parameters of OAuth requests that the gateway sets itself: `extra_params` may name none.

Compared without case: some servers take `Client_ID` for `client_id`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

# RFC 6749 section 4.4.2, RFC 7521 section 4.2.
_OF_CREDENTIALS: Final = frozenset(
    {
        "grant_type",
        "client_id",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
        "scope",
    }
)
# RFC 6749 sections 4.1.1, 4.1.3 and 6, RFC 7636, OpenID Connect Core 3.1.2.1; and those by which
# an SSO would answer elsewhere or look at nothing else (OAuth multiple response types, RFC 9101).
_OF_LOGIN: Final = _OF_CREDENTIALS | {
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
    """Those of the names that a request with client credentials has already."""
    return [name for name in names if name.lower() in _OF_CREDENTIALS]


def reserved_for_login(names: Iterable[str]) -> list[str]:
    """Those of the names that a sign-in's request has already, or that would undo it."""
    return [name for name in names if name.lower() in _OF_LOGIN]
