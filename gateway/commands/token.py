"""Asks the SSO for a token, once, for the person who sets the gateway up."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import aiohttp
import orjson

from gateway.config import SecretUnreadable, Settings
from gateway.config.secret_files import oddity
from gateway.duration import in_words
from gateway.oauth.error_messages import Way, causes, explain
from gateway.oauth.grants import TokenEndpoint
from gateway.oauth.token_response import TokenRequestError, TokenResponse
from gateway.process.certificates import sso_tls
from gateway.process.factories import client_credentials, token_endpoint


async def request(settings: Settings, credential: str) -> TokenResponse:
    """Ask the SSO once. Raises `StartError` (secret, CA file) or `TokenRequestError`."""
    grant = client_credentials(settings, credential)
    endpoint = token_endpoint(settings, sso_tls(settings))
    session = aiohttp.ClientSession(  # noqa: TID251 - a command of its own, no request path
        cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    )
    async with session:
        return await TokenEndpoint(session, endpoint).request(grant)


def describe(response: TokenResponse, *, show: bool) -> Iterator[str]:
    """Lines for people; the token itself only when it is to be shown."""
    expiry = datetime.now(UTC) + timedelta(seconds=response.lifetime)
    sources = {
        "expires_in": "as the SSO says",
        "jwt": "from the token's exp",
        "default": "assumed: sso.default_token_lifetime",
    }
    yield "type: Bearer"
    yield f"lifetime: {in_words(response.lifetime)} ({sources[response.lifetime_source]})"
    yield f"expiry: {expiry:%Y-%m-%dT%H:%M:%SZ}"
    yield f"scope: {response.scope or 'none named'}"
    if show:
        yield f"token: {response.access_token.reveal()}"


def assertion(settings: Settings, credential: str) -> Iterator[str]:
    """Lines with what the SSO sees of a credential with a key; none for others.

    The assertion is one of its own kind, shown without its signature. Raises `StartError`.
    """
    grant = client_credentials(settings, credential)
    if grant.public_key is None:
        return
    form = dict(parse_qsl(grant.authenticate(settings.sso.token_url, {}, "")))
    header, claims, _ = form["client_assertion"].split(".")
    yield f"assertion header: {_decoded(header)}"
    yield f"assertion claims: {_decoded(claims)}"
    yield f"public key: {orjson.dumps(grant.public_key).decode()}"


def _decoded(part: str) -> str:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode()


def reason(error: TokenRequestError, settings: Settings, name: str) -> str:
    """Why there is no token, in plain words; never text of the SSO."""
    return explain(error, name, _way(settings)) + _note(error, settings, name)


def reasons(error: TokenRequestError, settings: Settings, name: str) -> tuple[str, str]:
    """The same in two: what happened, and what to do if that can be told."""
    happened, remedy = causes(error, name, _way(settings))
    return happened, remedy + _note(error, settings, name)


def _way(settings: Settings) -> Way:
    sso = settings.sso
    return Way(sso.token_url, sso.timeout, sso.proxy_url)


def _note(error: TokenRequestError, settings: Settings, name: str) -> str:
    """Tells of what nobody sees: blanks around the secret, and which of several it was."""
    credential = settings.credentials[name]
    if error.kind != "refused" or credential.auth_method == "private_key_jwt":
        return ""
    source = credential.secret_source(name)
    with contextlib.suppress(SecretUnreadable):
        secret = source.read()
        if secret is not None and (odd := oddity(secret)) is not None:
            return f" ({source.key} {odd}: is that meant?)"
        if secret is not None and len(secret.reveal().splitlines()) > 1:
            return f" ({source.key} has several: the first was tried)"
    return ""
