"""The doctor's checks of the SSO: whether it issues a token, and which addresses may be wrong.

What SSO and platform publish about themselves is only compared; the gateway never uses it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from gateway.commands import token as token_command
from gateway.commands.findings import CheckedServer, CheckResult
from gateway.commands.healthcheck import is_alive
from gateway.config import Settings
from gateway.config.settings import PRESETS
from gateway.duration import format_duration
from gateway.i18n import Message, all_of, exception_message, join_messages
from gateway.oauth.token_answer import read_response
from gateway.oauth.token_response import TokenRequestError, TokenResponse, parse_object
from gateway.process.factories import StartError

# Seconds. The documents are optional, so that they must not delay the doctor for long.
_DOCUMENT_TIMEOUT: Final = 3.0
_OPENID: Final = "/.well-known/openid-configuration"
_OAUTH: Final = "/.well-known/oauth-authorization-server"
_SMART: Final = "/.well-known/smart-configuration"
_MAX_URL_LENGTH: Final = 300
# Causes for which the server is probably not the client's SSO, or the path is wrong.
_WRONG_SERVER_CAUSES: Final = frozenset(
    {
        *("no OAuth error", "web page", "redirect", "not HTTP", "no TLS"),
        *("not a JSON object", "empty answer", "unreadable answer", "no usable access_token"),
    }
)
_WRONG_PATH_STATUSES: Final = frozenset({404, 405, 410})
UNKNOWN_CLIENT: Final = frozenset({"invalid_client", "unauthorized_client"})
"""The errors of an SSO that refuses the client, and not what the client asks for."""


async def check_token(settings: Settings, name: str) -> tuple[CheckResult, TokenResponse | None]:
    """Check whether the SSO issues a credential's token; return its response, else None, too."""
    check = Message("token {name}", name=name)
    try:
        response = await token_command.request_token(settings, name)
    except StartError as error:
        return CheckResult(
            check, "failed", exception_message(error), Message("Mend the secret or key first")
        ), None
    except TokenRequestError as error:
        happened, _ = token_command.token_failure_and_remedy(error, settings, name)
        hints = [_hint(error, settings, name)]
        if error.status is not None:
            hints = [*start_first(settings, settings.credentials[name].auth_method), *hints]
        return CheckResult(check, "failed", happened, join_messages(". ", hints)), None
    detail = Message(
        "the SSO gave a token for {lifetime}", lifetime=format_duration(response.lifetime)
    )
    return CheckResult(check, "ok", detail), response


def start_first(settings: Settings, auth_method: str) -> Iterator[Message]:
    """Yield the hint that the SSO may be unable to fetch the published keys.

    It applies where an SSO has rejected a client with a key and no gateway is running.
    """
    if auth_method == "private_key_jwt" and not is_alive(settings.admin.address):
        yield Message(
            "If the SSO fetches the public keys from /.well-known/jwks.json of this gateway, "
            "start the gateway first"
        )


def _hint(error: TokenRequestError, settings: Settings, name: str) -> Message:
    _, remedy = token_command.token_failure_and_remedy(error, settings, name)
    hint = remedy or Message("try again later, and tell the SSO's operator if it lasts")
    if error.kind == "refused":
        known = Message("the SSO's operator can tell what is registered for this client")
        hint = Message("{remedy}; {known}", remedy=remedy, known=known) if remedy else known
    hint = Message("{hint:capital}", hint=hint)
    if error.oauth_error in UNKNOWN_CLIENT:
        environment_hint = Message(
            "Each environment has an SSO of its own, which refuses the clients of the others"
        )
        return join_messages(
            ". ", [hint, environment_hint, *_mixed_environments(settings), _environment_endpoints()]
        )
    if error.cause in _WRONG_SERVER_CAUSES or error.status in _WRONG_PATH_STATUSES:
        return join_messages(". ", [hint, _environment_endpoints()])
    return hint


def add_known_addresses(settings: Settings, finding: CheckResult) -> CheckResult:
    """Add the known token endpoints to a failed check of the route to an unknown SSO."""
    if finding.state != "failed" or _environments(settings, "sso", "token_url"):
        return finding
    return replace(finding, hint=join_messages(". ", [finding.hint, _environment_endpoints()]))


def _environment_endpoints() -> Message:
    """Return a hint with the token endpoint of each environment."""
    by_url: dict[str, list[str]] = {}
    for name, preset in PRESETS.items():
        if url := preset["sso"].get("token_url"):
            by_url.setdefault(url, []).append(name)
    endpoints = (
        Message("{url} ({names})", url=url, names=all_of(names)) for url, names in by_url.items()
    )
    return Message("Known token endpoints: {told}", told=join_messages(", ", endpoints))


