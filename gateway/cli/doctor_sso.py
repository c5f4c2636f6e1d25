"""The doctor's checks of the SSO: whether it issues a token, and which addresses may be wrong.

What SSO and platform publish about themselves is only compared; the gateway never uses it. The
checks of the login examine the SSO's discovery document and keys, its sign-in page and the client.
No user is signed in, and nothing is stored: the page is requested once, and a code that cannot
exist is sent once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urljoin, urlsplit

import aiohttp

from gateway.app import tls_contexts
from gateway.app.login_setup import openid_provider, user_endpoint
from gateway.app.preflight import Check, Finding
from gateway.cli.doctor_network import CheckedServer, check_route, failed_by_setting
from gateway.cli.healthcheck import is_alive
from gateway.cli.platform_commands import (
    bounded_get,
    open_session,
    request_token,
    token_failure_and_remedy,
)
from gateway.clock import TimeSource
from gateway.config.operations_settings import LoginSettings
from gateway.config.settings import PRESETS, Settings
from gateway.errors import StartError
from gateway.i18n import Message, all_of, format_duration, join_messages
from gateway.login.authorization_code import begin_sign_in
from gateway.login.openid_provider import (
    DISCOVERY_PATH,
    IdTokenError,
    OpenIdProvider,
    is_issuer_of,
    possible_issuers,
)
from gateway.login.session_store import new_secret
from gateway.oauth.token_failures import (
    TOKEN_CAUSES,
    WRONG_ENDPOINT_STATUSES,
    reported_error,
    with_description,
)
from gateway.oauth.token_response import (
    TOKEN_ERROR_CODES,
    TokenRequestError,
    TokenResponse,
    description_of,
    oauth_error_code,
    parse_object,
)
from gateway.secret import Secret

if TYPE_CHECKING:
    from aiohttp import ClientSession  # noqa: TID251 - received, not made

# Seconds. The documents are optional, so that they must not delay the doctor for long.
_DOCUMENT_TIMEOUT: Final = 3.0
_MAX_DOCUMENT_BYTES: Final = 64 * 1024
_OAUTH: Final = "/.well-known/oauth-authorization-server"
_SMART: Final = "/.well-known/smart-configuration"
_MAX_URL_LENGTH: Final = 300
# Causes for which the server is probably not the client's SSO, or the path is wrong.
_WRONG_SERVER_CAUSES: Final = frozenset(
    {
        "no OAuth error",
        "web page",
        "redirect",
        "not HTTP",
        "no TLS",
        "not a JSON object",
        "empty answer",
        "unreadable answer",
        "no usable access_token",
    }
)
_UNKNOWN_CLIENT_ERRORS: Final = frozenset({"invalid_client", "unauthorized_client"})
"""The errors of an SSO that refuses the client, and not what the client asks for."""


def token_check(name: str) -> Check:
    """Return the check of a credential's token."""
    return Check(Message("token {name}", name=name), "token", f"credentials.{name}")


async def check_token(settings: Settings, name: str) -> tuple[Finding, TokenResponse | None]:
    """Check whether the SSO issues a credential's token; return its response, else None, too."""
    check = token_check(name)
    try:
        response = await request_token(settings, name)
    except StartError as error:
        return failed_by_setting(
            check, error, Message("Correct the client secret or key first")
        ), None
    except TokenRequestError as error:
        return token_fault(error, settings, name), None
    detail = Message(
        "the SSO gave a token for {lifetime}", lifetime=format_duration(response.lifetime)
    )
    return Finding(check, "ok", detail), response


def token_fault(error: TokenRequestError, settings: Settings, name: str) -> Finding:
    """Return the check of a credential for which the SSO issues no token."""
    happened, _ = token_failure_and_remedy(error, settings, name)
    hints = [_hint(error, settings, name)]
    if error.status is not None:
        hints = [*_start_first(settings, settings.credentials[name].auth_method), *hints]
    check = token_check(name)
    return Finding(check, "failed", happened, join_messages(". ", hints))


