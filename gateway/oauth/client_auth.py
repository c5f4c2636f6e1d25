"""How a client proves to the SSO who it is: one small function for each method (RFC 6749 2.3)."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote_plus

from authlib.oauth2.auth import ClientAuth

from gateway.secret import Secret

ClientAuthentication = Callable[[str, dict[str, str], str], str]
"""Authenticates a token request: gets its URL, headers and form body; may add to the headers, and
gives the body to send."""


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