def _mixed_environments(settings: Settings) -> Iterator[Message]:
    sso = _environments(settings, "sso", "token_url")
    platform = _environments(settings, "platform", "fhir_base_url")
    if sso and platform and not set(sso) & set(platform):
        yield (
            Message(
                "Here sso.token_url is that of {sso}, but platform.fhir_base_url that "
                "of {platform}",
                sso=all_of(sso),
                platform=all_of(platform),
            )
        )


def _environments(settings: Settings, section: str, key: str) -> list[str]:
    """Return the environments that have the host of the configured URL."""
    host = urlsplit(getattr(getattr(settings, section), key)).hostname
    hosts = {
        name: urlsplit(preset[section].get(key, "")).hostname for name, preset in PRESETS.items()
    }
    return [name for name, known in hosts.items() if known == host]


async def check_documents(
    settings: Settings, servers: Iterable[CheckedServer], *, has_token: bool
) -> AsyncIterator[CheckResult]:
    """Yield which token endpoint the published documents of SSO and platform name."""
    session = aiohttp.ClientSession(  # noqa: TID251 - a command of its own, no request path
        cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
    )
    async with session:
        for server in servers:
            by_sso = server.url == settings.sso.token_url
            urls = (
                list(_sso_metadata_urls(settings)) if by_sso else [server.url.rstrip("/") + _SMART]
            )
            proxy_url = settings.sso.proxy_url if by_sso else settings.platform.proxy_url
            requests = (_endpoint(session, url, server, proxy_url) for url in urls)
            named = zip(urls, await asyncio.gather(*requests), strict=True)
            found = {url: endpoint for url, endpoint in named if endpoint is not None}
            check = Message("{name} documents", name=server.name)
            yield _check_endpoints(check, found, settings.sso.token_url, has_token=has_token)


def _sso_metadata_urls(settings: Settings) -> Iterator[str]:
    """Yield the URLs at which an SSO may publish its metadata.

    RFC 8414 section 3.1 and OpenID Connect Discovery section 4.
    """
    token, page = urlsplit(settings.sso.token_url), urlsplit(settings.sso.authorize_url or "")
    origin = f"{token.scheme}://{token.netloc}"
    paths = [page.path.rstrip("/")] if page[:2] == token[:2] else []
    path = token.path
    while path:
        path = path.rpartition("/")[0]
        paths.append(path)
    urls = [f"{origin}{path}{name}" for path in paths for name in (_OAUTH, _OPENID)]
    urls += [f"{origin}{_OAUTH}{path}" for path in paths]
    yield from dict.fromkeys(urls)


async def _endpoint(
    session: aiohttp.ClientSession,  # noqa: TID251 - received, not made
    url: str,
    server: CheckedServer,
    proxy_url: str | None,
) -> str | None:
    """Return the token endpoint that a document names, None without such a document."""
    try:
        tls = server.trust()
        async with (
            asyncio.timeout(min(server.timeout, _DOCUMENT_TIMEOUT)),
            session.get(
                url,
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                ssl=True if tls is None else tls,
                proxy=proxy_url,
                allow_redirects=False,
                auto_decompress=False,
            ) as response,
        ):
            http_response = await read_response(response)
    except (StartError, OSError, TimeoutError, aiohttp.ClientError, ValueError):
        return None
    document = (
        parse_object(http_response.body)
        if http_response.status == 200 and http_response.body
        else None
    )
    endpoint = (document or {}).get("token_endpoint")
    return endpoint if isinstance(endpoint, str) else None


def _check_endpoints(
    check: Message, found: dict[str, str], token_url: str, *, has_token: bool
) -> CheckResult:
    if not found:
        return CheckResult(check, "skipped", Message("none that names a token endpoint"))
    differing = {url: endpoint for url, endpoint in found.items() if endpoint != token_url}
    if not differing:
        return CheckResult(
            check,
            "ok",
            Message("{url} names the token endpoint of the settings", url=next(iter(found))),
        )
    url, endpoint = next(iter(differing.items()))
    named = endpoint[:_MAX_URL_LENGTH] if endpoint.isprintable() else Message("that is no URL")
    detail = Message(
        "{url} names the token endpoint {named}, sso.token_url is {token_url}",
        url=url,
        named=named,
        token_url=token_url,
    )
    hint = Message(
        "Ask the SSO's operator which is right for this client, and set "
        "sso.token_url to it; the gateway takes no address from there by itself"
    )
    return CheckResult(check, "ok" if has_token else "failed", detail, hint)
