"""Parses the client secrets or private keys of one client from a text: one, or two for an overlap.

While a client secret is replaced at the SSO, the SSO accepts both for a time, or first the old one
and then the new one. A file may therefore contain two secrets, one on each line, or two keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.i18n import Message
from gateway.oauth.client_auth import (
    ClientAuthentication,
    ClientKeyError,
    client_secret_basic,
    client_secret_post,
    private_key_jwt,
)
from gateway.secret import Secret

_MAX_SECRETS: Final = 2


@dataclass(frozen=True, slots=True)
class ClientAuthenticator:
    """One client secret or private key, with the function that authenticates the client with it.

    `fingerprint`, `material` and `public_key` are those of `ClientCredentials`.
    """

    authenticate: ClientAuthentication = field(repr=False)
    fingerprint: str
    material: Secret
    public_key: Mapping[str, Any] | None = None


def parse_client_secrets(
    client_id: str, text: Secret, *, in_header: bool
) -> tuple[ClientAuthenticator, ...]:
    """Return the client secrets of a text: one on each line, the newest first.

    `in_header` selects client_secret_basic instead of client_secret_post. Raises `ClientKeyError`
    for no secret or more than two.
    """
    authentication = client_secret_basic if in_header else client_secret_post
    lines = [line.rstrip("\r") for line in text.reveal().split("\n")]
    found = [Secret(line) for line in dict.fromkeys(lines) if line.strip()]
    if not found:
        raise ClientKeyError(Message("is empty"))
    if len(found) > _MAX_SECRETS:
        raise ClientKeyError(
            Message("holds more than two lines: one secret, or two for the overlap")
        )
    return tuple(
        ClientAuthenticator(authentication(client_id, secret), secret.fingerprint(), secret)
        for secret in found
    )


def parse_client_keys(
    client_id: str, text: Secret, wall_clock: Callable[[], float] = time.time
) -> tuple[ClientAuthenticator, ...]:
    """Return the private keys of a PEM text, a JWK or a JWK set, the newest first.

    `wall_clock` returns Unix time, for the assertions. Raises `ClientKeyError`.
    """
    from gateway.oauth.signing_key import read_keys  # slow to import, and rarely needed

    found = read_keys(text.reveal())
    if len(found) > _MAX_SECRETS:
        raise ClientKeyError(
            Message("holds more than two private keys: one, or two for the overlap")
        )
    return tuple(
        ClientAuthenticator(
            private_key_jwt(client_id, key.sign, wall_clock),
            key.fingerprint,
            key.material,
            key.public,
        )
        for key in found
    )
