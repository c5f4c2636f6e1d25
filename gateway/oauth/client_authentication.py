"""Client authentication at the SSO: one function for each method (RFC 6749 section 2.3).

The client secrets or private keys of one client are parsed from a text: one, or two for an overlap.
While a client secret is replaced at the SSO, the SSO accepts both for a time, or first the old one
and then the new one. A file may therefore contain two secrets, one on each line, or two keys. A
text without a usable one raises `ClientKeyError`.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote_plus

from authlib.common.urls import add_params_to_qs
from authlib.oauth2.auth import ClientAuth

from gateway.errors import ClientKeyError
from gateway.i18n import Message
from gateway.secret import Secret

JWT_BEARER: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# Seconds. SMART allows 300 s. Half of it tolerates the same deviation of the SSO's clock in both
# directions: behind the gateway's clock (the expiry is then further in its future) and ahead.
_ASSERTION_LIFETIME: Final = 150
_MAX_SECRETS: Final = 2

# Authenticates a token request. It takes the URL, the headers and the form body, may add to the
# headers, and returns the body to send.
ClientAuthentication = Callable[[str, dict[str, str], str], str]

_Claims = dict[str, str | int]


def client_secret_post(client_id: str, secret: Secret) -> ClientAuthentication:
    """Return the method that sends client id and secret in the form body.

    It is the second method of RFC 6749 section 2.3.1.
    """

    def authenticate(url: str, headers: dict[str, str], body: str) -> str:
        auth = ClientAuth(client_id, secret.reveal(), "client_secret_post")
        return str(auth.prepare("POST", url, headers, body)[2])

    return authenticate


def client_secret_basic(
    client_id: str, secret: Secret, *, is_literal: bool = False
) -> ClientAuthentication:
    """Return the method that sends client id and secret in the Authorization header.

    It is the first method of RFC 6749 section 2.3.1, which form-urlencodes both. With `is_literal`
    they are sent as they are: LemonLDAP::NG, Glewlwyd and node-oauth2-server do not decode them.
    """

    def authenticate(url: str, headers: dict[str, str], body: str) -> str:
        both = (client_id, secret.reveal())
        user, password = both if is_literal else map(quote_plus, both)
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {encoded}"
        return body

    return authenticate


def public_client(client_id: str) -> ClientAuthentication:
    """Return the method that sends only the client id (RFC 6749 section 3.2.1).

    PKCE then has to prove that the request is from the client that started the sign-in.
    """

    def authenticate(url: str, headers: dict[str, str], body: str) -> str:
        return str(ClientAuth(client_id, None, "none").prepare("POST", url, headers, body)[2])

    return authenticate


def private_key_jwt(
    client_id: str,
    sign: Callable[[_Claims], str],
    wall_clock: Callable[[], float],
    audience: str | None = None,
) -> ClientAuthentication:
    """Return the method that sends a signed assertion in the form body.

    Follows RFC 7523 section 2.2 and SMART Backend Services. The client id is optional there, but
    LemonLDAP::NG finds no client without it. `wall_clock` returns Unix time. The default audience
    is the token endpoint.
    """

    def authenticate(url: str, headers: dict[str, str], body: str) -> str:
        assertion = sign(_assertion_claims(client_id, audience or url, wall_clock()))
        params = {
            "client_id": client_id,
            "client_assertion_type": JWT_BEARER,
            "client_assertion": assertion,
        }
        return str(add_params_to_qs(body, params))

    return authenticate


def _assertion_claims(client_id: str, audience: str, wall_now: float) -> _Claims:
    """Return the claims of one assertion, with a unique `jti`; `wall_now` is Unix time.

    The audience is that of the token endpoint for revocation, too: some SSOs accept nothing else.
    """
    issued = int(wall_now)
    return {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": issued,
        "exp": issued + _ASSERTION_LIFETIME,
        "jti": secrets.token_urlsafe(24),
    }


@dataclass(frozen=True, slots=True)
class ClientAuthenticator:
    """One client secret or private key, with the function that authenticates the client with it.

    `fingerprint` identifies the secret or key without revealing it. `material` is the secret or key
    itself, from which a store derives encryption keys. `public_key` is the JWK of a private key.
    `is_second_form`: what is sent where the SSO refuses the first form: a secret in the header that
    is not encoded (see `client_secret_basic`), an assertion whose audience is the issuer.
    """

    authenticate: ClientAuthentication = field(repr=False)
    fingerprint: str
    material: Secret
    public_key: Mapping[str, Any] | None = None
    is_second_form: bool = False


def parse_client_secrets(
    client_id: str, text: Secret, *, in_header: bool
) -> tuple[ClientAuthenticator, ...]:
    """Return the client secrets of a text: one on each line, the newest first.

    `in_header` selects client_secret_basic instead of client_secret_post. Where the encoding of the
    header changes client id or secret, the secrets follow once more as they are. Raises
    `ClientKeyError` for no secret or more than two.
    """
    authentication = client_secret_basic if in_header else client_secret_post
    lines = [line.rstrip("\r") for line in text.reveal().split("\n")]
    found = [Secret(line) for line in dict.fromkeys(lines) if line.strip()]
    if not found:
        raise ClientKeyError(Message("is empty"))
    if len(found) > _MAX_SECRETS:
        raise ClientKeyError(
            Message(
                "contains more than two lines: write one secret, or two while it is being changed"
            )
        )
    authenticators = [
        ClientAuthenticator(authentication(client_id, secret), secret.fingerprint(), secret)
        for secret in found
    ]
    # A name cannot hold a colon as it is (RFC 7617 section 2).
    for secret in found if in_header and ":" not in client_id else ():
        if quote_plus(client_id + secret.reveal()) != client_id + secret.reveal():
            literal = client_secret_basic(client_id, secret, is_literal=True)
            authenticators.append(
                ClientAuthenticator(literal, secret.fingerprint(), secret, is_second_form=True)
            )
    return tuple(authenticators)


def parse_client_keys(
    client_id: str,
    text: Secret,
    wall_clock: Callable[[], float] = time.time,
    *,
    issuer: str | None = None,
) -> tuple[ClientAuthenticator, ...]:
    """Return the private keys of a PEM text, a JWK or a JWK set, the newest first.

    They follow once more with `issuer` as the audience, if it is known: zitadel/oidc accepts
    nothing else, and others no longer will. An array with both audiences is refused by some.
    `wall_clock` returns Unix time, for the assertions. Raises `ClientKeyError`.
    """
    from gateway.oauth.signing_keys import read_keys  # slow to import, and rarely needed

    found = read_keys(text.reveal())
    if len(found) > _MAX_SECRETS:
        raise ClientKeyError(
            Message(
                "contains more than two private keys: write one, or two while it is being changed"
            )
        )
    return tuple(
        ClientAuthenticator(
            private_key_jwt(client_id, key.sign, wall_clock, audience),
            key.fingerprint,
            key.material,
            key.public,
            is_second_form=audience is not None,
        )
        for audience in dict.fromkeys((None, issuer))
        for key in found
    )
