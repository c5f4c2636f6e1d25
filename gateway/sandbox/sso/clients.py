"""The registered OAuth clients of the SSO and their authentication (RFC 6749 section 2.3)."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote_plus, urlsplit

from gateway.sandbox.options import SandboxOptions

_CHALLENGE: Final = 'Basic realm="dhp-sandbox", charset="UTF-8"'
# `urlsplit` drops line breaks, which must not reach a header field.
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+")


class OAuthError(Exception):
    """An error response of the token endpoint (RFC 6749 section 5.2)."""

    def __init__(self, status: int, error: str, description: str, challenge: str = "") -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.description = description
        self.challenge = challenge


class Clients:
    """The two registered clients: a confidential and a public one."""

    def __init__(self, options: SandboxOptions) -> None:
        self._confidential = options.client_id
        self._secret = options.client_secret
        self._public = options.public_client_id

    def known(self, client_id: str) -> bool:
        """Return whether a client of this id is registered."""
        return client_id in (self._confidential, self._public)

    def is_public(self, client_id: str) -> bool:
        """Return whether this client has no secret, and therefore must use PKCE."""
        return client_id == self._public

    def authenticate(self, form: Mapping[str, str], authorization: str | None) -> str:
        """Return the id of the client that sent this token request. Raises OAuthError."""
        if authorization is not None:
            if "client_secret" in form:
                raise OAuthError(
                    400, "invalid_request", "two ways of authentication in one request"
                )
            client_id, secret = _basic(authorization)
            if form.get("client_id", client_id) != client_id:
                raise OAuthError(400, "invalid_request", "two different client ids")
            return self._check(client_id, secret, _CHALLENGE)
        if "client_id" not in form:
            raise OAuthError(400, "invalid_request", "client_id is missing")
        if "client_secret" in form:
            return self._check(form["client_id"], form["client_secret"], "")
        if self.is_public(form["client_id"]):
            return self._public
        raise OAuthError(400, "invalid_request", "client_secret is missing")

    def _check(self, client_id: str, secret: str, challenge: str) -> str:
        right_id = hmac.compare_digest(client_id.encode(), self._confidential.encode())
        right_secret = hmac.compare_digest(secret.encode(), self._secret.encode())
        if right_id and right_secret:
            return self._confidential
        raise OAuthError(401, "invalid_client", "unknown client or wrong secret", challenge)


def _basic(authorization: str) -> tuple[str, str]:
    """Return id and secret, each form-urlencoded in Basic credentials (RFC 6749 section 2.3.1)."""
    scheme, _, credentials = authorization.partition(" ")
    try:
        text = base64.b64decode(credentials.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    client_id, colon, secret = text.partition(":")
    if scheme.lower() != "basic" or not colon:
        raise OAuthError(401, "invalid_client", "the Authorization header is not Basic", _CHALLENGE)
    return unquote_plus(client_id), unquote_plus(secret)


def may_redirect_to(uri: str) -> bool:
    """Return whether this is an http URI of a loopback host, with any port (RFC 8252 7.3).

    All of these are registered.
    """
    if not _PRINTABLE.fullmatch(uri):
        return False
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.scheme != "http" or parts.fragment or parts.username is not None:
        return False
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