def _start_first(settings: Settings, auth_method: str) -> Iterator[Message]:
    """Yield the hint that the SSO may be unable to fetch the published keys.

    It applies where an SSO has rejected a client with a key and no gateway is running.
    """
    if auth_method == "private_key_jwt" and not is_alive(settings.admin.address):
        yield Message(
            "If the SSO fetches the public keys from /.well-known/jwks.json of this gateway, "
            "start the gateway first"
        )


def _hint(error: TokenRequestError, settings: Settings, name: str) -> Message:
    _, remedy = token_failure_and_remedy(error, settings, name)
    hint = remedy or Message("try again later; if it lasts, report it to the SSO's support")
    if error.kind == "refused":
        known = Message("ask the SSO's support what is registered for this client_id")
        hint = Message("{remedy}; {known}", remedy=remedy, known=known) if remedy else known
    hint = Message("{hint:capital}", hint=hint)
    if not _is_national(settings):
        return hint
    if error.oauth_error in _UNKNOWN_CLIENT_ERRORS:
        environment_hint = Message(
            "Each environment has its own SSO, which refuses the client_id of another environment"
        )
        return join_messages(
            ". ", [hint, environment_hint, *_mixed_environments(settings), _environment_endpoints()]
        )
    if error.cause in _WRONG_SERVER_CAUSES or error.status in WRONG_ENDPOINT_STATUSES:
        return join_messages(". ", [hint, _environment_endpoints()])
    return hint


def add_known_addresses(settings: Settings, finding: Finding) -> Finding:
    """Add the known token endpoints to a failed check of the route to an unknown SSO."""
    is_known = bool(_environments(settings, "sso", "token_url"))
    if finding.state != "failed" or is_known or not _is_national(settings):
        return finding
    return replace(finding, hint=join_messages(". ", [finding.hint, _environment_endpoints()]))


def _is_national(settings: Settings) -> bool:
    """Return whether the settings are about the national platform, and not about another."""
    return settings.environment != "custom" or bool(
        _environments(settings, "sso", "token_url")
        or _environments(settings, "platform", "fhir_base_url")
    )


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
) -> AsyncIterator[Finding]:
    """Yield which token endpoint the published documents of SSO and platform name."""
    async with open_session() as session:
        for server in servers:
            by_sso = server.url == settings.sso.token_url
            urls = (
                list(_sso_metadata_urls(settings)) if by_sso else [server.url.rstrip("/") + _SMART]
            )
            proxy_url = settings.sso.proxy_url if by_sso else settings.platform.proxy_url
            requests = (_endpoint(session, url, server, proxy_url) for url in urls)
            named = zip(urls, await asyncio.gather(*requests), strict=True)
            found = {url: endpoint for url, endpoint in named if endpoint is not None}
            check = server.check("documents")
            yield _check_endpoints(check, found, settings.sso.token_url, has_token=has_token)


def _sso_metadata_urls(settings: Settings) -> Iterator[str]:
    """Yield the URLs at which an SSO may publish its metadata.

    RFC 8414 section 3.1 and OpenID Connect Discovery section 4.
    """
    origin = "{}://{}".format(*_origin(settings.sso.token_url))
    issuers = [
        issuer for issuer in possible_issuers(settings.sso) if _origin(issuer) == _origin(origin)
    ]
    urls = [issuer + name for issuer in issuers for name in (_OAUTH, DISCOVERY_PATH)]
    urls += [f"{origin}{_OAUTH}{issuer.removeprefix(origin)}" for issuer in issuers]
    yield from dict.fromkeys(urls)


async def _endpoint(
    session: ClientSession,
    url: str,
    server: CheckedServer,
    proxy_url: str | None,
) -> str | None:
    """Return the token endpoint that a document names, None without such a document."""
    try:
        response, body = await bounded_get(
            session,
            url,
            _MAX_DOCUMENT_BYTES,
            tls=server.trust(),
            headers={"Accept": "application/json"},
            proxy=proxy_url,
            timeout=aiohttp.ClientTimeout(total=min(server.timeout, _DOCUMENT_TIMEOUT)),
        )
    except (StartError, OSError, TimeoutError, aiohttp.ClientError, ValueError):
        return None
    document = parse_object(body) if response.status == 200 and body else None
    endpoint = (document or {}).get("token_endpoint")
    return endpoint if isinstance(endpoint, str) else None


