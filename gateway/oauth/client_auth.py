"""How a client proves to the SSO who it is: one small function for each method (RFC 6749 2.3).

Exception
 └─ ValueError
     └─ ClientKeyError     a text holds no secret or key that can be used
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final
from urllib.parse import quote_plus

from authlib.common.urls import add_params_to_qs
from authlib.oauth2.auth import ClientAuth

from gateway.phrases import Phrase
from gateway.secret import Secret

JWT_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# SMART allows 300 s. Half of it leaves as much room for an SSO whose clock is behind ours, which
# sees the end later than we do, as for one whose clock is ahead.
ASSERTION_LIFETIME: Final = 150

ClientAuthentication = Callable[[str, dict[str, str], str], str]
"""Authenticates a token request: gets its URL, headers and form body; may add to the headers, and
gives the body to send."""

Claims = dict[str, str | int]


class ClientKeyError(ValueError):
    """No secret or key that can be used; `problem` says so in plain words and shows none of it."""

    def __init__(self, why: Phrase) -> None:
        super().__init__(why)
        self.problem = why


def client_secret_post(client_id: str, secret: Secret) -> ClientAuthentication:
    """Client id and secret in the form body (RFC 6749 section 2.3.1, second way)."""

    def authenticate(url: str, headers: dict[str, str], body: str) -> str:
        auth = ClientAuth(client_id, secret.reveal(), "client_secret_post")
        return str(auth.prepare("POST", url, headers, body)[2])

    return authenticate


def client_secret_basic(client_id: str, secret: Secret) -> ClientAuthentication:
    """Client id and secret in the Authorization header (RFC 6749 section 2.3.1, first way)."""

    def authenticate(url: str, headers: dict[str, str], body: str) -> str:
        # Each is form-urlencoded before Base64; Authlib leaves that out.
        encoded_id, encoded_secret = quote_plus(client_id), quote_plus(secret.reveal())
        auth = ClientAuth(encoded_id, encoded_secret, "client_secret_basic")
        return str(auth.prepare("POST", url, headers, body)[2])

    return authenticate


def public_client(client_id: str) -> ClientAuthentication:
    """The client id alone (RFC 6749 section 3.2.1): PKCE has to tell that it is the same client."""

    def authenticate(url: str, headers: dict[str, str], body: str) -> str:
        return str(ClientAuth(client_id, None, "none").prepare("POST", url, headers, body)[2])

    return authenticate


def private_key_jwt(
    client_id: str, sign: Callable[[Claims], str], wall_clock: Callable[[], float]
) -> ClientAuthentication:
    """A signed assertion in the form body (RFC 7523 section 2.2, SMART Backend Services)."""

    def authenticate(url: str, headers: dict[str, str], body: str) -> str:
        assertion = sign(assertion_claims(client_id, url, wall_clock()))
        params = {"client_assertion_type": JWT_BEARER, "client_assertion": assertion}
        return str(add_params_to_qs(body, params))

    return authenticate


def assertion_claims(client_id: str, token_url: str, wall_now: float) -> Claims:
    """The claims of one assertion, with a `jti` that no other has; `wall_now` is Unix time."""
    issued = int(wall_now)
    return {
        "iss": client_id,
        "sub": client_id,
        "aud": token_url,
        "iat": issued,
        "exp": issued + ASSERTION_LIFETIME,
        "jti": secrets.token_urlsafe(24),
    }
