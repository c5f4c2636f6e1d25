"""State of the SSO between requests: authorization codes and refresh tokens.

A code can be used once, and so can a refresh token, which is replaced at each use. A second use of
either revokes all refresh tokens of that sign-in (RFC 6749 sections 4.1.2 and 10.4, RFC 9700
section 4.14.2).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_VERIFIER: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")


class GrantError(Exception):
    """The code or refresh token cannot be used; the text is the reason."""


@dataclass(frozen=True, slots=True)
class PendingSignIn:
    """A completed sign-in: the client, the user and the request that the user approved."""

    client_id: str
    subject: str
    redirect_uri: str
    scope: str | None = None
    challenge: str | None = None


@dataclass(slots=True)
class _Grant:
    sign_in: PendingSignIn
    family: str
    expires: float
    used: bool = False


class Grants:
    """Codes and refresh tokens of one SSO. Lifetimes are in seconds, `clock` returns Unix time."""

    def __init__(
        self, *, code_lifetime: int, refresh_lifetime: int, clock: Callable[[], float]
    ) -> None:
        self._code_lifetime = code_lifetime
        self._refresh_lifetime = refresh_lifetime
        self._clock = clock
        self._codes: dict[str, _Grant] = {}
        self._refresh_tokens: dict[str, _Grant] = {}

    def new_code(self, sign_in: PendingSignIn) -> str:
        """Return a one-time code for the redirect."""
        expires = self._clock() + self._code_lifetime
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
        expires = self._clock() + self._refresh_lifetime
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
    digest = hashlib.sha256(verifier.encode()).digest()
    made = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    if not hmac.compare_digest(made, challenge):
        raise GrantError("code_verifier does not match code_challenge")