def _check_endpoints(
    check: Check, found: dict[str, str], token_url: str, *, has_token: bool
) -> Finding:
    if not found:
        return Finding(check, "skipped", Message("none that names a token endpoint"))
    differing = {url: endpoint for url, endpoint in found.items() if endpoint != token_url}
    if not differing:
        return Finding(
            check,
            "ok",
            Message("{url} names the token endpoint of the settings", url=next(iter(found))),
        )
    url, endpoint = next(iter(differing.items()))
    named = endpoint[:_MAX_URL_LENGTH] if endpoint.isprintable() else Message("that is not a URL")
    detail = Message(
        "{url} names the token endpoint {named}, sso.token_url is {token_url}",
        url=url,
        named=named,
        token_url=token_url,
    )
    hint = Message(
        "Ask the SSO's support which is right for this client_id, and set sso.token_url to it; the "
        "gateway uses no address from there by itself"
    )
    return Finding(check, "ok" if has_token else "failed", detail, hint)


_DISCOVERY: Final = Check(Message("login discovery"), "login-discovery", "login")
_PAGE: Final = Check(Message("login page"), "login-page", "login")
_CLIENT: Final = Check(Message("login client"), "login-client", "login")
_CODE_ERROR: Final = "invalid_grant"


async def check_login(settings: Settings, *, sso_reached: bool) -> AsyncIterator[Finding]:
    """Yield all checks of the login, none while it is disabled."""
    if not settings.login.enabled:
        return
    reached = sso_reached
    if _origin(_sign_in_url(settings)) != _origin(settings.sso.token_url):
        findings = await _check_route(settings)
        for finding in findings:
            yield finding
        reached = all(finding.state != "failed" for finding in findings)
    if not reached:
        for check in (_DISCOVERY, _PAGE, _CLIENT):
            yield Finding(check, "unreached", Message("not tested: no connection to the SSO"))
        return
    async with open_session() as session:
        async for finding in _conversation(settings, session, sso_reached=sso_reached):
            yield finding


def _sign_in_url(settings: Settings) -> str:
    """Return the URL of the SSO that browsers are sent to, as far as the settings tell."""
    return settings.sso.authorize_url or settings.sso.issuer or ""


async def _check_route(settings: Settings) -> list[Finding]:
    sso = settings.sso
    url = _sign_in_url(settings)
    trust = partial(tls_contexts.client_tls, url, sso.ca_file, "sso.ca_file")
    key = "sso.authorize_url" if sso.authorize_url else "sso.issuer"
    about = Check(Message("SSO page"), "sso-page", "sso.authorize_url")
    server = CheckedServer(about, url, key, trust, sso.timeout)
    return await check_route(server, uses_proxy=sso.proxy_url is not None)


async def _conversation(
    settings: Settings,
    session: ClientSession,
    *,
    sso_reached: bool,
) -> AsyncIterator[Finding]:
    try:
        provider = openid_provider(settings, session, TimeSource())
    except StartError as error:
        yield failed_by_setting(_DISCOVERY, error, Message("Set a PEM file with CA certificates"))
        return
    yield await _discovery(settings, provider)
    begun = begin_sign_in(settings.login, settings.sso, await provider.metadata(), "/")
    if begun is None:
        yield Finding(_PAGE, "skipped", Message("not tested: no discovery document"))
    else:
        yield await _page(settings, session, begun[0].location)
    if not sso_reached:
        yield Finding(_CLIENT, "unreached", Message("not tested: no connection to the SSO"))
        return
    yield await _client(settings, session)


