"""Asks the SSO for a token, once, for the person who sets the gateway up."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl

import aiohttp
import orjson

from gateway.certificates import sso_tls
from gateway.config import Settings, SsoSettings
from gateway.oauth.grants import TokenEndpoint
from gateway.oauth.token_response import TokenRequestError, TokenResponse
from gateway.wiring import client_credentials, token_endpoint


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
    yield f"lifetime: {response.lifetime:.0f} s ({sources[response.lifetime_source]})"
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


_REFUSALS: Final = {
    "invalid_client": (
        "check client_id and client secret of credentials.{name}, or which public key the SSO knows"
    ),
    "invalid_scope": "set credentials.{name}.scope to null, or to a scope you were given",
    "unauthorized_client": (
        "check the secret; or the client may not use client_credentials: ask the SSO's operator"
    ),
    "unsupported_grant_type": "is sso.token_url the token endpoint?",
}
_CAUSES: Final = {
    "time-out": "{url} did not answer within {timeout:g} s",
    "name not found": "the host name in {url} cannot be resolved",
    "no connection": "no connection to {url}: nothing listens there, or a firewall is between",
    "certificate": "the certificate of {url} is not trusted; its CA goes into sso.ca_file",
    "TLS": "no secure connection to {url}: TLS failed",
    "connection broken": "the connection to {url} broke before the answer was complete",
    "not HTTP": "{url} answered something that is not HTTP",
    "redirect": "{url} answered with a redirect, which is never followed; correct sso.token_url",
}


def reason(error: TokenRequestError, sso: SsoSettings, name: str) -> str:
    """Why there is no token, in plain words; never text of the SSO."""
    if error.kind == "refused":
        hint = _REFUSALS.get(error.oauth_error or "", "check credentials.{name} and sso.token_url")
        code = f", {error.oauth_error}" if error.oauth_error else ""
        return f"the SSO refused (status {error.status}{code}): {hint.format(name=name)}"
    if error.kind == "throttled":
        wait = f"; try again in {error.retry_after:.0f} s" if error.retry_after else ""
        return f"the SSO has had too many requests{wait}"
    known = _CAUSES.get(error.cause)
    if known is not None:
        return known.format(url=sso.token_url, timeout=sso.timeout)
    status = f" (status {error.status})" if error.status else ""
    return f"{sso.token_url} gave no token{status}: {error.cause}"
