"""Requests a token from the SSO once, for the operator who sets the gateway up."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import aiohttp
import orjson

from gateway.config import SecretReadError, Settings
from gateway.config.secret_files import suspicious_surrounding
from gateway.duration import format_duration
from gateway.i18n import EMPTY_MESSAGE, Message, join_messages
from gateway.oauth.error_messages import SsoRoute, cause_and_remedy, failure_text
from gateway.oauth.grants import TokenEndpoint
from gateway.oauth.token_response import TokenRequestError, TokenResponse
from gateway.process.certificates import sso_tls
from gateway.process.factories import client_credentials, token_endpoint


async def request_token(settings: Settings, credential: str) -> TokenResponse:
    """Request a token once. Raises `StartError` (secret, CA file) or `TokenRequestError`."""
    grant = client_credentials(settings, credential)
    endpoint = token_endpoint(settings, sso_tls(settings))
    session = aiohttp.ClientSession(  # noqa: TID251 - a command of its own, no request path
        cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    )
    async with session:
        return await TokenEndpoint(session, endpoint).request(grant)


def format_token(response: TokenResponse, *, show: bool) -> Iterator[Message]:
    """Yield lines for the operator, with the token itself only if `show` is true."""
    expiry = datetime.now(UTC) + timedelta(seconds=response.lifetime)
    sources = {
        "expires_in": Message("as the SSO says"),
        "jwt": Message("from the token's exp"),
        "default": Message("assumed: sso.default_token_lifetime"),
    }
    yield Message("type: Bearer")
    yield Message(
        "lifetime: {time} ({source})",
        time=format_duration(response.lifetime),
        source=sources[response.lifetime_source],
    )
    yield Message("expiry: {time}", time=f"{expiry:%Y-%m-%dT%H:%M:%SZ}")
    yield Message("scope: {scope}", scope=response.scope or Message("none named"))
    if show:
        yield Message("token: {token}", token=response.access_token.reveal())


def format_assertion(settings: Settings, credential: str) -> Iterator[Message]:
    """Yield lines with what the SSO gets from a credential with a key; none for other credentials.

    The assertion is made for this output and shown without its signature. Raises `StartError`.
    """
    grant = client_credentials(settings, credential)
    if grant.public_key is None:
        return
    form = dict(parse_qsl(grant.authenticate(settings.sso.token_url, {}, "")))
    header, claims, _ = form["client_assertion"].split(".")
    yield Message("assertion header: {header}", header=_decoded(header))
    yield Message("assertion claims: {claims}", claims=_decoded(claims))
    yield Message("public key: {key}", key=orjson.dumps(grant.public_key).decode())


def _decoded(part: str) -> str:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode()


def token_failure_text(error: TokenRequestError, settings: Settings, name: str) -> Message:
    """Return why there is no token, as a text for the operator."""
    return join_messages(
        "", [failure_text(error, name, _sso_route(settings)), _secret_hint(error, settings, name)]
    )


def token_failure_and_remedy(
    error: TokenRequestError, settings: Settings, name: str
) -> tuple[Message, Message]:
    """Return the same as two texts: what happened, and what to do, empty where that is unknown."""
    happened, remedy = cause_and_remedy(error, name, _sso_route(settings))
    return happened, join_messages("", [remedy, _secret_hint(error, settings, name)])


def _sso_route(settings: Settings) -> SsoRoute:
    sso = settings.sso
    return SsoRoute(sso.token_url, sso.timeout, sso.proxy_url)


def _secret_hint(error: TokenRequestError, settings: Settings, name: str) -> Message:
    """Return a hint on invisible causes: white space around the secret, or several secrets."""
    credential = settings.credentials[name]
    if error.kind != "refused" or credential.auth_method == "private_key_jwt":
        return EMPTY_MESSAGE
    source = credential.secret_source(name)
    with contextlib.suppress(SecretReadError):
        secret = source.read()
        if secret is not None and (odd := suspicious_surrounding(secret)) is not None:
            return Message(" ({key} {odd}: is that meant?)", key=source.key, odd=odd)
        if secret is not None and len(secret.reveal().splitlines()) > 1:
            return Message(" ({key} has several: the first was tried)", key=source.key)
    return EMPTY_MESSAGE