async def _discovery(settings: Settings, provider: OpenIdProvider) -> Finding:
    documents = [found for found in await provider.discovery_documents() if found[1]]
    for issuer, document in documents:
        if is_issuer_of(issuer, document):
            return await _check_document(settings, provider, issuer, document)
    hint = Message(
        "Set sso.issuer to the issuer that the SSO names in its /.well-known/openid-configuration"
    )
    if documents:
        detail = Message(
            "the document of {stranger} names another issuer",
            stranger=documents[0][0],
        )
        return Finding(_DISCOVERY, "failed", detail, hint)
    if settings.login.is_openid or settings.sso.issuer is not None:
        detail = Message("the SSO publishes no discovery document, so nobody can sign in")
        without = Message("if there is no such document, remove `openid` from login.scope")
        return Finding(
            _DISCOVERY, "failed", detail, Message("{hint}; {without}", hint=hint, without=without)
        )
    detail = Message("the SSO publishes no discovery document; sso.authorize_url is used as it is")
    return Finding(_DISCOVERY, "skipped", detail)


async def _check_document(
    settings: Settings, provider: OpenIdProvider, issuer: str, document: Mapping[str, Any]
) -> Finding:
    methods = document.get("code_challenge_methods_supported", ["S256"])
    if "S256" not in methods:
        hint = Message(
            "Ask its support for PKCE with S256 (RFC 7636); the gateway uses nothing weaker"
        )
        return Finding(
            _DISCOVERY, "failed", Message("the SSO does not support PKCE with S256"), hint
        )
    endpoint = document.get("token_endpoint")
    if endpoint != settings.sso.token_url:
        named = (
            endpoint if isinstance(endpoint, str) and endpoint.isprintable() else Message("none")
        )
        hint = Message("Set sso.token_url to it, or sso.issuer to the SSO of that token endpoint")
        detail = Message("{issuer} names the token endpoint {named}", issuer=issuer, named=named)
        return Finding(_DISCOVERY, "failed", detail, hint)
    detail = Message("{issuer} is an OpenID provider", issuer=issuer)
    if document.get("jwks_uri") is None:
        no_keys = Message(
            "it publishes no keys: an `id_token` that is not signed with the client secret is "
            "trusted only because of TLS to sso.token_url"
        )
        return Finding(
            _DISCOVERY, "ok", Message("{detail}; {no_keys}", detail=detail, no_keys=no_keys)
        )
    try:
        has_keys = bool(await provider.published_keys())
    except IdTokenError:
        has_keys = False
    if not has_keys:
        keys = Message("{issuer} publishes no usable keys at its `jwks_uri`", issuer=issuer)
        hint = Message("Report it to the SSO's support")
        return Finding(_DISCOVERY, "failed", keys, hint)
    return Finding(_DISCOVERY, "ok", detail)


async def _page(settings: Settings, session: ClientSession, url: str) -> Finding:
    """Check whether the SSO would begin a sign-in of this client with this redirect URI."""
    try:
        response, _ = await bounded_get(
            session,
            url,
            0,
            tls=tls_contexts.client_tls(url, settings.sso.ca_file, "sso.ca_file"),
            headers={"Accept": "text/html"},
            proxy=settings.sso.proxy_url,
            timeout=aiohttp.ClientTimeout(total=settings.sso.timeout),
        )
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        detail = Message("no response: {name}", name=type(error).__name__)
        return Finding(_PAGE, "failed", detail, Message("Check sso.authorize_url"))
    location = response.headers.get("Location", "")
    try:
        target = urljoin(url, location) if location else ""
        urlsplit(target)
    except ValueError:
        target = ""
    return _check_page_response(settings.login, response.status, target)


def _check_page_response(login: LoginSettings, status: int, location: str) -> Finding:
    """Return what the response to an authorization request tells; `location` is absolute or "".

    The redirect is not followed.
    """
    register_hint = Message(
        "Register at the SSO, exactly as written here: {client_id}, {redirect_uri}",
        client_id=login.client_id,
        redirect_uri=login.redirect_uri,
    )
    params = dict(parse_qsl(urlsplit(location).query))
    is_returned = location.startswith(login.redirect_uri or "")
    if params.get("error") not in (None, "login_required", "interaction_required"):
        code = oauth_error_code({"error": params["error"]}) or "other"
        refused = Message("the SSO refuses the sign-in: {refusal}", refusal=code)
        hint = Message("Check login.scope; ask the SSO's support what this client_id may do")
        hint = hint if is_returned else register_hint
        return Finding(_PAGE, "failed", with_description(refused, description_of(params)), hint)
    if 400 <= status < 500:
        detail = Message(
            "the SSO does not know this client_id or this redirect_uri (status {status})",
            status=status,
        )
        return Finding(_PAGE, "failed", detail, register_hint)
    if status >= 500:
        detail = Message("status {status}", status=status)
        return Finding(_PAGE, "failed", detail, Message("Check sso.authorize_url"))
    if is_returned and "code" in params:
        detail = Message(
            "the SSO permits sign-ins for {redirect_uri}", redirect_uri=login.redirect_uri
        )
        return Finding(_PAGE, "ok", detail)
    # Many SSOs ask who the user is before they look at the client.
    detail = Message(
        "the sign-in page answers; only a sign-in shows whether client_id and redirect_uri are "
        "registered"
    )
    return Finding(_PAGE, "skipped", detail)


async def _client(settings: Settings, session: ClientSession) -> Finding:
    """Check whether the SSO accepts the client: it then rejects only the invented code.

    Better Auth rejects the code before it looks at the client. That is seen from how it treats a
    client that nobody has registered, which no lock after failed attempts can concern.
    """
    unregistered = settings.login.model_copy(update={"client_id": "dhp-gateway-doctor"})
    other: TokenRequestError | None = None
    try:
        error = await _code_rejection(settings, session)
        if error is not None and error.oauth_error == _CODE_ERROR:
            without = settings.model_copy(update={"login": unregistered})
            other = await _code_rejection(without, session)
    except StartError as problem:
        return failed_by_setting(
            _CLIENT, problem, Message("Correct the client secret or key first")
        )
    if error is None:
        return Finding(_CLIENT, "skipped", Message("not tested: the SSO does not check the code"))
    hints = list(_start_first(settings, settings.login.auth_method))
    return _client_result(error, hints, other is None or other.oauth_error != _CODE_ERROR)


async def _code_rejection(settings: Settings, session: ClientSession) -> TokenRequestError | None:
    """Return how the SSO rejects an invented code, or None. Raises `StartError`."""
    endpoint = user_endpoint(settings, session, TimeSource())
    verifier = Secret(new_secret())
    try:
        await endpoint.redeem_code("doctor", verifier, settings.login.redirect_uri or "")
    except TokenRequestError as error:
        return error
    return None


def _client_result(
    error: TokenRequestError, hints: list[Message], checks_client_first: bool
) -> Finding:
    is_of_code = error.oauth_error == _CODE_ERROR
    if is_of_code and checks_client_first:
        return Finding(
            _CLIENT, "ok", Message("the SSO accepts the client_id and its client authentication")
        )
    summary = _error_summary(error)
    is_refused = error.status == HTTPStatus.UNAUTHORIZED and not is_of_code
    if is_refused or error.oauth_error in _UNKNOWN_CLIENT_ERRORS:
        check = Message(
            "Compare login.client_id, its secret or key and auth_method with the SSO's support"
        )
        refused = Message("the SSO refuses the client_id: {told}", told=summary)
        detail = with_description(refused, error.description)
        return Finding(_CLIENT, "failed", detail, join_messages(". ", [*hints, check]))
    # Some SSOs check the code before the client, or send other errors for a wrong code.
    silent = Message("the SSO's response does not show it: {cause}", cause=summary)
    detail = with_description(silent, error.description)
    return Finding(_CLIENT, "skipped", detail, join_messages(". ", hints))


def _error_summary(error: TokenRequestError) -> Message:
    """Return the OAuth error code, else the status of an error, else the fault of the response."""
    if error.oauth_error in TOKEN_ERROR_CODES:
        return Message(error.oauth_error)
    if error.status is not None and error.status >= HTTPStatus.BAD_REQUEST:
        return join_messages(", ", reported_error(error))
    return TOKEN_CAUSES[error.cause].meaning


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
